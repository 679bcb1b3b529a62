"""A query actor with real edges: a run at a real Redis, a dataset on disk, a reward
model that was never fitted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rlhp.config.schema import RunConfig
from rlhp.preferences.dataset import PreferenceDataset
from rlhp.query.actor import QueryActor, Queue
from rlhp.queue.queue import Lease, QueryQueue
from rlhp.types import Segment
from tests.preferences.dataset_samples import PLAIN, K, header, segment
from tests.small_runs import priced, small

STEPS = 1000
LABELER, PAGE = "ann", "ann-page"


def config(**changes: Any) -> RunConfig:
    """Fifty labels, ten of them before learning, over a thousand env steps."""
    labels = {"budget": 50, "initial_share": 0.2, "teacher": {}} | changes.pop("labels", {})
    query = {
        "segment_length": K,
        "pool": 40,
        "max_open": 1000,
        "selection": "random",
        "random_share": 0.0,
        "newest": 40,
    } | changes.pop("query", {})
    return small(labels=labels, query=query, learner={"total_env_steps": STEPS}, **changes)


def dataset_in(folder: Path) -> PreferenceDataset:
    """The dataset in this folder, made where there is none yet."""
    path = folder / "preferences"
    if (path / "dataset.json").exists():
        return PreferenceDataset.open(path)
    return PreferenceDataset.create(path, header=header(PLAIN))


def actor_in(folder: Path, queue: Queue, settings: RunConfig) -> QueryActor:
    """A query actor as a process of its own would build it."""
    reward = priced(settings, PLAIN)
    return QueryActor(settings, PLAIN, queue=queue, store=dataset_in(folder), reward=reward)


def segments(count: int, *, start: int = 0, **changes: Any) -> list[Segment]:
    """Segments of these numbers."""
    return [segment(number, **changes) for number in range(start, start + count)]


def at(actor: QueryActor, env_steps: int, *, warmup_steps: int = 0, **more: Any) -> None:
    """The run is at this env step, and learns."""
    actor.progress(env_steps=env_steps, warmup_steps=warmup_steps, learning=True, **more)


def asked_by(actor: QueryActor) -> int:
    """Queries admitted until the actor has nothing left to ask.

    A restarted actor draws the pairs again that it drew before, which the queue calls
    the same: hence the patience.
    """
    total, idle = 0, 0
    while idle < 30:
        count = actor.step()
        total, idle = total + count, 0 if count else idle + 1
    return total


def leases(queue: QueryQueue) -> list[Lease]:
    """All open queries in turn, each answered at once."""
    found: list[Lease] = []
    while got := queue.lease(labeler=LABELER, page=PAGE, n=2):
        for lease in got:
            status = queue.answer(
                query=lease.query, labeler=LABELER, page=PAGE, token=lease.token, answer="first"
            )
            assert status == "ok"
        found += got
    return found


class Checked:
    """The queue, which looks at the dataset on disk before it takes a query."""

    def __init__(self, queue: QueryQueue, folder: Path) -> None:
        self._queue, self._folder = queue, folder
        self.checked = 0

    def put(self, *, candidates: Sequence[str], payloads: Mapping[str, bytes], **more: Any) -> str:
        stored = dataset_in(self._folder)
        assert all(each in stored for each in candidates)
        self.checked += 1
        return self._queue.put(candidates=candidates, payloads=payloads, **more)

    def stats(self) -> Any:
        return self._queue.stats()
