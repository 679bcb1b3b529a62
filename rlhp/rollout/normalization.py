"""Running mean and standard deviation of what the policy sees (and of the control arm's
reward).

A connector only by its interface: it is never called in a pipeline, since the columnar
runner normalizes whole rows itself. As a connector its state is merged over env runners
after each training step, sent back to them, and saved with every checkpoint, all by
RLlib.

The constants are frozen between merges, so all runners agree within a training step.
"""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from ray.rllib.connectors.connector_v2 import ConnectorV2

from rlhp.types import Array

FIRST_REWARD = "reward at first"
CLIP = 10.0
"""Normalized observations are clipped to this many standard deviations."""


class Moments:
    """Count, mean and sum of squared deviations of rows [B, F]; merged exactly (Chan et
    al. 1983).
    """

    def __init__(self, size: int) -> None:
        self.count = 0.0
        self.mean = np.zeros(size)
        self.squares = np.zeros(size)

    def add(self, rows: Array) -> None:
        """Count these rows in."""
        rows = rows.astype(np.float64)
        mean = rows.mean(0)
        self._merge(len(rows), mean, ((rows - mean) ** 2).sum(0))

    def merge(self, other: Moments) -> None:
        """Count another's rows in."""
        self._merge(other.count, other.mean, other.squares)

    def std(self) -> Array:
        """Standard deviation [F]; 1 where nothing varied yet."""
        variance = self.squares / max(self.count, 1.0)
        return np.where(variance > 1e-12, np.sqrt(variance), 1.0)

    def _merge(self, count: float, mean: Array, squares: Array) -> None:
        if count == 0:
            return
        total = self.count + count
        delta = mean - self.mean
        self.mean = self.mean + delta * (count / total)
        self.squares = self.squares + squares + delta**2 * (self.count * count / total)
        self.count = total

    def to_state(self) -> dict[str, Any]:
        """Plain data."""
        return {"count": self.count, "mean": self.mean, "squares": self.squares}

    @staticmethod
    def from_state(state: dict[str, Any]) -> Moments:
        """The inverse of `to_state`."""
        moments = Moments(len(state["mean"]))
        moments.count, moments.mean, moments.squares = (
            state["count"],
            state["mean"],
            state["squares"],
        )
        return moments


class RunningMoments(ConnectorV2):  # type: ignore[misc]  # RLlib is untyped
    """`known` normalizes; `fresh` collects until the next merge. Obs have F = O, the
    reward F = 1.
    """

    def __init__(
        self,
        input_observation_space: gym.Space[Any] | None = None,
        input_action_space: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(input_observation_space, input_action_space, **kwargs)
        self.known: dict[str, Moments] = {}
        self.fresh: dict[str, Moments] = {}
        # mean and std of `known["obs"]`, which change with it alone
        self._scale: tuple[Array, Array] | None = None

    def __call__(self, *, batch: Any, **kwargs: Any) -> Any:
        """Nothing: the runner normalizes."""
        return batch

    def observe(self, name: str, rows: Array) -> None:
        """Count rows [B, F] of `obs` or `reward` in, from the next merge on."""
        if len(rows):
            self.fresh.setdefault(name, Moments(rows.shape[1])).add(rows)

    def normalize(self, obs: Array) -> Array:
        """[B, O] -> float32, zero mean, unit std, clipped. The identity (in float32)
        before the first merge.
        """
        if self._scale is None:
            return obs.astype(np.float32)
        mean, std = self._scale
        seen: Array = (obs - mean) / std
        return np.minimum(np.maximum(seen, -CLIP, out=seen), CLIP, out=seen).astype(np.float32)

    def standardize(self, reward: Array, *, center: bool) -> Array:
        """The control arm's env reward over its running std; with `center`, first less
        the mean of the first merge.

        The mean stays what it was: each later shift of all rewards is a hundred times
        as large in the returns. Where episodes can end early there must be none, since
        it would pay for dying, or for staying.
        """
        # a first batch is scaled by itself
        scale = self.known.get("reward") or self.fresh["reward"]
        first = self.known.get(FIRST_REWARD) or scale
        scaled: Array = (reward - (first.mean[0] if center else 0.0)) / scale.std()[0]
        return scaled

    def fold(self) -> None:
        """Take what was collected into use: the merge of a single, local runner."""
        self.set_state(self.merge_states([self.get_state()]))

    def get_state(
        self, components: Any = None, *, not_components: Any = None, **kwargs: Any
    ) -> dict[str, Any]:
        """Both parts as plain data."""
        return {
            part: {name: moments.to_state() for name, moments in getattr(self, part).items()}
            for part in ("known", "fresh")
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Replace both parts."""
        for part in ("known", "fresh"):
            setattr(
                self, part, {name: Moments.from_state(s) for name, s in state.get(part, {}).items()}
            )
        known = self.known.get("obs")
        self._scale = None if known is None else (known.mean, known.std())

    def merge_states(self, states: list[dict[str, Any]]) -> dict[str, Any]:
        """What is known here plus what every runner collected afresh."""
        merged = {name: Moments.from_state(m.to_state()) for name, m in self.known.items()}
        for state in states:
            for name, fresh in state["fresh"].items():
                merged.setdefault(name, Moments(len(fresh["mean"]))).merge(
                    Moments.from_state(fresh)
                )
        if "reward" in merged:
            merged.setdefault(FIRST_REWARD, merged["reward"])
        return {
            "known": {name: moments.to_state() for name, moments in merged.items()},
            "fresh": {},
        }

    def reset_state(self) -> None:
        """Forget everything."""
        self.known, self.fresh, self._scale = {}, {}, None
