"""The labelling actor: reward models hand out predicted rewards before an episode exists.

A plain class; `rlhp.program` makes it a Ray actor. It holds the two newest reward versions and nothing
else, so a replica that died comes back, reads the newest published weights and goes on.

Shapes: N environments, T rows, O observation as a row, M members, B rows.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from rlhp.reward.batching import Together
from rlhp.reward.model import Labeller, RewardWeights
from rlhp.spaces import Spaces
from rlhp.types import Array


class NoRewardYet(RuntimeError):
    """Asked for a predicted reward before any version was published."""


class RewardModel:
    """rewards, version = label(obs, actions): idempotent, stateless but for its weights."""

    def __init__(self, spaces: Spaces, *, newest: Callable[[], RewardWeights | None], device: str = "cpu") -> None:
        self._spaces = spaces
        self._device = device
        self._models: dict[int, Labeller] = {}
        self._newest = newest
        self._swap = threading.Lock()
        self._calls = 0
        self._transitions = 0
        self._count = threading.Lock()
        self._together = Together()
        self._fatal: str | None = None
        weights = newest()
        if weights is not None:
            self.load(weights)

    def label(self, obs: Array, actions: Array, *, version: int | None = None) -> tuple[Array, int]:
        """Raw obs [N, T, *O] and executed actions [N, T, *A] -> predicted rewards [N, T] float32, reward version.

        One answer has one version: the newest, or `version` while it is still held. ValueError (kept for
        `status`) when a prediction is not finite, which must stop the run.
        """
        model, used = self._model(version)
        rows = obs.shape[0] * obs.shape[1]
        flat = obs.reshape(rows, *self._spaces.obs.row_shape)
        encoded = self._spaces.action.encode(actions.reshape(rows, *actions.shape[2:]))
        try:
            rewards = model.scaled(self._together(model.score, flat, encoded), flat, encoded)
        except ValueError as error:
            self._fatal = str(error)
            raise
        with self._count:
            self._calls += 1
            self._transitions += rows
        return rewards.reshape(obs.shape[:2]), used

    def score(self, obs: Array, encoded: Array) -> tuple[Array, int]:
        """Obs [B, *O] and encoded actions [B, A] -> raw rewards of every member [M, B], reward version."""
        model, used = self._model(None)
        return self._together(model.score, obs, encoded), used

    def load(self, weights: RewardWeights | bytes) -> int:
        """Serve this version from now on; an older one than is held is ignored. Returns the newest held."""
        if isinstance(weights, bytes):
            weights = RewardWeights.from_bytes(weights)
        model = Labeller(weights, device=self._device)
        with self._swap:
            if not self._models or weights.version > max(self._models):
                kept = sorted(self._models)[-1:]
                self._models = {**{held: self._models[held] for held in kept}, weights.version: model}
            return max(self._models)

    def status(self) -> dict[str, Any]:
        """Newest version (0: none yet), calls and how often these were priced together, transitions, microseconds per
        transition, last fatal error."""
        held = self._models
        return {
            "version": max(held) if held else 0,
            "calls": self._calls,
            "rounds": self._together.rounds,
            "transitions": self._transitions,
            "us_per_transition": 1e6 * self._together.seconds / max(1, self._transitions),
            "fatal": self._fatal,
        }

    def _model(self, version: int | None) -> tuple[Labeller, int]:
        if not self._models and (weights := self._newest()) is not None:
            self.load(weights)  # published while this replica was starting, so nobody sent it
        models = self._models  # read once: a swap in mid-call changes nothing for this answer
        if not models:
            raise NoRewardYet("no reward version has been published yet; the run is still in warm-up")
        used = max(models) if version is None else version
        if used not in models:
            raise LookupError(f"reward version {used} is not held, only {sorted(models)}; ask for the newest")
        return models[used], used
