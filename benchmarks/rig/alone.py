"""One measurement in a process of its own, and what that process and all it started
cost.

`RLHP_BENCH_LOCK` may name a command (with arguments) that runs another one while
nothing else does, such as `flock /tmp/measuring.lock`; every measurement then goes
through it.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

LOCK = "RLHP_BENCH_LOCK"
ROOT = Path(__file__).parents[2]


def run(module: str, *arguments: str) -> None:
    """`python -m MODULE ARGUMENTS` with this Python and this checkout; SystemExit with
    its status where it fails.
    """
    command = [*shlex.split(os.environ.get(LOCK, "")), sys.executable, "-m", module, *arguments]
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    # read when torch is imported; Ray sets them for actors
    threads = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    ended = subprocess.run(
        command, check=False, cwd=ROOT, env={**os.environ, **threads, "PYTHONPATH": path}
    )
    if ended.returncode:
        raise SystemExit(ended.returncode)


def cpu_seconds() -> float:
    """User and system seconds so far of this process and every descendant, those that
    have ended included.
    """
    return sum(process.seconds for process in _family())


def cpu_seconds_of(pid: int) -> float:
    """User and system seconds so far of one process and of its children that have ended;
    0 where it is gone.
    """
    process = _process(Path("/proc") / str(pid))
    return process.seconds if process is not None else 0.0


def children_called(name: str) -> list[int]:
    """Process ids of the descendants that run a program of this name (its first 15
    letters).
    """
    return [process.pid for process in _family() if process.name == name[:15]]


@dataclass(frozen=True, slots=True)
class _Process:
    pid: int
    name: str
    parent: int
    seconds: float


def _process(entry: Path) -> _Process | None:
    try:
        # After the name in brackets, which may hold blanks: state, parent, ..., four
        # times from the twelfth on.
        front, _, back = (entry / "stat").read_text(encoding="utf-8").rpartition(")")
    except (FileNotFoundError, ProcessLookupError):
        return None  # it has just ended: its parent has its times
    fields = back.split()
    seconds = sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
    return _Process(int(entry.name), front.partition("(")[2], int(fields[1]), seconds)


def _family() -> list[_Process]:
    """This process and every descendant."""
    found = [_process(entry) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    running = [process for process in found if process is not None]
    ours = {os.getpid()}
    while grown := {process.pid for process in running if process.parent in ours} - ours:
        ours |= grown
    return [process for process in running if process.pid in ours]
