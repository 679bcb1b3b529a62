"""A reward trainer with real edges: a dataset and a store on disk, and a run at a real
Redis that answers come from.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rlhp.config.schema import RunConfig
from rlhp.preferences.dataset import PreferenceDataset
from rlhp.queue.queue import Event, QueryQueue
from rlhp.queue.records import body_of
from rlhp.reward.trainer import RewardTrainer
from rlhp.reward.versions import RewardStore, RewardWeights
from rlhp.types import Answer, Array, Query, encode, query_id
from tests.preferences.dataset_samples import PLAIN, header, segment
from tests.reward.versions import fragment
from tests.small_runs import small

LABELER, PAGE = "ann", "ann-page"


def config(**changes: Any) -> RunConfig:
    """Twenty labels, four of them before version 1; a version every 100 env steps; half
    a label use per step.
    """
    labels = {"budget": 20, "initial_share": 0.2} | changes.pop("labels", {})
    reward = {
        "publish_every_steps": 100,
        "label_uses_per_step": 0.5,
        "batch_size": 10,
    } | changes.pop("reward", {})
    return small(labels=labels, reward=reward, **changes)


def transitions(count: int) -> tuple[Array, Array]:
    """What a query actor would know: recent observations [30, O] and actions [30, A]."""
    obs, actions = fragment(rows=10)
    return obs.reshape(-1, 3)[:count], actions.reshape(-1, 2)[:count]


class Run:
    """One run on disk and at Redis. A trainer built again is one that was restarted; it
    has a queue of its own.
    """

    def __init__(self, url: str, folder: Path) -> None:
        self.url, self.folder = url, folder
        self.name = f"test-{secrets.token_hex(4)}"
        self.queue = QueryQueue(url, run=self.name)
        self.queue.open(cap=1000, config_sha256="c0ffee")
        self.published: list[int] = []
        PreferenceDataset.create(folder / "preferences", header=header(PLAIN))
        self._asked = 0

    def trainer(self, settings: RunConfig | None = None, **edges: Any) -> RewardTrainer:
        """The trainer as a process of its own would build it."""
        dataset = PreferenceDataset.open(self.folder / "preferences")
        known: dict[str, Any] = {
            "dataset": dataset,
            "answers": QueryQueue(self.url, run=self.name),
            "store": RewardStore(self.folder / "reward"),
            "recent": transitions,
            "publish": lambda weights: self.published.append(weights.version),
            "reused": dataset.counts()["reused"],
        }
        return RewardTrainer(settings or config(), PLAIN, **(known | edges))

    def answer(self, *answers: Answer | str) -> list[str]:
        """Ask about new segments and have every query answered; the ids of the queries."""
        return [self._answer_one(answer) for answer in answers]

    def _answer_one(self, answer: Answer | str) -> str:
        first, second = segment(2 * self._asked), segment(2 * self._asked + 1)
        self._asked += 1
        asked = query_id(run=self.name, purpose="train", candidates=(first.id, second.id))
        self.dataset().add_segments([first, second])
        query = Query(id=asked, candidates=(first, second))
        payloads = {each.id: encode(each) for each in (first, second)}
        status = self.queue.put(
            query=asked, candidates=(first.id, second.id), body=body_of(query), payloads=payloads
        )
        assert status == "ok"
        (lease,) = self.queue.lease(labeler=LABELER, page=PAGE)
        self.queue.answer(query=asked, labeler=LABELER, page=PAGE, token=lease.token, answer=answer)
        return asked

    def dataset(self) -> PreferenceDataset:
        """What is on disk."""
        return PreferenceDataset.open(self.folder / "preferences")

    def newest(self) -> RewardWeights:
        """The newest version on disk."""
        newest = RewardStore(self.folder / "reward").newest()
        assert newest is not None
        return newest


class DiesBeforeAck:
    """The answer stream of a trainer that is killed once its answers are on disk."""

    def __init__(self, queue: QueryQueue) -> None:
        self._queue = queue

    def events(
        self, *, consumer: str, count: int = 256, block_ms: int | None = None
    ) -> list[Event]:
        return self._queue.events(consumer=consumer, count=count, block_ms=block_ms)

    def ack(self, stream_ids: Sequence[str]) -> int:
        raise SystemExit("killed")


def known_rows(run: Run) -> list[tuple[str, str | None, int, str]]:
    """The events on disk, by what they are unique by."""
    return [row.key for row in run.dataset().events()]


def as_json(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Metrics as `metrics.jsonl` would have them."""
    read: dict[str, Any] = json.loads(json.dumps(dict(metrics), allow_nan=False))
    return read
