"""The env runners of a run on a cluster that grows and shrinks, and what they report.

RLlib starts as many env runners as it is told, waits for all of them, and while one is
lost it waits half a minute for it at each training step. Here a run may start with few;
further ones are started beside the training and join when they are up; a lost one is
asked without waiting; and each collects its share of a batch, however many there are.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from rlhp.errors import root
from rlhp.learn.interface import Report
from rlhp.monitor.rows import number
from rlhp.rollout.runner import EPISODES, NODES

log = logging.getLogger(__name__)

RUNNERS = {
    "predict_wait_ms": "reward/predict_wait_ms",
    "predict_us_per_step": "reward/predict_us_per_step",
    "predicted_mean": "reward/predicted_mean",
    "predicted_std": "reward/predicted_std",
    "segments_dropped": "segments/dropped",
    "segments_short": "segments/short",
    "game_score_mean": "env_runners/game_score_mean",
    "memory_mb": "memory/env_runner_mb",
    "env_failures": "env_runners/failures",
}
"""What our env runner logs -> the metrics that it is."""

ALONE_SECONDS = 5.0
"""With no env runner left there is nothing to do but wait a moment for one."""


class EnvRunnerPool:
    """The remote env runners of one RLlib env runner group."""

    def __init__(self, group: Any, *, wanted: int, rows: int) -> None:
        """`wanted` env runners in the end; those that the group has now make a train
        batch of `rows` rows each.
        """
        self._group = group
        self._wanted = wanted
        self._rows = rows * group.num_remote_env_runners()
        self._sharing = set(group.healthy_env_runner_ids())
        self._coming: list[tuple[Any, Any]] = []  # (actor, its first ping)
        self._pings: dict[int, Any] = {}
        self._lost: set[int] = set()

    def nodes(self) -> set[str]:
        """The Ray nodes on which env runners are."""
        group = self._group
        answers = group.foreach_env_runner(_node, local_env_runner=False, timeout_seconds=60)
        return {node for node in answers if node}

    def grow(self) -> None:
        """Start what is missing to the number wanted, and let join who is up. Never
        waits.

        Whoever joins is marked as lost: RLlib then finds it, and gives it weights and
        counters, as after a restart.
        """
        manager = self._group._worker_manager
        while manager.num_actors() + len(self._coming) < self._wanted:
            index = manager.num_actors() + len(self._coming) + 1
            actor = self._group._make_worker(
                env_creator=self._group._env_creator,
                validate_env=None,
                worker_index=index,
                num_workers=self._wanted,
                config=self._group._remote_config_obj_ref,
            )
            self._coming.append((actor, actor.ping.remote()))
        # in order: RLlib numbers them as they join
        while self._coming and _is_up(self._coming[0][1]):
            actor, _ = self._coming.pop(0)
            manager.add_actors([actor])
            newest = max(manager.actor_ids())
            manager.set_actor_state(newest, False)
            log.info("env runner %d has joined", newest)

    def coming(self) -> list[Any]:
        """Actors that have not joined yet."""
        return [actor for actor, _ in self._coming]

    def any_back(self) -> bool:
        """Whether a lost env runner answers again, so that RLlib may restore it. Waits
        only where none is left.

        One that is there and was stopped by an error, of its environment mostly, raises
        that.
        """
        manager = self._group._worker_manager
        lost = [index for index in manager.actor_ids() if not manager.is_actor_healthy(index)]
        actors = manager.actors()
        for index in set(lost) - self._lost:
            log.warning("env runner %d is lost", index)
        self._lost = set(lost)
        self._pings = {
            index: self._pings.get(index) or actors[index].ping.remote() for index in lost
        }
        if not lost:
            return False
        alone = len(lost) == manager.num_actors()
        ready, _ = ray.wait(
            list(self._pings.values()), num_returns=1, timeout=ALONE_SECONDS if alone else 0
        )
        answered = {index for index, ping in self._pings.items() if ping in ready}
        back = [_is_up(self._pings.pop(index)) for index in answered]
        return any(back)

    def share(self, *, restored: bool) -> None:
        """Cut the fragments so that those who are there collect one train batch between
        them in one round.
        """
        there = set(self._group.healthy_env_runner_ids())
        if not there or (there == self._sharing and not restored):
            return
        self._sharing = there
        rows = -(-self._rows // len(there))
        self._group.foreach_env_runner(
            lambda runner: runner.collect_rows(rows), local_env_runner=False, timeout_seconds=0
        )
        log.info("%d env runners share a train batch, %d rows each", len(there), rows)


def refuse_stopped(group: Any) -> None:
    """Raise what has stopped an env runner while it was built, where one says so."""
    pings = [actor.ping.remote() for actor in group._worker_manager.actors().values()]
    done, _ = ray.wait(pings, num_returns=len(pings), timeout=ALONE_SECONDS) if pings else ([], [])
    for ping in done:
        _is_up(ping)


def report(
    runners: Mapping[str, Any],
    *,
    env_steps: int,
    offered: int = 0,
    metrics: Mapping[str, float | None] | None = None,
) -> Report:
    """RLlib's metrics of the env runners in our names, after those in `metrics`."""
    episodes, nodes = runners.get(EPISODES), runners.get(NODES)
    said = {name: number(runners.get(key)) for key, name in RUNNERS.items()}
    known = {name: value for name, value in said.items() if value is not None}
    return Report(
        env_steps=env_steps,
        episodes=[tuple(item) for item in episodes] if isinstance(episodes, list) else [],
        offered=offered,
        nodes=nodes if isinstance(nodes, list) else None,
        failures=int(runners.get("env_failures") or 0),
        metrics={**(metrics or {}), **known},
    )


def _is_up(ping: Any) -> bool:
    """Whether it has answered; raises what has stopped it for good, where that is its
    answer.
    """
    try:
        return bool(ray.wait([ping], timeout=0)[0]) and ray.get(ping) is not None
    except RayTaskError as error:
        raise root(error) from error
    except RayError:
        return False


def _node(runner: Any) -> str:
    node: str = ray.get_runtime_context().get_node_id()
    return node
