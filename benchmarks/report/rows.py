"""Measured rows on disk: `benchmarks/results/<name>.jsonl`, one finished measurement
per line.

A table is drawn from what has run; a second call runs only what is missing; a bench
that is stopped loses the row it was at and nothing else.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rlhp.storage import provenance

RESULTS = Path(__file__).parents[1] / "results"


def machine() -> str:
    """Processor, cores and memory of this machine, in words."""
    model = platform.processor() or platform.machine()
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            model = line.split(":", 1)[1].strip()
            break
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{model}, {len(os.sched_getaffinity(0))} cores, {memory:.0f} GiB, no GPU used"


def read(name: str) -> list[dict[str, Any]]:
    """All rows of one bench, oldest first."""
    path = RESULTS / f"{name}.jsonl"
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]


def append(name: str, row: Mapping[str, Any]) -> None:
    """Add one finished measurement, with the commit and the machine it was made on."""
    RESULTS.mkdir(exist_ok=True)
    commit, diff = provenance.commit()
    whole = {
        **row,
        "commit": f"{(commit or 'unknown')[:10]}{'+' if diff else ''}",
        "machine": machine(),
    }
    with (RESULTS / f"{name}.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(whole) + "\n")
        file.flush()
        os.fsync(file.fileno())


def done(name: str, key: Mapping[str, Any]) -> bool:
    """Whether a row with these values is there."""
    return any(all(row.get(field) == value for field, value in key.items()) for row in read(name))
