"""Keeps one Redis server alive, and never longer than the process that asked for it.

    the run's process --pipe (stdin)--> supervisor --child, dies with it--> redis-server

It is run as a file of its own (`python -I supervisor.py <directory>`), takes its orders
as one JSON line on stdin, says how the start went in one JSON line on stdout, and needs
nothing but the standard library.

A signal at the parent's death (PR_SET_PDEATHSIG) fires when the creating *thread* ends,
so the run's process could not create the server itself from a thread of a pool; this
process has one thread, which lives as long as it does. The lock is inherited by the
server, so a directory is never served twice, not even while an old server winds down.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

LOCK_WAIT_SECONDS = 2.0
"""A server whose run was killed needs a moment to go."""
STOP_SECONDS = 20.0
LOAD_SECONDS = 120.0
"""Time to load the data before PING is answered."""
BACKOFF_SECONDS = (0.05, 5.0)
"""First and longest pause before a server that died is started again; doubled each
time.
"""
HEALTHY_SECONDS = 10.0
"""A server that lived this long starts the pauses from the first again."""
POLL_SECONDS = 0.1
"""How soon the death of server or parent is noticed."""
PORT_TRIES = 5
RAY_PORT = 6379  # Redis' own default, too, so nobody should get it from us
_PR_SET_PDEATHSIG = 1


class StartFailed(Exception):
    """The server cannot be started; one line why."""


class Supervisor:
    """Start, watch, restart, stop."""

    def __init__(self, directory: Path, orders: dict[str, Any], *, parent: int) -> None:
        self._directory = directory
        self._orders = orders
        self._parent = parent
        self._lock = -1
        self._log = subprocess.DEVNULL
        self._port = 0
        self._server: subprocess.Popen[bytes] | None = None
        self._stopping = False

    def start(self) -> dict[str, Any]:
        """Lock the directory and bring the server up; its address. StartFailed
        otherwise.
        """
        self._lock = _lock(self._directory / "lock")
        self._log = os.open(
            self._directory / "server.log", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600
        )
        _write(self._directory / "server.json", json.dumps(self._orders["stamp"]) + "\n")
        wanted = int(self._orders["port"])
        for _ in range(PORT_TRIES):
            self._port = wanted if wanted and _free(wanted) else _free_port()
            wanted = 0
            _write(self._directory / "redis.conf", self._orders["conf"] + f"port {self._port}\n")
            if self._launch():
                url = self._orders["url"].format(port=self._port)
                _write(self._directory / "url", url + "\n")
                return {"url": url}
            if not _free(self._port):
                continue  # somebody else was quicker
            break
        raise StartFailed(
            f"the Redis server did not start; {self._directory / 'server.log'} ends with: "
            f"{self._tail()}"
        )

    def watch(self) -> None:
        """Until told to stop or the parent is gone; a server that dies comes back at
        the same address.
        """
        pause, longest = BACKOFF_SECONDS
        while not self._over(POLL_SECONDS):
            since = time.monotonic()
            while (code := self._poll()) is None:
                if self._over(POLL_SECONDS):
                    return
            if time.monotonic() - since > HEALTHY_SECONDS:
                pause = BACKOFF_SECONDS[0]
            self._say(f"the server ended with code {code}; starting it again in {pause:.2f} s")
            if self._over(pause):
                return
            pause = min(2 * pause, longest)
            self._launch()

    def stop(self) -> None:
        """SIGTERM, wait; SIGKILL only for a server that hangs."""
        if self._server is None or self._server.poll() is not None:
            return
        self._server.terminate()
        try:
            self._server.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._say(f"the server ignored SIGTERM for {STOP_SECONDS:.0f} s and is killed")
            self._server.kill()
            self._server.wait()

    def end(self, *_: object) -> None:
        """Signal handler."""
        self._stopping = True

    def _launch(self) -> bool:
        """Start the server and wait until it answers; False where it ended instead."""
        self._server = subprocess.Popen(
            [self._orders["binary"], "redis.conf"],
            cwd=self._directory,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            pass_fds=(self._lock,),
            preexec_fn=_die_with_parent(),
        )
        _write(self._directory / "server.pid", f"{self._server.pid}\n")
        deadline = time.monotonic() + LOAD_SECONDS
        while not self._answers():
            if self._poll() is not None or self._over(0.01):
                return False
            if time.monotonic() > deadline:
                self._say(f"the server does not answer after {LOAD_SECONDS:.0f} s and is stopped")
                self.stop()
                return False
        return True

    def _answers(self) -> bool:
        """True once PING is PONG: not while the server still loads its data."""
        try:
            with socket.create_connection(("127.0.0.1", self._port), timeout=1) as link:
                link.sendall(f"AUTH {self._orders['password']}\r\nPING\r\n".encode())
                reply = b""
                while reply.count(b"\r\n") < 2 and (piece := link.recv(256)):
                    reply += piece
                return reply == b"+OK\r\n+PONG\r\n"
        except OSError:
            return False

    def _poll(self) -> int | None:
        return self._server.poll() if self._server else None

    def _over(self, seconds: float) -> bool:
        """Wait; True when it is time to stop: told to, the pipe closed, or the parent
        died.
        """
        if not self._stopping and os.getppid() == self._parent:
            with contextlib.suppress(InterruptedError):
                ready, _, _ = select.select([0], [], [], seconds)
                self._stopping |= bool(ready)  # nothing is ever sent: readable means closed
        return self._stopping or os.getppid() != self._parent

    def _say(self, text: str) -> None:
        os.write(self._log, f"supervisor {time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n".encode())

    def _tail(self) -> str:
        lines = (self._directory / "server.log").read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else "(nothing)"


def _lock(path: Path) -> int:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    deadline = time.monotonic() + LOCK_WAIT_SECONDS
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return descriptor
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise StartFailed(
                    f"a Redis server is already running in {path.parent}; stop the run that uses "
                    "it, or use its address, which is in the file `url` there"
                ) from None
            time.sleep(0.05)


def _write(path: Path, text: str) -> None:
    """Whole or not at all, readable by nobody else."""
    part = path.with_name(f".{path.name}.part")
    with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)
    part.replace(path)


def _free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _free_port() -> int:
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            if (port := int(probe.getsockname()[1])) != RAY_PORT:
                return port


def _die_with_parent() -> Callable[[], None] | None:
    """What the child does before it becomes the server: ask the kernel for SIGTERM at
    our death. Linux only.
    """
    if not sys.platform.startswith("linux"):
        return None
    libc = ctypes.CDLL(None, use_errno=True)  # here, because a child must not import
    supervisor = os.getpid()

    def prepare() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != supervisor:  # died between fork and here
            os._exit(1)

    return prepare


def main() -> int:
    """Exit code 0 after a stop, 1 where the server could not be started."""
    # unbuffered, so that select sees what is left
    with open(0, "rb", buffering=0, closefd=False) as stdin:
        line = stdin.readline()
    if not line:
        return 1  # nobody is there any more
    orders = json.loads(line)
    supervisor = Supervisor(Path(sys.argv[1]), orders, parent=int(orders["parent"]))
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, supervisor.end)
    try:
        reply = supervisor.start()
    except (StartFailed, OSError) as error:
        supervisor.stop()
        print(json.dumps({"error": str(error)}), flush=True)
        return 1
    with contextlib.suppress(BrokenPipeError):
        print(json.dumps(reply), flush=True)
    supervisor.watch()
    supervisor.stop()
    (Path(sys.argv[1]) / "server.pid").unlink(missing_ok=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
