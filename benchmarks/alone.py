"""One measurement in a process of its own, and what that process and all it started cost.

`RLHP_BENCH_LOCK` may name a command (with arguments) that runs another one while nothing else does, such as
`flock /tmp/measuring.lock`; every measurement then goes through it.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

LOCK = "RLHP_BENCH_LOCK"
ROOT = Path(__file__).parent.parent


def run(module: str, *arguments: str) -> None:
    """`python -m MODULE ARGUMENTS` with this Python and this checkout; SystemExit with its status where it fails."""
    command = [*shlex.split(os.environ.get(LOCK, "")), sys.executable, "-m", module, *arguments]
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    threads = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}  # read when torch is imported; Ray sets them for actors
    ended = subprocess.run(command, check=False, cwd=ROOT, env={**os.environ, **threads, "PYTHONPATH": path})
    if ended.returncode:
        raise SystemExit(ended.returncode)


def cpu_seconds() -> float:
    """User and system seconds so far of this process and every descendant, those that have ended included."""
    parents: dict[int, int] = {}
    ticks: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            # After the name in brackets, which may hold blanks: state, parent, ..., four times from the twelfth on.
            fields = (entry / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has just ended: its parent has its times
        parents[int(entry.name)] = int(fields[1])
        ticks[int(entry.name)] = sum(map(int, fields[11:15]))
    ours = {os.getpid()}
    while grown := {pid for pid, parent in parents.items() if parent in ours} - ours:
        ours |= grown
    return sum(ticks.get(pid, 0) for pid in ours) / os.sysconf("SC_CLK_TCK")
