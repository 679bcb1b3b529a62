"""Small segments, queries and runs for the tests of this room."""

from __future__ import annotations

import secrets
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from rlhp.query.queue import QueryQueue
from rlhp.types import Query, Segment, TeacherContext


def segment(
    env_reward: ArrayLike | None, *, name: str, steps: int | None = None, obs: Sequence[Sequence[float]] | None = None
) -> Segment:
    """A segment with these env rewards, one observed number per step (a ramp unless given)."""
    rewards = None if env_reward is None else np.asarray(env_reward, np.float32)
    length = steps if rewards is None else len(rewards)
    assert length is not None
    return Segment(
        id=name,
        run="test",
        env_runner=0,
        episode="e",
        start=0,
        obs={"": np.arange(length + 1, dtype=np.float32)[:, None] if obs is None else np.asarray(obs, np.float32)},
        actions=np.zeros((length, 1), np.float32),
        env_reward=rewards,
        predicted_reward=None,
        reward_version=None,
        policy_version=0,
        env_steps=0,
        terminated=False,
        truncated=False,
    )


def query(first: ArrayLike, second: ArrayLike, *, name: str = "q", context: TeacherContext | None = None) -> Query:
    """A query over two segments with these env rewards."""
    return Query(
        id=name,
        first=segment(first, name=f"{name}-first"),
        second=segment(second, name=f"{name}-second"),
        context=context,
    )


def opened(url: str, *, lease_seconds: float = 60.0) -> QueryQueue:
    """The queue of a new, open run."""
    queue = QueryQueue(url, run=f"test-{secrets.token_hex(4)}", lease_seconds=lease_seconds)
    queue.open(cap=100, config_sha256="0" * 64)
    return queue
