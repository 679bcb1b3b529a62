"""What comes to a run from outside but kills: a second owner, entries that nobody
wrote, a clock that jumps.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import redis

from benchmarks.rig.faked_clock import FakedClock
from rlhp.storage.rundir import RunDir

ROOT = Path(__file__).parents[2]
AHEAD_SECONDS = (90_000, 3600, 60, -60, -3600)
"""Where the clock of Redis goes; it does not come back to what it was."""
REFUSED = 2
"""The exit code of what a user can cure."""
LONGEST_SECONDS = 120.0
"""A second owner that was not refused by then has got in."""
NOBODY_ASKED = "nobody-asked"
"""The query that entries are about which nobody wrote."""
_ENTRY = {
    "ev": "answer",
    "id": NOBODY_ASKED,
    "by": "nobody",
    "page": "p",
    "tok": "1",
    "rev": "1",
    "ans": "first",
    "how": "ok",
    "meta": "{}",
    "first": "s0",
    "second": "s1",
    "body": "{}",
    "made": "1700000000000",
    "hidden": "{}",
}
_CHANGES: list[dict[str, str | bytes]] = [
    {"how": "perhaps"},
    {"rev": "one"},
    {"rev": "9" * 30},
    {"body": "[" * 90_000},
    {"meta": b"\xff\xfe\x00"},
    {"by": "two words"},
    {"made": "-1"},
    {"second": "s0"},
    {"ev": "applause"},
    {"hidden": '{"gold": 1}'},
    {"tok": ""},
]


class Meddler:
    """Events against one run; what became of each is counted."""

    def __init__(self, folder: Path, path: Path, sets: list[str]) -> None:
        """`folder` is ours to write to; `path` and `sets` are of the run."""
        self.counts: Counter[str] = Counter()
        self.clock = FakedClock(folder)
        self._folder = folder
        self._path = path
        self._sets = sets
        self._tries: list[tuple[Path, subprocess.Popen[bytes], float]] = []

    def poison(self, rng: random.Random) -> bool:
        """Put one entry into the log that makes no row; whether Redis was there to take
        it.
        """
        entry = {**_ENTRY, **rng.choice(_CHANGES)}
        try:
            with redis.Redis.from_url(self._url()) as client:
                client.xadd(f"rlhp:{{{self._path.name}}}:answers", entry)
        except redis.RedisError:
            return False
        self.counts["poison"] += 1
        return True

    def shift(self, rng: random.Random) -> bool:
        """Set the clock of Redis somewhere else."""
        self.clock.set(ahead=rng.choice(AHEAD_SECONDS))
        self.counts["clock"] += 1
        return True

    def second_owner(self, rng: random.Random) -> bool:
        """Start the run a second time: in its own directory, or at its own queue from
        another directory.
        """
        number = self.counts["second owners"]
        if rng.random() < 0.5:
            words = ["train", "--resume", str(self._path)]
        else:
            elsewhere = [
                *self._sets,
                f"runs_dir={self._folder / f'elsewhere-{number}'}",
                f"redis.url={self._url()}",
            ]
            config = str(ROOT / "configs" / "pendulum.yaml")
            words = ["train", config, *(word for each in elsewhere for word in ("--set", each))]
        output = self._folder / f"second-{number}.txt"
        with output.open("wb") as file:
            started = subprocess.Popen(
                [sys.executable, "-m", "rlhp", *words],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
            )
        self._tries.append((output, started, time.monotonic()))
        self.counts["second owners"] += 1
        return True

    def look(self) -> None:
        """See what became of second owners. SystemExit where one has got in."""
        for output, process, since in list(self._tries):
            code = process.poll()
            if code is None and time.monotonic() - since < LONGEST_SECONDS:
                continue
            text = output.read_text(errors="replace")
            if code is None:
                process.kill()
            if code != REFUSED or "Traceback" in text:
                raise SystemExit(
                    f"a second owner was not refused (exit code {code}): {text[-2000:]}"
                )
            self.counts["refused"] += 1
            self._tries.remove((output, process, since))

    def _url(self) -> str:
        return RunDir.open(self._path).redis_url() or ""
