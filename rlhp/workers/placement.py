"""Where the reward models of a run are, when one is started, and when one is ended.

Every node that has env runners has one, so that no fragment crosses the network; with
`reward.replicas` that many are spread over the cluster instead. Each is tied to its
node softly: where the node is lost, Ray starts the reward model on another, and env
runners that wait for a reward have one again before anybody else has noticed.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Iterable
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from rlhp.config.schema import RunConfig
from rlhp.envs.spaces import Spaces
from rlhp.reward.client import replica_name
from rlhp.storage.rundir import RunDir
from rlhp.system.ray import NAMESPACE
from rlhp.system.roles import REWARD_MODEL, numbered, spoken
from rlhp.workers.roles import RewardModelProcess

log = logging.getLogger(__name__)

IDLE_SECONDS = 60.0
"""A node may be without env runners for so long before its reward model is ended: an
env runner that restarts comes back.
"""
LOOK_SECONDS = 5.0
REQUESTS_AT_ONCE = 16
"""Threads of a reward model: it predicts the fragments of so many env runners together
(`rlhp.reward.service`).
"""


class RewardModels:
    """Reward-model actors by name; `settle` moves them to where env runners are."""

    def __init__(self, config: RunConfig, rundir: RunDir, spaces: Spaces) -> None:
        """Starts as many as `reward.replicas` says; where it says nothing, the first
        `settle` starts them.
        """
        self._run, self._path = rundir.name, str(rundir.path)
        self._args = {"spaces": spaces, "device": config.reward.device, "path": self._path}
        self._actor_class = ray.remote(
            num_cpus=0,
            num_gpus=config.reward_gpus,
            max_restarts=-1,
            max_task_retries=0,
            namespace=NAMESPACE,
            concurrency_groups={"predict": REQUESTS_AT_ONCE, "control": 1},
        )(RewardModelProcess)
        self.actors: dict[str, Any] = {}
        """`reward_model_0` -> its actor."""
        self._nodes: dict[str, str] = {}  # actor -> node that it serves
        self._seen: dict[str, float] = {}  # node -> when it last had an env runner
        self._count = 0
        self._looked = 0.0
        self._follows = config.reward.replicas is None
        for _ in range(config.reward.replicas or 0):
            self._start(node="", strategy="SPREAD")

    def settle(self, nodes: Iterable[str]) -> None:
        """One on every node that has env runners now, none on a node that has none any
        more; the last one stays.
        """
        if not self._follows:
            return
        now = time.monotonic()
        self._seen |= dict.fromkeys(nodes, now)
        served = set(self._nodes.values())
        missing = [
            node
            for node, at in self._seen.items()
            if now - at < IDLE_SECONDS and node not in served
        ]
        if not missing and now - self._looked < LOOK_SECONDS:
            return
        self._looked = now
        alive = {node["NodeID"] for node in ray.nodes() if node["Alive"]}
        for node in missing:
            if node in alive:
                self._start(node=node, strategy=NodeAffinitySchedulingStrategy(node, soft=True))
        for name, node in list(self._nodes.items()):
            gone = node not in alive or now - self._seen[node] > IDLE_SECONDS
            if gone and self._others_serve(node, alive):
                log.info("%s goes: its node has no env runner any more", spoken(name))
                del self._nodes[name]
                ray.kill(self.actors.pop(name))

    def stop(self) -> None:
        """All of them, at the end of the run."""
        for actor in self.actors.values():
            ray.kill(actor)
        self.actors.clear()
        self._nodes.clear()

    def _others_serve(self, node: str, alive: Collection[str]) -> bool:
        return any(other != node and other in alive for other in self._nodes.values())

    def _start(self, *, node: str, strategy: Any) -> None:
        index = self._count
        self._count += 1
        name = numbered(REWARD_MODEL, index)
        self.actors[name] = self._actor_class.options(
            name=replica_name(self._run, index, node=node), scheduling_strategy=strategy
        ).remote(self._run, index, **self._args)
        if node:
            self._nodes[name] = node
            log.info("%s starts on node %s", spoken(name), node[:8])
