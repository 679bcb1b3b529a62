"""Small segments, queries and runs, and what the tests of this room do with them."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from rlhp.labeling.worker import LabelerWorker
from rlhp.queue.queue import Event, QueryQueue
from rlhp.queue.records import body_of
from rlhp.types import Answer, Query, Segment, TeacherContext, encode

CONTEXT = TeacherContext(mean_episode_return=10.0, lowest_warmup_return=-1.0, episode_length=20.0)


def segment(
    env_reward: ArrayLike | None,
    *,
    name: str,
    steps: int | None = None,
    obs: Sequence[Sequence[float]] | None = None,
) -> Segment:
    """A segment with these env rewards, one observed number per step (a ramp unless
    given).
    """
    rewards = None if env_reward is None else np.asarray(env_reward, np.float32)
    length = steps if rewards is None else len(rewards)
    assert length is not None
    return Segment(
        id=name,
        run="test",
        env_runner=0,
        episode="e",
        start=0,
        obs={
            "": np.arange(length + 1, dtype=np.float32)[:, None]
            if obs is None
            else np.asarray(obs, np.float32)
        },
        actions=np.zeros((length, 1), np.float32),
        env_reward=rewards,
        predicted_reward=None,
        reward_version=None,
        policy_version=0,
        env_steps=0,
        terminated=False,
        truncated=False,
    )


def query(
    first: ArrayLike, second: ArrayLike, *, name: str = "q", context: TeacherContext | None = None
) -> Query:
    """A query over two segments with these env rewards."""
    return Query(
        id=name,
        candidates=(
            segment(first, name=f"{name}-first"),
            segment(second, name=f"{name}-second"),
        ),
        context=context,
    )


def opened(url: str, *, lease_seconds: float = 60.0) -> QueryQueue:
    """The queue of a new, open run."""
    queue = QueryQueue(url, run=f"test-{secrets.token_hex(4)}", lease_seconds=lease_seconds)
    queue.open(cap=100, config_sha256="0" * 64)
    return queue


def ask(queue: QueryQueue, count: int, *, prefix: str = "q") -> list[Query]:
    """Puts `count` queries: in every third the first segment is better, in every third
    the second, else neither.
    """
    queries = [
        query([number % 3, 1], [1, 1], name=f"{prefix}{number}", context=CONTEXT)
        for number in range(count)
    ]
    for asked in queries:
        put(queue, asked)
    return queries


def put(
    queue: QueryQueue, asked: Query, *, damaged: bytes | None = None, without: str | None = None
) -> None:
    payloads = {segment.id: encode(segment) for segment in (asked.first, asked.second)}
    if damaged is not None:
        payloads[asked.first.id] = damaged
    payloads.pop(without or "", None)
    status = queue.put(
        query=asked.id,
        candidates=(asked.first.id, asked.second.id),
        body=body_of(asked),
        payloads=payloads,
    )
    assert status == "ok"


class Scripted:
    """Answers whatever the given function returns."""

    def __init__(self, rule: Callable[[Query], object]) -> None:
        self.rule = rule
        self.asked: list[str] = []

    def answer(self, query: Query) -> Answer | None:
        self.asked.append(query.id)
        return self.rule(query)  # type: ignore[return-value]  # some rules are wrong on purpose


def worker(
    queue: QueryQueue, teacher: Any, *, name: str = "ann", latency_seconds: float = 0.0
) -> LabelerWorker:
    """A worker that looks for queries often."""
    return LabelerWorker(
        queue, teacher, name=name, latency_seconds=latency_seconds, poll_seconds=0.02
    )


def log(queue: QueryQueue) -> list[Event]:
    """What the answer log holds."""
    return list(queue.events(consumer="test"))


def until(holds: Callable[[], bool], *, seconds: float = 30.0) -> None:
    """Waits for what another thread or process brings about."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)
