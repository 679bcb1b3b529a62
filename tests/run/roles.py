"""A role as a Ray actor that can be told how to be."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

import ray

from rlhp.system.roles import (
    QueryActorStatus,
    RewardModelStatus,
    RewardTrainerStatus,
    RoleStatus,
)


class Told:
    """Says what it was told; its constructor fails while `flag` is a file."""

    def __init__(self, status: RoleStatus, flag: str = "") -> None:
        if flag and os.path.exists(flag):
            raise ValueError("part-00000000.parquet is damaged; move that file away")
        self._status = replace(status, pid=os.getpid())
        self._progress: list[Any] = []

    def tell(self, **changes: Any) -> None:
        """Change what it says."""
        self._status = replace(self._status, **changes)

    def progress(self, *args: Any, **facts: Any) -> None:
        """Remember how far the run is."""
        self._progress.append([*args, facts])

    def heard(self) -> list[Any]:
        """How far it was told that the run is."""
        return self._progress

    def status(self) -> RoleStatus:
        """What it was told, and who it is."""
        return self._status


def told(status: RoleStatus, *, flag: str = "") -> Any:
    """A role that answers when this returns."""
    remote = ray.remote(num_cpus=0, max_restarts=-1, concurrency_groups={"control": 1})(Told)
    actor = remote.remote(status, flag)
    ray.get(actor.status.remote())
    return actor


def query_actor(**changes: Any) -> QueryActorStatus:
    """What a query actor says that has 7 segments."""
    facts: dict[str, Any] = {
        "env_steps": 0,
        "pool": 7,
        "offered": 7,
        "warmup_target": 10,
        "allowed": 3,
        "budget": 20,
        "metrics": {"segments/pool": 7},
    }
    return QueryActorStatus(**(facts | changes))


def reward_trainer(**changes: Any) -> RewardTrainerStatus:
    """What a reward trainer says that has 3 answers and no version."""
    facts: dict[str, Any] = {"version": 0, "answered": 3, "metrics": {"labels/answered": 3}}
    return RewardTrainerStatus(**(facts | changes))


def reward_model(version: int) -> RewardModelStatus:
    """What a reward model says that has this version."""
    return RewardModelStatus(version=version)
