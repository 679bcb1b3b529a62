"""A run with 100,000 answers: how long does a resume read them, and what do reports
cost then?

    python -m benchmarks.scale                    # some minutes, most of them to make the answers
    python -m benchmarks.scale --answers 10000 --print

Dataset and queue are real, on disk and in Redis. Answers are stored as a reward trainer
stores them, some at a time; segments are short, since nothing of what is measured looks
at their steps.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.report import rows, tables
from rlhp.envs.spaces import ActionSpec, Leaf, ObsSpec, Spaces
from rlhp.preferences.dataset import PreferenceDataset, verify
from rlhp.preferences.events import EventRow
from rlhp.preferences.quality import Reports
from rlhp.queue.embedded import EmbeddedRedis
from rlhp.queue.lookup import recollection
from rlhp.queue.queue import QueryQueue
from rlhp.types import Answer, Segment

NAME = "scale"
A_DRAIN = 25
SEGMENTS = 2000
LABELERS = 20
STEPS = 5
BEGAN = datetime(2026, 1, 1, tzinfo=UTC)
SPACES = Spaces(
    obs=ObsSpec(leaves=(Leaf(path="", shape=(3,), dtype="<f4"),)),
    action=ActionSpec(shape=(2,), dtype="<f4"),
)
AIMS = {"resume_seconds": 10.0, "report_cpu_ms": 50.0}
WORDS = {
    "open_seconds": "open the dataset, all events read",
    "recall_seconds": "tell a Redis that has lost them what is answered",
    "resume_seconds": "both: what a resume waits for",
    "report_cpu_ms": "report on every labeler after one more drain, ms of CPU",
    "drain_ms": "store one more drain of answers, ms",
    "verify_seconds": "check every part (`rlhp doctor RUN`)",
}


def segments(count: int) -> Iterator[Segment]:
    """Segments of `STEPS` empty steps."""
    for number in range(count):
        yield Segment(
            id=f"s{number}",
            run="scale",
            env_runner=1,
            episode="e",
            start=number,
            obs={"": np.zeros((STEPS + 1, 3), np.float32)},
            actions=np.zeros((STEPS, 2), np.float32),
            env_reward=np.zeros(STEPS, np.float32),
            predicted_reward=None,
            reward_version=None,
            policy_version=1,
            env_steps=number,
            terminated=False,
            truncated=False,
        )


def answers(count: int, *, start: int = 0) -> list[EventRow]:
    """One answer per query, by labelers in turn."""
    dice = random.Random(start)
    return [
        EventRow(
            query_id=f"q{number}",
            candidate_ids=(f"s{number % SEGMENTS}", f"s{(7 * number + 1) % SEGMENTS}"),
            event="answer",
            answer=dice.choice((Answer.FIRST, Answer.SECOND)),
            labeler=f"l{number % LABELERS}",
            rev=1,
            made_at=BEGAN + timedelta(seconds=number),
            answered_at=BEGAN + timedelta(seconds=number + 3),
            stream_id=f"{number + 1}-0",
        )
        for number in range(start, start + count)
    ]


def timed(call: Callable[[], Any], *, clock: Callable[[], float] = time.perf_counter) -> float:
    """Seconds of one call."""
    began = clock()
    call()
    return clock() - began


def drained(dataset: PreferenceDataset, found: Sequence[EventRow]) -> list[float]:
    """Store them as they come; seconds of each drain."""
    drains = [found[start : start + A_DRAIN] for start in range(0, len(found), A_DRAIN)]
    return [timed(partial(dataset.add_events, drain)) for drain in drains]


def measure(count: int, *, folder: Path) -> dict[str, Any]:
    """The row."""
    header = {
        "run_ids": ["scale"],
        "env": {"id": "none", "kwargs": {}},
        "spaces": SPACES,
        "segment_length": STEPS,
    }
    made = PreferenceDataset.create(folder / "preferences", header=header)
    made.add_segments(list(segments(SEGMENTS)))
    began = time.perf_counter()
    drains = drained(made, answers(count))
    stored = time.perf_counter() - began
    parts = len(list((folder / "preferences" / "events").glob("*.parquet")))
    opened: list[PreferenceDataset] = []
    open_seconds = timed(lambda: opened.append(PreferenceDataset.open(folder / "preferences")))
    (dataset,) = opened
    with EmbeddedRedis(folder / "redis") as server, QueryQueue(server.url, run="scale") as queue:
        queue.open(cap=200, config_sha256="scale", budget=2 * count)
        recall_seconds = timed(lambda: queue.recall(recollection(dataset.events())))
    report = Reports()
    report(dataset.events())
    dataset.add_events(answers(A_DRAIN, start=count))
    events = dataset.events()
    return {
        "answers": count, "parts": parts, "drains": len(drains), "store_seconds": round(stored, 1),
        "drain_ms": round(1e3 * float(np.median(drains[-100:])), 1),
        "open_seconds": round(open_seconds, 2), "recall_seconds": round(recall_seconds, 2),
        "resume_seconds": round(open_seconds + recall_seconds, 2),
        "report_cpu_ms": round(1e3 * timed(lambda: report(events), clock=time.process_time), 2),
        "verify_seconds": round(timed(lambda: verify(folder / "preferences")), 2),
    }  # fmt: skip


def section() -> str:
    """The newest row in words, for the report."""
    row = rows.read(NAME)[-1]
    lines = [
        "## A hundred thousand answers",
        "",
        "    python -m benchmarks.scale",
        "",
        f"{row['answers']:,} answers of {LABELERS} labelers, stored {A_DRAIN} at a time in "
        f"{row['drains']:,} drains, lie in {row['parts']} parts. What a run with so many of them "
        "waits for:",
        "",
        "| what | measured | aim |",
        "|---|---|---|",
    ]
    for name, words in WORDS.items():
        aim = AIMS.get(name)
        verdict = "" if aim is None else f"under {aim:g}, {'met' if row[name] < aim else 'missed'}"
        lines.append(
            f"| {words} | {row[name]:g}{' s' if name.endswith('seconds') else ''} | {verdict} |"
        )
    return "\n".join([*lines, "", tables.made([row])])


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--answers", type=int, default=100_000)
    parser.add_argument("--print", action="store_true", help="keep no row")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="rlhp-scale-") as scratch:
        row = measure(arguments.answers, folder=Path(scratch))
    print(json.dumps(row))
    if not arguments.print:
        rows.append(NAME, row)


if __name__ == "__main__":
    main()
