"""One child process, started as often as it takes.

    child = Child([sys.executable, "-m", "rlhp", "label", "runs/a"], log=Path("labeler.log"))
    child.start()
    if (code := child.poll()) is not None:
        print(f"it died (exit code {code}): {child.last_words()}")
        child.start()  # again
    child.end(grace_seconds=5)

A child has a session of its own, since Ctrl-C at the terminal is for whoever started
it. It does not outlive this process, however that ends: its standard input is one end
of a pipe, which the kernel closes, and it leaves when it reads the end of that.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import IO

NICENESS = 10
"""Of what is to take only what env runners leave."""


class Child:
    """A program beside this one, of which one process runs at a time."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        log: Path | None = None,
        talks: bool = False,
        pass_fds: Sequence[int] = (),
        env: Mapping[str, str] | None = None,
        stands_back: bool = False,
    ) -> None:
        """Starts nothing yet. What the child says goes to the end of `log`. Where it
        `talks`, its standard output is for the caller, and the rest is kept for
        `last_words`. With neither it has our terminal, and outlives us.
        """
        self._command = command
        self.log = log
        self._talks = talks
        self._pass_fds = pass_fds
        self._env = None if env is None else {**os.environ, **env}
        self._stands_back = stands_back
        self._words: IO[bytes] | None = None
        self._said = ""
        self._process: subprocess.Popen[bytes] | None = None
        self._started = 0.0

    def start(self) -> None:
        """Start it, or start it again after its end."""
        self._close()
        with ExitStack() as stack:
            output: IO[bytes] | None = None
            if self._talks:
                # A pipe that nobody reads would fill and block.
                output = self._words = tempfile.TemporaryFile()  # noqa: SIM115
            elif self.log is not None:
                output = stack.enter_context(self.log.open("ab"))
            self._process = subprocess.Popen(
                self._command,
                stdin=None if output is None else subprocess.PIPE,
                stdout=subprocess.PIPE if self._talks else output,
                stderr=output,
                env=self._env,
                pass_fds=self._pass_fds,
                start_new_session=True,
            )
        if self._stands_back:
            # Never back toward 0, which only an administrator may do.
            niceness = max(NICENESS, os.getpriority(os.PRIO_PROCESS, 0))
            os.setpriority(os.PRIO_PROCESS, self.pid, niceness)
        self._started = time.monotonic()

    @property
    def pid(self) -> int:
        """Of the newest process."""
        return self._running.pid

    @property
    def age_seconds(self) -> float:
        """How long ago the newest process was started."""
        return time.monotonic() - self._started

    @property
    def stdin(self) -> IO[bytes]:
        """What it reads."""
        assert self._running.stdin is not None
        return self._running.stdin

    @property
    def stdout(self) -> IO[bytes]:
        """What it says to a caller to whom it `talks`."""
        assert self._running.stdout is not None
        return self._running.stdout

    def poll(self) -> int | None:
        """Its exit code; None while it runs."""
        return self._running.poll()

    def wait(self, seconds: float | None = None) -> int:
        """Its exit code, once it has ended."""
        return self._running.wait(seconds)

    def signal(self, number: int) -> None:
        """Send it a signal; nothing where none runs."""
        if self._process is not None:
            self._process.send_signal(number)

    def terminate(self) -> None:
        """Ask it to leave."""
        self._running.terminate()

    def kill(self) -> None:
        """End it at once."""
        self._running.kill()

    def end(self, *, grace_seconds: float) -> int:
        """Its exit code, after the end of its input told it to leave; it is killed
        where it does not in time.
        """
        with suppress(OSError):
            self.stdin.close()
        try:
            self.wait(max(0.0, grace_seconds))
        except subprocess.TimeoutExpired:
            self.kill()
        code = self.wait()
        self._close()
        return code

    def said(self) -> str:
        """Everything in its log, or that its newest process said beside its talk."""
        if self.log is not None:
            return self.log.read_text(encoding="utf-8", errors="replace")
        if self._words is not None:
            self._words.seek(0)
            self._said = self._words.read().decode(errors="replace")
        return self._said

    def last_words(self) -> str:
        """The last line that it said."""
        lines = [line for line in self.said().splitlines() if line.strip()]
        return lines[-1] if lines else "it said nothing"

    @property
    def _running(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, "start it first"
        return self._process

    def _close(self) -> None:
        """Our ends of its pipes, and the file of its words, which are kept."""
        if self._process is not None:
            for pipe in (self._process.stdin, self._process.stdout):
                if pipe is not None:
                    with suppress(OSError):
                        pipe.close()
        if self._words is not None:
            self.said()
            self._words.close()
            self._words = None
