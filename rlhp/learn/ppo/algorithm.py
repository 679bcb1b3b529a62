"""PPO on predicted rewards: RLlib's own algorithm, with our env runner and our loop
over minibatches, as the learner of a run (`rlhp.learn.interface.Learner`).

Nothing here knows where rewards come from: the episodes that reach the learner already
hold them.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import ray
import torch
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.algorithms.ppo import PPO, PPOConfig
from ray.rllib.core import COMPONENT_LEARNER, COMPONENT_RL_MODULE
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.rllib.utils.metrics import ENV_RUNNER_RESULTS, NUM_ENV_STEPS_SAMPLED_LIFETIME

from rlhp.learn.env_runners import EnvRunnerPool, refuse_stopped, report
from rlhp.learn.evaluate import policy_act
from rlhp.learn.interface import MakeAct, Report
from rlhp.learn.ppo.encoder import PictureCatalog
from rlhp.learn.ppo.learner import PPOLearner
from rlhp.monitor.rows import number
from rlhp.reward.client import RewardSource
from rlhp.rollout.context import SegmentSink
from rlhp.rollout.runner import (
    ColumnarEnvRunner,
    restore_environments,
    restore_runner,
    runner_state,
)
from rlhp.system.memory import resident_mb

SAMPLED = (ENV_RUNNER_RESULTS, NUM_ENV_STEPS_SAMPLED_LIFETIME)
LOSSES = {
    "policy_loss": "learner/policy_loss",
    "vf_loss": "learner/vf_loss",
    "entropy": "learner/entropy",
    "mean_kl_loss": "learner/kl",
    "vf_explained_var": "learner/explained_variance",
}
"""RLlib's name -> ours."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PolicyStart:
    """How the policy begins. One object, since RLlib drops attributes of a config that
    are -1, which `log_std_init` may be.
    """

    network: str | None = None
    """Where observations are pictures, what reads them: a name in
    `rlhp.models.convolution.POLICY`.
    """
    log_std_init: float = 0.0
    head_scale: float = 1.0


class PreferencePPOConfig(PPOConfig):  # type: ignore[misc]  # RLlib is untyped
    """RLlib's PPO config plus `rlhp`, the `RunnerContext` that env runners read, and how
    the policy begins.
    """

    def __init__(self, algo_class: Any = None) -> None:
        super().__init__(algo_class=algo_class or PreferencePPO)
        self.rlhp: Any = None
        self.policy_start = PolicyStart()
        self.env_runner_cls = ColumnarEnvRunner

    def get_default_rl_module_spec(self) -> RLModuleSpec:
        """RLlib's module; for pictures on an encoder of our own."""
        spec = super().get_default_rl_module_spec()
        if self.policy_start.network is not None:
            spec.catalog_class = PictureCatalog
        return spec

    def get_default_learner_class(self) -> Any:
        """RLlib's PPO learner with a loop of ours."""
        return PPOLearner


class PreferencePPO(PPO):  # type: ignore[misc]  # RLlib is untyped
    """A `Learner`: RLlib's PPO that reports in our names, warms up, and comes back from
    a checkpoint.
    """

    algorithm = "ppo"

    @classmethod
    def get_default_config(cls) -> AlgorithmConfig:
        """An empty `PreferencePPOConfig`."""
        return PreferencePPOConfig()

    def abandon(self) -> None:
        """Kill every actor: whoever waits for one fails or goes on at once. Safe from
        any thread, and twice.
        """
        actors = list(self.env_runner_group._worker_manager.actors().values())
        if self._fleet is not None:
            actors += self._fleet.coming()
        if self.learner_group.is_remote:
            actors += self.learner_group._workers
        for actor in actors:
            with suppress(Exception):  # one that is dead already
                ray.kill(actor)

    def setup(self, config: Any) -> None:
        """As RLlib does, and remember who collects; TimeoutError where env runners do
        not come up, or are lost then.
        """
        try:
            super().setup(config)
        # RLlib asks one env runner for the spaces and takes the first of its answers
        except IndexError as error:
            group = self.env_runner_group
            if group is None or group.num_healthy_remote_workers() == group.num_remote_workers():
                raise
            if group.num_healthy_remote_workers():
                raise TimeoutError("an env runner was lost while the learner was built") from error
            refuse_stopped(group)
            raise TimeoutError(
                "no env runner came up; Ray's session directory (logs/worker-*.err, "
                "logs/raylet.out) says why not"
            ) from error
        group = self.env_runner_group
        self._told_steps = 0
        self._fleet: EnvRunnerPool | None = None
        if group.num_remote_env_runners() > 0:
            rows = self.config.rollout_fragment_length
            self._fleet = EnvRunnerPool(group, wanted=self.config.rlhp.num_env_runners, rows=rows)

    def nodes(self) -> set[str]:
        """The Ray nodes on which env runners are: this one, where none is an actor of
        its own.
        """
        return (
            self._fleet.nodes()
            if self._fleet is not None
            else {ray.get_runtime_context().get_node_id()}
        )

    def restore_env_runners(self, env_runner_group: Any) -> list[int]:
        """Before each round: RLlib restores those who are back, newcomers join, all
        share the batch.
        """
        if self._fleet is None:
            return []
        self._fleet.grow()
        restored = super().restore_env_runners(env_runner_group) if self._fleet.any_back() else []
        self._fleet.share(restored=bool(restored))
        return list(restored)

    def restore(self, state: dict[str, Any]) -> None:
        """Set a fresh algorithm to what `get_state` said, whatever the number of env
        runners and learners was then.

        RLlib's own `set_state` tells env runners the version of the weights first, and
        then they refuse the weights; and its syncs drop what they would send while an
        env runner still works at the one before, so here we wait.
        """
        self.metrics.set_state(state["metrics_logger"])
        self.learner_group.set_state(state["learner_group"])
        self.env_runner.set_state(state["env_runner"])
        of_module = f"{COMPONENT_LEARNER}/{COMPONENT_RL_MODULE}"
        weights = self.learner_group.get_state(components=of_module, inference_only=True)[
            COMPONENT_LEARNER
        ]
        self.env_runner.set_state(weights)
        lifetime = self.metrics.peek(SAMPLED, default=0)
        everything = ray.put(
            {**self.env_runner.get_state(), NUM_ENV_STEPS_SAMPLED_LIFETIME: lifetime}
        )
        self.env_runner_group.foreach_env_runner(
            lambda runner: runner.set_state(ray.get(everything)),
            local_env_runner=False,
            timeout_seconds=self.config.env_runner_restore_timeout_s,
        )
        self._iteration = state["training_iteration"]
        self._told_steps = int(lifetime)

    @property
    def turn_steps(self) -> int:
        """One train batch."""
        return int(self.config.total_train_batch_size)

    @property
    def num_envs(self) -> int:
        """Those of the env runners that it began with."""
        return int(max(1, self.config.num_env_runners) * self.config.num_envs_per_env_runner)

    def train(self) -> Report:
        """RLlib's iteration: one batch, several passes over it."""
        result = super().train()
        runners = result.get(ENV_RUNNER_RESULTS, {})
        sampled = int(runners.get(NUM_ENV_STEPS_SAMPLED_LIFETIME, self._told_steps))
        taken, self._told_steps = sampled - self._told_steps, sampled
        row = _learner_row(result, kl=self.config.use_kl_loss)
        return report(runners, env_steps=taken, metrics=row)

    def policy(self, *, explore: bool, seed: int) -> MakeAct:
        """The module of the env runner in this process, with its observation statistics."""
        runner = self.env_runner
        moments = runner._moments if self.config.rlhp.normalize_obs else None
        return policy_act(runner.module, moments, explore=explore, seed=seed)

    def policy_state(self) -> dict[str, Any]:
        """Weights and observation statistics: all that playing needs."""
        runner = self.env_runner
        moments = runner._moments.get_state()["known"].get("obs")
        return {
            "module": _tensors(runner.module.get_state()),
            "moments": None if moments is None else _tensors(moments),
        }

    def connect(self, reward_source: RewardSource, segment_sink: SegmentSink) -> None:
        """Set the edges of the env runner in this process."""
        self.env_runner.reward_source, self.env_runner.segment_sink = reward_source, segment_sink

    def rollout_state(self) -> dict[str, Any]:
        """That of the env runner in this process."""
        return runner_state(self.env_runner)

    def restore_environments(self, state: dict[str, Any]) -> None:
        """Those of the env runner in this process."""
        restore_environments(self.env_runner, state)

    def restore_rollout(self, state: dict[str, Any]) -> None:
        """The rest of the env runner in this process."""
        restore_runner(self.env_runner, state)

    def warm_up(self, num_env_steps: int) -> Report:
        """Collect at least this many env steps with the untrained policy, and offer
        their segments.
        """
        group = self.env_runner_group
        self.restore_env_runners(group)  # RLlib does so before it trains, not before we collect
        remote = group.num_remote_env_runners() > 0
        share = -(-num_env_steps // max(1, group.num_healthy_remote_workers()))
        if remote:
            results = group.foreach_env_runner(
                lambda runner: runner.warm_up(share),
                local_env_runner=False,
                timeout_seconds=self.config.sample_timeout_s,
            )
        else:
            results = [self.env_runner.warm_up(num_env_steps)]
        if not results:  # all were lost; the next round says why, or has them back
            return Report(env_steps=0)
        self.metrics.aggregate([result["metrics"] for result in results], key=ENV_RUNNER_RESULTS)
        lifetime = self.metrics.peek(SAMPLED, default=0)
        group.sync_env_runner_states(config=self.config, env_steps_sampled=lifetime)
        if not remote:
            self.env_runner._moments.fold()
        taken = sum(result["steps"] for result in results)
        self._told_steps += taken
        return report(
            self.metrics.peek(ENV_RUNNER_RESULTS),
            env_steps=taken,
            offered=sum(result["offered"] for result in results),
        )


def _learner_row(result: Mapping[str, Any], *, kl: bool) -> dict[str, float | None]:
    """What one training iteration says about the learner; `kl` where its penalty is on,
    since else RLlib says 0.
    """
    learner = result.get("learners", {}).get("default_policy", {})
    timers = result.get("timers", {})
    row = {name: number(learner.get(key)) for key, name in LOSSES.items()}
    if not kl:
        del row["learner/kl"]
    row["time/sample_seconds"] = number(timers.get("env_runner_sampling_timer"))
    row["time/learn_seconds"] = number(timers.get("learner_update_timer"))
    row["memory/learner_mb"] = number(resident_mb())
    return row


def _tensors(arrays: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    return {name: torch.as_tensor(np.asarray(value)) for name, value in arrays.items()}
