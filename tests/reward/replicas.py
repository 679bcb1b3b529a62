"""Reward models as real Ray actors, each serving a version of its own, which tells who
answered.
"""

from __future__ import annotations

import os
import signal
from typing import Any

import ray

from rlhp.reward.client import Replicas, replica_name
from rlhp.reward.service import RewardModel
from rlhp.system.ray import NAMESPACE
from rlhp.types import Array
from tests.preferences.dataset_samples import PLAIN
from tests.reward.versions import diverged, weights


class Replica(RewardModel):
    """Serves version `index + 1`, none at all, or one that diverged; dies in its first
    call if `flag` is a file.
    """

    def __init__(self, index: int, *, kind: str = "good", flag: str = "") -> None:
        made = {"good": weights, "diverged": diverged}.get(kind)
        super().__init__(PLAIN, newest=lambda: made(index + 1) if made else None)
        self._flag = flag

    def predict(
        self, obs: Array, actions: Array, *, version: int | None = None
    ) -> tuple[Array, int]:
        """As it should, once it lives."""
        if self._flag and os.path.exists(self._flag):
            os.unlink(self._flag)
            os.kill(os.getpid(), signal.SIGKILL)
        return super().predict(obs, actions, version=version)


def start(run: str, index: int, *, restarts: int = 0, node: str = "", **more: Any) -> Any:
    """A replica under the name that clients look for; it serves when this returns."""
    remote = ray.remote(
        num_cpus=0,
        max_restarts=restarts,
        namespace=NAMESPACE,
        concurrency_groups={"predict": 1, "control": 1},
    )(Replica)
    actor = remote.options(name=replica_name(run, index, node=node)).remote(index, **more)
    ray.get(actor.status.remote())
    return actor


def client(run: str, *, favorite: int = 0) -> Replicas:
    """The edge of env runner number `favorite`."""
    return Replicas(run, favorite=favorite, who=f"env runner {favorite}")
