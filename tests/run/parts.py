"""Run directories with a queue, as the driver leaves them before it starts a role."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rlhp.preferences.dataset import PreferenceDataset
from rlhp.queue.queue import QueryQueue
from rlhp.queue.records import body_of
from rlhp.storage.rundir import RunDir
from rlhp.types import Query, encode
from tests.preferences.dataset_samples import PLAIN, header, segment
from tests.small_runs import small


def run_in(folder: Path, url: str, **changes: Any) -> tuple[RunDir, QueryQueue]:
    """A run that was created and whose queue is open."""
    name = f"run-{time.monotonic_ns()}"
    config = small(runs_dir=str(folder), redis={"url": url}, **(changes | {"name": name}))
    rundir = RunDir.create(config, "small")
    queue = QueryQueue(url, run=name, lease_seconds=config.query.lease_seconds)
    queue.open(cap=100, budget=config.labels.budget, config_sha256="c0ffee")
    PreferenceDataset.create(rundir.preferences, header=header(PLAIN))
    return rundir, queue


def ask(rundir: RunDir, queue: QueryQueue, count: int) -> list[str]:
    """Queries over segments of their own, which are on disk; their ids."""
    dataset = PreferenceDataset.open(rundir.preferences)
    return [_ask(dataset, queue, number) for number in range(count)]


def _ask(dataset: PreferenceDataset, queue: QueryQueue, number: int) -> str:
    first, second = segment(2 * number), segment(2 * number + 1)
    dataset.add_segments([first, second])
    query = Query(id=f"q{number}", candidates=(first, second))
    payloads = {each.id: encode(each) for each in (first, second)}
    assert (
        queue.put(
            query=query.id, candidates=(first.id, second.id), body=body_of(query), payloads=payloads
        )
        == "ok"
    )
    return query.id


def answer(
    queue: QueryQueue,
    count: int,
    *,
    labeler: str = "ann",
    said: Sequence[str] = ("first", "second"),
) -> None:
    """Answer as many queries as are open, `count` at most."""
    for number in range(count):
        for lease in queue.lease(labeler=labeler, page=f"{labeler}-page"):
            word = said[number % len(said)]
            queue.answer(
                query=lease.query,
                labeler=labeler,
                page=f"{labeler}-page",
                token=lease.token,
                answer=word,
            )
