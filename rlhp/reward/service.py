"""The reward-model actor: it hands out predicted rewards before an episode exists.

A plain class; `rlhp.program` makes it a Ray actor. It holds the two newest reward
versions and nothing else, so a replica that died comes back, reads the newest published
weights and goes on.

Shapes: N environments, T rows, O observation as a row, M members, B rows.

Requests of many env runners are predicted together. Whoever comes while another request
is being worked on waits, and the next one to begin takes along all that wait: their
rows fill whole blocks, which a GPU takes about as long for as for a few rows. Since
rows are predicted in blocks of one shape, nobody's reward depends on who else asked.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from rlhp.envs.spaces import Spaces
from rlhp.reward.versions import RewardPredictor, RewardWeights
from rlhp.system.roles import RewardModelStatus
from rlhp.types import Array

Score = Callable[[Array, Array], Array]
"""Observations [B, *O], encoded actions [B, A] -> scores [M, B]."""


@dataclass(slots=True, eq=False)
class _Request:
    score: Score
    obs: Array
    actions: Array
    scores: Array | None = None
    error: Exception | None = None


class RequestBatcher:
    """For any number of threads; one of them works at a time."""

    def __init__(self) -> None:
        self._waiting: list[_Request] = []
        self._list = threading.Lock()
        self._work = threading.Lock()
        self.rounds = 0
        """How often was worked; fewer than the requests where some were taken along."""
        self.seconds = 0.0
        """For how long."""

    def __call__(self, score: Score, obs: Array, actions: Array) -> Array:
        """`score(obs, actions)`, perhaps as a part of what others ask of the same
        `score`.
        """
        mine = _Request(score, obs, actions)
        with self._list:
            self._waiting.append(mine)
        with self._work:
            if mine.scores is None and mine.error is None:
                with self._list:
                    served = [request for request in self._waiting if request.score == score]
                    self._waiting = [request for request in self._waiting if request.score != score]
                started = time.perf_counter()
                _serve(score, served)
                self.seconds += time.perf_counter() - started
                self.rounds += 1
        if mine.error is not None:
            raise mine.error
        assert mine.scores is not None
        return mine.scores


def _serve(score: Score, requests: list[_Request]) -> None:
    try:
        if len(requests) == 1:
            requests[0].scores = score(requests[0].obs, requests[0].actions)
            return
        scores_MB = score(
            np.concatenate([request.obs for request in requests]),
            np.concatenate([request.actions for request in requests]),
        )
    except Exception as error:  # it belongs to all of them, and each raises it
        for request in requests:
            request.error = error
        return
    edges = np.cumsum([len(request.obs) for request in requests])[:-1]
    for request, part in zip(requests, np.split(scores_MB, edges, axis=1), strict=True):
        request.scores = part


class NoRewardYet(RuntimeError):
    """Asked for a predicted reward before any version was published."""


class RewardModel:
    """rewards, version = label(obs, actions): idempotent, stateless but for its
    weights.
    """

    def __init__(
        self, spaces: Spaces, *, newest: Callable[[], RewardWeights | None], device: str = "cpu"
    ) -> None:
        self._spaces = spaces
        self._device = device
        self._models: dict[int, RewardPredictor] = {}
        self._newest = newest
        self._swap = threading.Lock()
        self._calls = 0
        self._transitions = 0
        self._count = threading.Lock()
        self._together = RequestBatcher()
        self._fatal: str | None = None
        weights = newest()
        if weights is not None:
            self.load(weights)

    def predict(
        self, obs: Array, actions: Array, *, version: int | None = None
    ) -> tuple[Array, int]:
        """Raw obs [N, T, *O] and executed actions [N, T, *A] -> predicted rewards [N,
        T] float32, reward version.

        One answer has one version: the newest, or `version` while it is still held.
        ValueError (kept for `status`) when a prediction is not finite, which must stop
        the run.
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
        """Obs [B, *O] and encoded actions [B, A] -> raw rewards of every member [M, B],
        reward version.
        """
        model, used = self._model(None)
        return self._together(model.score, obs, encoded), used

    def load(self, weights: RewardWeights | bytes) -> int:
        """Serve this version from now on; an older one than is held is ignored. Returns
        the newest held.
        """
        if isinstance(weights, bytes):
            weights = RewardWeights.from_bytes(weights)
        model = RewardPredictor(weights, device=self._device)
        with self._swap:
            if not self._models or weights.version > max(self._models):
                kept = sorted(self._models)[-1:]
                self._models = {
                    **{held: self._models[held] for held in kept},
                    weights.version: model,
                }
            return max(self._models)

    def status(self) -> RewardModelStatus:
        """What it holds, and what it did so far."""
        held = self._models
        return RewardModelStatus(
            version=max(held) if held else 0,
            calls=self._calls,
            rounds=self._together.rounds,
            transitions=self._transitions,
            us_per_transition=1e6 * self._together.seconds / max(1, self._transitions),
            fatal=self._fatal,
        )

    def _model(self, version: int | None) -> tuple[RewardPredictor, int]:
        if not self._models and (weights := self._newest()) is not None:
            self.load(weights)  # published while this replica was starting, so nobody sent it
        models = self._models  # read once: a swap in mid-call changes nothing for this answer
        if not models:
            raise NoRewardYet(
                "no reward version has been published yet; the run is still in warm-up"
            )
        used = max(models) if version is None else version
        if used not in models:
            raise LookupError(
                f"reward version {used} is not held, only {sorted(models)}; ask for the newest"
            )
        return models[used], used
