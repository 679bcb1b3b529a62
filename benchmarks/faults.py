"""Kill -9 to one process of each kind, and how long until it is back and the run does
again what it is there for.

    python -m benchmarks.faults                  # some minutes; rows to results/faults.jsonl
    python -m benchmarks.faults --kind learner   # one of them, printed

The run is that of `benchmarks.chaos`: ten kinds of process on one machine. `back` is a
new process of that kind; `works` is when env steps, answers and reward versions have
all grown since the kill, so it holds one publication (about ten seconds apart) even
where nothing was interrupted; `steps` is when env steps had. The row without a kill
says how long that takes in peace. `load` is the machine's, which is why rows name it.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import tempfile
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.chaos import KINDS, Run
from benchmarks.report import rows
from rlhp.storage.metrics import read_metrics

NAME = "faults"
PATIENCE_SECONDS = 300.0
GROWING = ("env_steps", "labels/answered", "reward/version")
MORE = [
    "labels.budget=2000", "labels.initial_share=0.01",
    "learner.train_batch_size=256", "reward.publish_every_steps=1000", "labels.schedule=constant",
]  # fmt: skip
"""A row every second or so, and always something to ask."""


class Watched:
    """A run and its newest numbers."""

    def __init__(self, run: Run) -> None:
        self._run = run

    def until(self, holds: Callable[[], bool]) -> float:
        """Seconds until something holds."""
        began = time.monotonic()
        while not holds():
            if not self._run.going():
                raise SystemExit("the run ended too early")
            if time.monotonic() - began > PATIENCE_SECONDS:
                raise SystemExit("waited in vain")
            time.sleep(0.05)
        return time.monotonic() - began

    def numbers(self) -> dict[str, float]:
        """The newest of each."""
        found = read_metrics(self._run.path / "metrics.jsonl")
        return {
            name: next((row[name] for row in reversed(found) if row.get(name) is not None), 0)
            for name in GROWING
        }

    def hit(self, kind: str | None) -> dict[str, Any]:
        """Kill one of a kind (None: nobody), and wait for the three moments."""
        before, there = self.numbers(), self._run.pids(kind) if kind else []
        if kind:
            self.until(lambda: bool(self._run.pids(kind)))
            there = self._run.pids(kind)
            os.kill(there[0], signal.SIGKILL)
        began = time.monotonic()
        row: dict[str, Any] = {"kind": kind or "nobody"}
        if kind:
            self.until(lambda: len(set(self._run.pids(kind)) - {there[0]}) >= len(there))
            row["back_seconds"] = round(time.monotonic() - began, 1)
        if kind == "page":
            self.until(self._page_answers)
            row["page_answers_seconds"] = round(time.monotonic() - began, 1)
        self.until(lambda: self.numbers()["env_steps"] != before["env_steps"])
        row["steps_seconds"] = round(time.monotonic() - began, 1)
        self.until(lambda: all(now > before[name] for name, now in self.numbers().items()))
        row["works_seconds"] = round(time.monotonic() - began, 1)
        return row

    def _page_answers(self) -> bool:
        try:
            with urllib.request.urlopen(
                (self._run.path / "page.url").read_text().strip(), timeout=5
            ) as reply:
                return bool(reply.status == 200)
        except OSError:
            return False


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kind", choices=list(KINDS), action="append")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="rlhp-faults-") as scratch:
        run = Run(Path(scratch), seed=0, steps=100_000, more=MORE)
        watched = Watched(run)
        try:
            watched.until(lambda: watched.numbers()["reward/version"] >= 2)
            watched.until(lambda: any((run.path / "checkpoints").glob("step-*")))
            for kind in [None, *(arguments.kind or KINDS)]:
                row = {**watched.hit(kind), "load": round(os.getloadavg()[0], 1)}
                print(json.dumps(row), flush=True)
                if not arguments.kind:
                    rows.append(NAME, row)
        finally:
            run.kill()


if __name__ == "__main__":
    main()
