"""`rlhp train --keep`: a small process beside the run that resumes it whenever the run's own process is killed.

The driver holds policy and optimiser, so it is the largest process of a run and the first that a machine short of
memory kills. Everything else of a run is restarted by the driver or by Ray; this restarts the driver. What ends with
an exit code has ended for a reason that it said, and stays ended.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any

from rlhp.metrics import read_metrics
from rlhp.rundir import RunDir

PAUSE_SECONDS = 1.0
"""So that what the dead left behind is gone: they all hear of it within that time."""


def keep(rundir: RunDir, *, most: int, say: Callable[[str], None], options: Sequence[str] = ()) -> int:
    """Train to the end in a process of its own; its exit code. 1 after `most` deaths in a row without a new env step.

    Ctrl-C and SIGTERM are the run's, and end both. Killed itself, this leaves the run going on, kept by nobody.
    """
    command = [sys.executable, "-m", "rlhp", "train", "--resume", str(rundir.path), *options]
    keeper = _Keeper()
    in_a_row, reached = 0, -1
    while True:
        code = keeper.run(command)
        if code >= 0 or keeper.stopping.is_set():
            return code if code >= 0 else 128 - code
        steps = max((row.get("env_steps") or 0 for row in read_metrics(rundir.metrics_file)), default=0)
        in_a_row, reached = (in_a_row + 1, reached) if steps <= reached else (1, steps)
        killed = f"the run's process was killed ({signal.Signals(-code).name}) after {steps} env steps"
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
        before = {number: signal.signal(number, self._hand_on) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            # A session of its own: a signal to our whole group would reach it twice, and Ray's handler takes one.
            self._child = subprocess.Popen(command, start_new_session=True)
            return self._child.wait()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _hand_on(self, number: int, frame: Any) -> None:
        self.stopping.set()
        if self._child is not None:
            self._child.send_signal(number)
