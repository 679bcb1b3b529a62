"""How an env runner and the query actor reach a reward model: directly, or as named Ray
actors.

`Replicas` never falls back to the env reward and never invents one. When no replica
answers it waits, says what it waits for, and tries again with back-off: a waiting run
is visible and loses nothing.
"""

from __future__ import annotations

import logging
import random
import time
from typing import Any, Protocol

import ray
from ray.exceptions import RayError, RayTaskError

from rlhp.frames import FramePickle
from rlhp.reward.service import NoRewardYet
from rlhp.system.ray import NAMESPACE
from rlhp.system.roles import REWARD_MODEL, actor_name, numbered
from rlhp.types import Array

log = logging.getLogger(__name__)

REPLICA_SECONDS = 60.0
"""Longest wait for one replica before another is tried."""
FIRST_COMPLAINT_SECONDS = 5.0
NEXT_COMPLAINT_SECONDS = 30.0
SUSPECT_SECONDS = 20.0
"""How long a replica that failed is asked last; then it gets its share again."""
LOOK_SECONDS = 10.0
"""How long a list of replicas is believed: nodes come and go, and one of our own node
may be new.
"""


class RewardSource(Protocol):
    """Whatever labels and scores: a `RewardModel` in this process, or `Replicas`."""

    def predict(
        self, obs: Array, actions: Array, *, version: int | None = None
    ) -> tuple[Array, int]: ...

    def score(self, obs: Array, encoded: Array) -> tuple[Array, int]: ...


def replica_name(run: str, index: int, *, node: str = "") -> str:
    """The Ray name of one reward-model replica, in the namespace `rlhp`; `node` is the
    id of the node it serves.
    """
    return f"{actor_name(run, numbered(REWARD_MODEL, index))}@{node}"


def replica_names(run: str) -> list[str]:
    """The Ray names of all replicas of a run, wherever they are."""
    replica = actor_name(run, f"{REWARD_MODEL}_")
    return sorted(name for name in ray.util.list_named_actors() if name.startswith(replica))


class Replicas:
    """Calls the first replica that answers: that of its own node first, then its
    favorite, suspects last.

    Replicas are found by name, lazily: a handle would not survive the restart of
    whoever holds it.
    """

    def __init__(self, run: str, *, favorite: int, who: str) -> None:
        self._run = run
        self._favorite = favorite
        self._names: list[str] = []
        self._looked = float("-inf")
        self._who = who
        self._handles: dict[str, Any] = {}
        self._suspects: dict[str, float] = {}  # until when
        self._jitter = random.Random(f"{run}/{who}")

    def predict(
        self, obs: Array, actions: Array, *, version: int | None = None
    ) -> tuple[Array, int]:
        """As `RewardModel.label`; waits for ever rather than returning a wrong number."""
        refs = (ray.put(FramePickle(obs)), ray.put(actions))
        holding = f"{obs.shape[0] * obs.shape[1]} unlabeled steps"
        result: tuple[Array, int] = self._call("predict", refs, {"version": version}, holding)
        return result

    def score(self, obs: Array, encoded: Array) -> tuple[Array, int]:
        """As `RewardModel.score`."""
        result: tuple[Array, int] = self._call(
            "score", (ray.put(obs), ray.put(encoded)), {}, f"{len(obs)} steps to score"
        )
        return result

    def _call(
        self, method: str, refs: tuple[Any, ...], kwargs: dict[str, Any], holding: str
    ) -> Any:
        started = time.monotonic()
        complain_at = started + FIRST_COMPLAINT_SECONDS
        pause, last = 0.05, "none is there"
        while True:
            for name in self._by_preference():
                try:
                    handle = self._handle(name)
                    bound = getattr(handle, method).options(concurrency_group="predict")
                    answer = ray.get(bound.remote(*refs, **kwargs), timeout=REPLICA_SECONDS)
                except (RayError, ValueError, TimeoutError) as error:
                    if isinstance(error, RayTaskError) and not isinstance(error, NoRewardYet):
                        # our own error or a prediction that is not finite: no other
                        # replica would do better
                        raise
                    self._suspects[name] = time.monotonic() + SUSPECT_SECONDS
                    self._handles.pop(name, None)
                    last = "NoRewardYet" if isinstance(error, NoRewardYet) else type(error).__name__
                    continue
                self._suspects.pop(name, None)
                return answer
            now = time.monotonic()
            self._looked = float("-inf")  # none answered: perhaps another has come
            if now >= complain_at:
                log.warning(
                    "%s: no reward model has answered for %.0f s (asked %d; last: %s). Holding "
                    "%s; sampling waits here, the env reward is not used. See `rlhp status`, or "
                    "raise reward.replicas.",
                    self._who,
                    now - started,
                    len(self._names),
                    last,
                    holding,
                )
                complain_at = now + NEXT_COMPLAINT_SECONDS
            time.sleep(pause * (0.5 + self._jitter.random()))
            pause = min(2.0, pause * 2)

    def _by_preference(self) -> list[str]:
        now = time.monotonic()
        if now - self._looked >= LOOK_SECONDS:
            self._looked = now
            names = replica_names(self._run)
            start = self._favorite % len(names) if names else 0
            home = f"@{ray.get_runtime_context().get_node_id()}"
            self._names = sorted(
                names[start:] + names[:start], key=lambda name: not name.endswith(home)
            )
        return sorted(self._names, key=lambda name: self._suspects.get(name, 0.0) > now)

    def _handle(self, name: str) -> Any:
        if name not in self._handles:
            self._handles[name] = ray.get_actor(name, namespace=NAMESPACE)
        return self._handles[name]
