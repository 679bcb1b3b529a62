"""Teacher processes that a run starts itself: `rlhp label RUN`, like any labeler from elsewhere.

One that dies is started again; its lease runs out and the query is served to somebody else. One that keeps
dying at once ends the run, with its own last words. None outlives the run, however that ends: each holds one
end of a pipe, which the kernel closes.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import time
from pathlib import Path

from rlhp.errors import RoleFailed
from rlhp.rundir import RunDir

log = logging.getLogger(__name__)

TOO_SOON_SECONDS = 10.0
MOST_EARLY_DEATHS = 5
GRACE_SECONDS = 5.0
NICENESS = 10
MOST_SAID = 20_000
"""Characters of a labeler's log that are repeated in the run's."""


class Labelers:
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
            # Judged by when it was last seen alive: between two calls may lie more than a short life.
            self._early_deaths += index not in self._settled
            self._settled.discard(index)
            if self._early_deaths >= MOST_EARLY_DEATHS or code == 1:
                log.error("labeler %d ended, exit code %d; the end of %s:\n%s", index, code, *self._said(index))
                raise RoleFailed(f"labeler {index} cannot work (exit code {code}): {self._last_words(index)}")
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
        # Answers are wanted soon, env steps sooner: on a small machine a teacher takes what they leave.
        # Never back towards 0, which only an administrator may do.
        niceness = max(NICENESS, os.getpriority(os.PRIO_PROCESS, 0))
        os.setpriority(os.PRIO_PROCESS, self._processes[index].pid, niceness)
        self._started[index] = time.monotonic()

    def _said(self, index: int) -> tuple[Path, str]:
        """Its log and the end of that, a traceback for instance."""
        return self._log(index), self._log(index).read_text(errors="replace")[-MOST_SAID:]

    def _last_words(self, index: int) -> str:
        lines = [line for line in self._log(index).read_text(errors="replace").splitlines() if line.strip()]
        return lines[-1] if lines else "it said nothing"


def _close(process: subprocess.Popen[bytes]) -> None:
    if process.stdin is not None:
        process.stdin.close()
