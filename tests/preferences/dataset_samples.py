"""Segments, events and headers for the tests of the preference dataset."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from rlhp.envs.spaces import ActionSpec, Leaf, ObsSpec, Spaces
from rlhp.preferences.dataset import PreferenceDataset
from rlhp.preferences.events import EventRow
from rlhp.types import Answer, Segment, query_id, segment_id

K = 5

PLAIN = Spaces(
    obs=ObsSpec(leaves=(Leaf(path="", shape=(3,), dtype="<f4"),)),
    action=ActionSpec(shape=(2,), dtype="<f4"),
)
NESTED = Spaces(
    obs=ObsSpec(
        leaves=(
            Leaf(path="camera", shape=(2, 4, 4), dtype="|u1"),
            Leaf(path="goal/x", shape=(), dtype="<f8"),
            Leaf(path="gear", shape=(), dtype="<i8", categories=3),
        )
    ),
    action=ActionSpec(shape=(), dtype="<i8", choices=(4,), start=(0,)),
)


def header(spaces: Spaces = PLAIN, **changes: Any) -> dict[str, Any]:
    """A header for `PreferenceDataset.create`."""
    known = {
        "run_ids": ["r1"],
        "env": {"id": "Sample-v0", "kwargs": {}},
        "spaces": spaces,
        "segment_length": K,
    }
    return known | changes


def segment(
    number: int, spaces: Spaces = PLAIN, *, length: int = K, run: str = "r1", **changes: Any
) -> Segment:
    """The segment of this number: always the same arrays, in every process."""
    rng = np.random.default_rng(number)
    obs = {
        leaf.path: rng.integers(0, leaf.categories or 200, (length + 1, *leaf.shape)).astype(
            leaf.dtype
        )
        for leaf in spaces.obs.leaves
    }
    known: dict[str, Any] = {
        "id": segment_id(run=run, env_runner=1, episode="e", start=number, length=length),
        "run": run,
        "env_runner": 1,
        "episode": "e",
        "start": number,
        "obs": obs,
        "actions": rng.integers(0, 4, (length, *spaces.action.shape)).astype(spaces.action.dtype),
        "env_reward": rng.normal(size=length).astype(np.float32),
        "predicted_reward": None,
        "reward_version": None,
        "policy_version": 2,
        "env_steps": 100 + number,
        "terminated": False,
        "truncated": True,
    }
    return Segment(**(known | changes))


def answer(
    first: Segment, second: Segment, said: Answer | None = Answer.FIRST, **changes: Any
) -> EventRow:
    """What labeler `ann` said about a pair."""
    ids = (first.id, second.id)
    known: dict[str, Any] = {
        "query_id": query_id(run=first.run, purpose="train", candidates=ids),
        "candidate_ids": (first.id, second.id),
        "event": "answer",
        "answer": said,
        "labeler": "ann",
        "labeler_kind": "human",
        "rev": 1,
    }
    return EventRow(**(known | changes))


def the_part(dataset: PreferenceDataset, table: str, index: int = 0) -> Path:
    """One part of a table."""
    return sorted((dataset.path / table).glob("part-*.parquet"))[index]


def same(one: Segment, other: Segment) -> bool:
    """Whether two segments agree in every field, dtype and bit."""
    for name in Segment.__dataclass_fields__:
        mine, theirs = getattr(one, name), getattr(other, name)
        pairs = [(mine[path], theirs[path]) for path in mine] if name == "obs" else [(mine, theirs)]
        for left, right in pairs:
            if isinstance(left, np.ndarray):
                if (
                    left.dtype != right.dtype
                    or left.shape != right.shape
                    or left.tobytes() != right.tobytes()
                ):
                    return False
            elif left != right:
                return False
    return set(one.obs) == set(other.obs)
