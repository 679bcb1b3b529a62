"""PPO on predicted rewards: RLlib's own algorithm, with our env runner and our loop
over minibatches.

Nothing here knows where rewards come from: the episodes that reach the learner already
hold them.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import ray
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.algorithms.ppo import PPO, PPOConfig
from ray.rllib.core import COMPONENT_LEARNER, COMPONENT_RL_MODULE
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.rllib.utils.metrics import ENV_RUNNER_RESULTS, NUM_ENV_STEPS_SAMPLED_LIFETIME

from rlhp.learn.encoder import PictureCatalog
from rlhp.learn.env_runners import EnvRunnerPool, refuse_stopped
from rlhp.learn.ppo.learner import PPOLearner
from rlhp.rollout.runner import ColumnarEnvRunner


class PreferencePPOConfig(PPOConfig):  # type: ignore[misc]  # RLlib is untyped
    """RLlib's PPO config plus `rlhp`, the `RunnerContext` that env runners read."""

    def __init__(self, algo_class: Any = None) -> None:
        super().__init__(algo_class=algo_class or PreferencePPO)
        self.rlhp: Any = None
        self.env_runner_cls = ColumnarEnvRunner

    def get_default_rl_module_spec(self) -> RLModuleSpec:
        """RLlib's module; for pictures on an encoder of our own."""
        spec = super().get_default_rl_module_spec()
        if self.rlhp is not None and self.rlhp.policy_network is not None:
            spec.catalog_class = PictureCatalog
        return spec

    def get_default_learner_class(self) -> Any:
        """RLlib's PPO learner with a loop of ours."""
        return PPOLearner


class PreferencePPO(PPO):  # type: ignore[misc]  # RLlib is untyped
    """`train()` as RLlib has it, and `warm_up()` for the time before the first reward
    version.
    """

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
        lifetime = self.metrics.peek(
            (ENV_RUNNER_RESULTS, NUM_ENV_STEPS_SAMPLED_LIFETIME), default=0
        )
        everything = ray.put(
            {**self.env_runner.get_state(), NUM_ENV_STEPS_SAMPLED_LIFETIME: lifetime}
        )
        self.env_runner_group.foreach_env_runner(
            lambda runner: runner.set_state(ray.get(everything)),
            local_env_runner=False,
            timeout_seconds=self.config.env_runner_restore_timeout_s,
        )
        self._iteration = state["training_iteration"]

    def warm_up(self, num_env_steps: int) -> dict[str, Any]:
        """Collect at least this many env steps with the untrained policy, and offer
        their segments.

        Nothing is labeled and nothing is learned. Returns `steps` taken, segments
        `offered`, and the reduced metrics of the `env_runners`.
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
            return {"steps": 0, "offered": 0, "env_runners": {}}
        self.metrics.aggregate([result["metrics"] for result in results], key=ENV_RUNNER_RESULTS)
        lifetime = self.metrics.peek(
            (ENV_RUNNER_RESULTS, NUM_ENV_STEPS_SAMPLED_LIFETIME), default=0
        )
        group.sync_env_runner_states(config=self.config, env_steps_sampled=lifetime)
        if not remote:
            self.env_runner._moments.fold()
        return {
            "steps": sum(result["steps"] for result in results),
            "offered": sum(result["offered"] for result in results),
            "env_runners": self.metrics.peek(ENV_RUNNER_RESULTS),
        }
