"""How an env runner and the query actor reach a reward model: directly, or as named Ray actors.

`Replicas` never falls back to the env reward and never invents one. When no replica answers it waits,
says what it waits for, and tries again with back-off: a waiting run is visible and loses nothing.
"""

from __future__ import annotations

import logging
import random
import time
from typing import Any, Protocol

import ray
from ray.exceptions import RayError, RayTaskError

from rlhp.reward.service import NoRewardYet
from rlhp.types import Array

log = logging.getLogger(__name__)

NAMESPACE = "rlhp"
FIRST_COMPLAINT_SECONDS = 5.0
NEXT_COMPLAINT_SECONDS = 30.0
SUSPECT_SECONDS = 20.0
"""How long a replica that failed is asked last; then it gets its share again."""


class RewardSource(Protocol):
    """Whatever labels and scores: a `RewardModel` in this process, or `Replicas`."""

    def label(self, obs: Array, actions: Array, *, version: int | None = None) -> tuple[Array, int]: ...

    def score(self, obs: Array, encoded: Array) -> tuple[Array, int]: ...


def replica_name(run: str, index: int) -> str:
    """The Ray name of one reward-model replica, in the namespace `rlhp`."""
    return f"{run}:reward_model:{index}"


class Replicas:
    """Calls the first replica that answers, its own favourite first, suspects last.

    Replicas are found by name, lazily: a handle would not survive the restart of whoever holds it.
    """

    def __init__(self, run: str, *, count: int, favourite: int, timeout_seconds: float, who: str) -> None:
        self._run = run
        self._order = [(favourite + k) % count for k in range(count)]
        self._timeout = timeout_seconds
        self._who = who
        self._handles: dict[int, Any] = {}
        self._suspects: dict[int, float] = {}  # until when
        self._jitter = random.Random(f"{run}/{who}")

    def label(self, obs: Array, actions: Array, *, version: int | None = None) -> tuple[Array, int]:
        """As `RewardModel.label`; waits for ever rather than returning a wrong number."""
        refs = (ray.put(obs), ray.put(actions))
        holding = f"{obs.shape[0] * obs.shape[1]} unlabelled steps"
        result: tuple[Array, int] = self._call("label", refs, {"version": version}, holding)
        return result

    def score(self, obs: Array, encoded: Array) -> tuple[Array, int]:
        """As `RewardModel.score`."""
        result: tuple[Array, int] = self._call(
            "score", (ray.put(obs), ray.put(encoded)), {}, f"{len(obs)} steps to score"
        )
        return result

    def _call(self, method: str, refs: tuple[Any, ...], kwargs: dict[str, Any], holding: str) -> Any:
        started = time.monotonic()
        complain_at = started + FIRST_COMPLAINT_SECONDS
        pause = 0.05
        while True:
            for index in self._by_preference():
                try:
                    handle = self._handle(index)
                    bound = getattr(handle, method).options(concurrency_group="label")
                    answer = ray.get(bound.remote(*refs, **kwargs), timeout=self._timeout)
                except (RayError, ValueError, TimeoutError) as error:
                    if isinstance(error, RayTaskError) and not isinstance(error, NoRewardYet):
                        raise  # our own error or a prediction that is not finite: no other replica would do better
                    self._suspects[index] = time.monotonic() + SUSPECT_SECONDS
                    self._handles.pop(index, None)
                    last = "NoRewardYet" if isinstance(error, NoRewardYet) else type(error).__name__
                    continue
                self._suspects.pop(index, None)
                return answer
            now = time.monotonic()
            if now >= complain_at:
                log.warning(
                    "%s: no reward model has answered for %.0f s (asked %d; last: %s). Holding %s; sampling waits "
                    "here, the env reward is not used. See `rlhp status`, or raise reward.replicas.",
                    self._who, now - started, len(self._order), last, holding,
                )  # fmt: skip
                complain_at = now + NEXT_COMPLAINT_SECONDS
            time.sleep(pause * (0.5 + self._jitter.random()))
            pause = min(2.0, pause * 2)

    def _by_preference(self) -> list[int]:
        now = time.monotonic()
        return sorted(self._order, key=lambda index: self._suspects.get(index, 0.0) > now)

    def _handle(self, index: int) -> Any:
        if index not in self._handles:
            self._handles[index] = ray.get_actor(replica_name(self._run, index), namespace=NAMESPACE)
        return self._handles[index]
