"""Rows of metrics, made of recent episodes and of what the roles say of themselves; their
names are those of `rlhp.storage.metrics.METRICS`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from rlhp.queue.records import QueueStats
from rlhp.system.roles import (
    CLIP_RENDERER,
    QUERY_ACTOR,
    REWARD_TRAINER,
    Episode,
    QueryActorStatus,
    RewardModelStatus,
    RewardTrainerStatus,
    RoleStatus,
    without_number,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class RunStatus:
    """What everything beside the learner said last; None for one that said nothing yet,
    or is not there.
    """

    query_actor: QueryActorStatus | None = None
    reward_trainer: RewardTrainerStatus | None = None
    clip_renderer: RoleStatus | None = None
    reward_models: Mapping[str, RewardModelStatus] = field(default_factory=dict)
    """By their names, `reward_model_0` and so on."""
    queue: QueueStats | None = None
    queue_problem: str | None = None
    """Why the queue could not be asked the last time."""
    labels_per_minute: float | None = None

    @property
    def roles(self) -> dict[str, RoleStatus]:
        """Everybody who said something, by name."""
        named: dict[str, RoleStatus | None] = {
            QUERY_ACTOR: self.query_actor,
            REWARD_TRAINER: self.reward_trainer,
            CLIP_RENDERER: self.clip_renderer,
            **self.reward_models,
        }
        return {name: status for name, status in named.items() if status is not None}

    @property
    def metrics(self) -> dict[str, float | None]:
        """The metrics of all of them, for a row."""
        row: dict[str, float | None] = {}
        memory: dict[str, float] = {}
        for name, status in self.roles.items():
            row |= status.metrics
            if status.memory_mb is not None:  # of several replicas, the one that takes most
                metric = f"memory/{without_number(name)}_mb"
                memory[metric] = max(status.memory_mb, memory.get(metric, 0.0))
        if self.queue is not None:
            row |= queue_metrics(self.queue)
        if self.labels_per_minute is not None:
            row["labels/per_minute"] = self.labels_per_minute
        return row | memory


def status_row(status: RunStatus, *, env_steps: int) -> dict[str, Any]:
    """What the other roles say, with the age of the reward version in env steps."""
    row: dict[str, Any] = status.metrics
    trainer = status.reward_trainer
    if trainer is not None and trainer.version:
        # A run that goes on from a checkpoint may be behind its reward: then that is
        # not stale at all.
        row["reward/staleness_steps"] = max(0, env_steps - trainer.published_steps)
    return row


def queue_metrics(stats: QueueStats) -> dict[str, float | None]:
    """Depth and age of the queue."""
    return {
        "labels/asked": stats.asked,
        "queue/pending": stats.pending + stats.reserved,
        "queue/leased": stats.leased,
        "queue/oldest_age_seconds": stats.oldest_age_seconds,
        "queue/set_aside": stats.set_aside,
    }


def returns_row(episodes: Sequence[Episode]) -> dict[str, Any]:
    """Means over recent episodes, and how well true and predicted returns agree."""
    if not episodes:
        return {}
    true, predicted, lengths = (np.array(column) for column in zip(*episodes, strict=True))
    row: dict[str, Any] = {
        "env_runners/episode_return_mean": float(true.mean()),
        "env_runners/episode_len_mean": float(lengths.mean()),
    }
    # not those that began in the warm-up, and none of the control arm
    known = np.isfinite(predicted)
    if known.any():
        true, predicted = true[known], predicted[known]
        row["predicted_return_mean"] = float(predicted.mean())
        if len(true) > 2:
            # returns that are almost all the same
            with np.errstate(invalid="ignore", divide="ignore"):
                correlation = float(np.corrcoef(true, predicted)[0, 1])
            if np.isfinite(correlation):
                row["return_correlation"] = correlation
    return row


def number(value: Any) -> float | None:
    """A finite float, or None."""
    if value is None:
        return None
    plain = float(value)
    return plain if np.isfinite(plain) else None
