"""Programs that run beside a driver: teachers, the labeling page, and whoever starts
the driver again.

A run starts its teachers as anybody could, by `rlhp label RUN`. One that dies is
started again; its lease runs out and the query is served to somebody else. One that
keeps dying at once ends the run, with its own last words. None outlives the run,
however that ends: each holds one end of a pipe, which the kernel closes.

A run of `labels.source=human` starts its page by `rlhp serve RUN`. This process holds
the listening socket and hands it down, so the address stays while the server is started
again: whoever connects meanwhile waits instead of being refused. A page that cannot
work is said once and tried again; it never ends the run, which other labelers may
serve. It does not outlive the run: it holds one end of a pipe.

`rlhp train --keep` is a small process that resumes the run whenever the run's own
process is killed. The driver holds policy and optimizer, so it is the largest process
of a run and the first that a machine short of memory kills. Everything else of a run is
restarted by the driver or by Ray; this restarts the driver. What ends with an exit code
has ended for a reason that it said, and stays ended.
"""

from __future__ import annotations

import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rlhp.config.schema import PageConfig
from rlhp.errors import RoleFailed
from rlhp.files import write_whole
from rlhp.labeling.page.address import address_of, bound, link_token
from rlhp.queue.queue import QueryQueue
from rlhp.storage.metrics import read_metrics
from rlhp.storage.rundir import RunDir

log = logging.getLogger(__name__)

TOO_SOON_SECONDS = 10.0
MOST_EARLY_DEATHS = 5
GRACE_SECONDS = 5.0
NICENESS = 10
MOST_SAID = 20_000
"""Characters of a labeler's log that are repeated in the run's."""


class TeacherProcesses:
    """`count` labeler processes; call `keep` now and then."""

    def __init__(self, rundir: RunDir, *, count: int) -> None:
        self._rundir = rundir
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        self._started: dict[int, float] = {}
        self._settled: set[int] = set()
        self._early_deaths = 0
        for index in range(count):
            self._start(index)

    def keep(self) -> None:
        """Start again what has died; ChildProcessError when they keep dying at once."""
        for index, process in list(self._processes.items()):
            code = process.poll()
            if code is None:
                if time.monotonic() - self._started[index] >= TOO_SOON_SECONDS:
                    self._settled.add(index)
                    self._early_deaths = 0
                continue
            # Judged by when it was last seen alive: between two calls may lie more than
            # a short life.
            self._early_deaths += index not in self._settled
            self._settled.discard(index)
            if self._early_deaths >= MOST_EARLY_DEATHS or code == 1:
                log.error(
                    "labeler %d ended, exit code %d; the end of %s:\n%s",
                    index,
                    code,
                    *self._said(index),
                )
                raise RoleFailed(
                    f"labeler {index} cannot work (exit code {code}): {self._last_words(index)}"
                )
            log.warning("labeler %d died (exit code %d) and is started again", index, code)
            _close(process)
            self._start(index)

    def pids(self) -> list[int]:
        """Process ids, for `rlhp status` and for tests that kill one."""
        return [process.pid for process in self._processes.values()]

    def stop(self) -> None:
        """Ask them to leave, which gives their leases back; kill those that do not."""
        for process in self._processes.values():
            if process.poll() is None:
                process.terminate()
        deadline = time.monotonic() + GRACE_SECONDS
        for process in self._processes.values():
            try:
                process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            _close(process)

    def _log(self, index: int) -> Path:
        return self._rundir.path / f"labeler-{index}.log"

    def _start(self, index: int) -> None:
        who = ["--name", f"teacher-{index}", "--until-eof"]
        command = [sys.executable, "-m", "rlhp", "label", str(self._rundir.path), *who]
        with self._log(index).open("ab") as output:
            # A session of its own: Ctrl-C at the terminal is the driver's to handle.
            self._processes[index] = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=output, stderr=output, start_new_session=True
            )
        # Answers are wanted soon, env steps sooner: on a small machine a teacher takes
        # what they leave. Never back toward 0, which only an administrator may do.
        niceness = max(NICENESS, os.getpriority(os.PRIO_PROCESS, 0))
        os.setpriority(os.PRIO_PROCESS, self._processes[index].pid, niceness)
        self._started[index] = time.monotonic()

    def _said(self, index: int) -> tuple[Path, str]:
        """Its log and the end of that, a traceback for instance."""
        return self._log(index), self._log(index).read_text(errors="replace")[-MOST_SAID:]

    def _last_words(self, index: int) -> str:
        lines = [
            line
            for line in self._log(index).read_text(errors="replace").splitlines()
            if line.strip()
        ]
        return lines[-1] if lines else "it said nothing"


def _close(process: subprocess.Popen[bytes]) -> None:
    if process.stdin is not None:
        process.stdin.close()


SOON_SECONDS = 5.0
LONGEST_PAUSE_SECONDS = 30.0
PAGE_GRACE_SECONDS = 8.0
MOST_LOG_BYTES = 1_000_000
LOOK_SECONDS = 5.0
"""Between two looks at the size of page.log."""


@contextmanager
def page_server(
    config: PageConfig, rundir: RunDir, queue: QueryQueue, *, say: Callable[[str], None]
) -> Iterator[None]:
    """Serve the page for the length of a block, and say the link that opens it, to
    whoever started the run alone.
    """
    server = PageServer(config, rundir)
    try:
        say(
            "label at "
            f"{server.address}/#token={link_token(queue.url, run=queue.run, rundir=rundir)}"
        )
        yield
    finally:
        server.stop()


class PageServer:
    """One server process on a socket of this one, watched by a thread that starts it
    again.
    """

    def __init__(self, config: PageConfig, rundir: RunDir) -> None:
        """ValueError for a host that is not this machine's; a port that is taken
        becomes a free one.
        """
        self._rundir = rundir
        self._log = rundir.path / "page.log"
        self._socket = bound(config.host, config.port, or_free=True)
        self.address = address_of(self._socket)
        write_whole(rundir.page_url_file, self.address + "\n")
        self._stopping = threading.Event()
        self._process = self._start()
        self._watcher = threading.Thread(target=self._watch, name="labeling page", daemon=True)
        self._watcher.start()
        self._trimmer = threading.Thread(target=self._trim, name="page log", daemon=True)
        self._trimmer.start()

    @property
    def pid(self) -> int:
        """Of the present server process, for tests that kill it."""
        return self._process.pid

    def stop(self) -> None:
        """Let it finish the replies under way; kill it if it does not."""
        self._stopping.set()
        process = self._process
        process.terminate()
        try:
            process.wait(PAGE_GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
        self._watcher.join()
        self._trimmer.join()
        self._socket.close()

    def _start(self) -> subprocess.Popen[bytes]:
        descriptor = self._socket.fileno()
        command = [
            sys.executable,
            "-m",
            "rlhp",
            "serve",
            str(self._rundir.path),
            "--socket",
            str(descriptor),
        ]
        with self._log.open("ab") as output:
            # A session of its own: Ctrl-C at the terminal is the driver's to handle.
            return subprocess.Popen(
                [*command, "--until-eof"],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                pass_fds=[descriptor],
                start_new_session=True,
            )

    def _watch(self) -> None:
        pause = 0.0
        while True:
            started = time.monotonic()
            code = self._process.wait()
            if self._process.stdin is not None:
                self._process.stdin.close()
            if self._stopping.is_set():
                return
            pause = (
                0.0
                if time.monotonic() - started > SOON_SECONDS
                else min(LONGEST_PAUSE_SECONDS, 1 + 2 * pause)
            )
            log.warning(
                "the labeling page died (exit code %d) and is started again: %s",
                code,
                self._last_words(),
            )
            if self._stopping.wait(pause):
                return
            self._process = self._start()
            if self._stopping.is_set():  # stop() terminated the one before
                self._process.terminate()

    def _trim(self) -> None:
        """Keep page.log small, and what was in it before: the server appends, so it
        goes on at the new end.
        """
        while not self._stopping.wait(LOOK_SECONDS):
            if self._log.stat().st_size > MOST_LOG_BYTES:
                shutil.copyfile(self._log, self._log.with_suffix(".log.1"))
                os.truncate(self._log, 0)

    def _last_words(self) -> str:
        text = self._log.read_text(encoding="utf-8", errors="replace")
        lines = [line for line in text.splitlines() if line.strip()]
        return lines[-1] if lines else "it said nothing"


PAUSE_SECONDS = 1.0
"""So that what the dead left behind is gone: they all hear of it within that time."""


def keep(
    rundir: RunDir, *, most: int, say: Callable[[str], None], options: Sequence[str] = ()
) -> int:
    """Train to the end in a process of its own; its exit code. 1 after `most` deaths in
    a row without a new env step.

    Ctrl-C and SIGTERM are the run's, and end both. Killed itself, this leaves the run
    going on, kept by nobody.
    """
    command = [sys.executable, "-m", "rlhp", "train", "--resume", str(rundir.path), *options]
    keeper = _Keeper()
    in_a_row, reached = 0, -1
    while True:
        code = keeper.run(command)
        if code >= 0 or keeper.stopping.is_set():
            return code if code >= 0 else 128 - code
        steps = max(
            (row.get("env_steps") or 0 for row in read_metrics(rundir.metrics_file)), default=0
        )
        in_a_row, reached = (in_a_row + 1, reached) if steps <= reached else (1, steps)
        killed = (
            f"the run's process was killed ({signal.Signals(-code).name}) after {steps} env steps"
        )
        if in_a_row > most:
            often = f"{in_a_row} times in a row without a new one (ray.max_restarts={most})"
            say(f"{killed}, {often}; see {rundir.log_file}")
            return 1
        say(f"{killed}: it goes on from its last checkpoint")
        keeper.stopping.wait(PAUSE_SECONDS)


class _Keeper:
    """One child at a time, and signals handed on to it."""

    def __init__(self) -> None:
        self.stopping = threading.Event()
        self._child: subprocess.Popen[bytes] | None = None

    def run(self, command: Sequence[str]) -> int:
        before = {
            number: signal.signal(number, self._hand_on)
            for number in (signal.SIGINT, signal.SIGTERM)
        }
        try:
            # A session of its own: a signal to our whole group would reach it twice,
            # and Ray's handler takes one.
            self._child = subprocess.Popen(command, start_new_session=True)
            return self._child.wait()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _hand_on(self, number: int, frame: Any) -> None:
        self.stopping.set()
        if self._child is not None:
            self._child.send_signal(number)
