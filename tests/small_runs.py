"""Runs as small as they can be, and the parts of one, for the tests of the rollout, the
learner and the program.
"""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np

from rlhp.config.schema import RunConfig
from rlhp.envs.make import make_env, probe
from rlhp.envs.spaces import Spaces
from rlhp.learn.ppo.rllib import algorithm_config
from rlhp.reward.fit import Fitter
from rlhp.reward.service import RewardModel
from rlhp.rollout.runner import ColumnarEnvRunner
from rlhp.types import Array, Segment
from tests.environments import LENGTH

SMALL: dict[str, Any] = {
    "name": "small",
    "env": {"id": "tests.environments:Drift", "max_episode_steps": LENGTH},
    "rollout": {"num_env_runners": 0, "num_envs_per_env_runner": 3, "segments_per_fragment": 1000},
    "labels": {
        "budget": 20,
        "initial_share": 0.25,
        "teacher": {"name": "tests.environments:ByObservation"},
    },
    "query": {"segment_length": 5, "pool": 100},
    "reward": {
        "members": 2,
        "hidden": [8],
        "pretrain_epochs": 2,
        "batch_size": 8,
        "reservoir": 200,
        "publish_every_steps": 60,
        "label_uses_per_step": 0.5,
    },
    "learner": {
        "hidden": [8],
        "train_batch_size": 60,
        "minibatch_size": 30,
        "num_epochs": 2,
        "total_env_steps": 480,
    },
    "evaluation": {"episodes": 2},
    "tensorboard": False,
}


def small(**changes: Any) -> RunConfig:
    """The small run with some sections changed: a mapping is merged into its section,
    anything else replaces it.
    """
    settings = dict(SMALL)
    for name, change in changes.items():
        settings[name] = (
            {**settings[name], **change}
            if isinstance(change, dict) and name in settings
            else change
        )
    return RunConfig.model_validate(settings)


def action_space(config: RunConfig) -> gym.Space[Any]:
    """What the environment of the run takes."""
    env = make_env(config.env)
    env.close()  # type: ignore[no-untyped-call]
    return env.action_space


def priced(config: RunConfig, spaces: Spaces, *, version: int = 1, rows: int = 100) -> RewardModel:
    """A reward model that was never fitted, serving `version`."""
    fitter = Fitter(config.reward, spaces=spaces, seed=config.seed + version)
    rng = np.random.default_rng(version)
    fitter.observe(
        (100 * rng.normal(size=(rows, *spaces.obs.row_shape))).astype(np.uint8)
        if spaces.obs.picture
        else rng.normal(size=(rows, spaces.obs.size)).astype(np.float32),
        rng.normal(size=(rows, spaces.action.size)).astype(np.float32),
    )
    weights = fitter.publish(version)
    return RewardModel(spaces, newest=lambda: weights)


class Watched:
    """A reward model that remembers what it was asked about and what it said."""

    def __init__(self, model: RewardModel) -> None:
        self.model = model
        self.obs: list[Array] = []
        self.actions: list[Array] = []
        self.rewards: list[Array] = []

    def predict(
        self, obs: Array, actions: Array, *, version: int | None = None
    ) -> tuple[Array, int]:
        rewards, used = self.model.predict(obs, actions, version=version)
        self.obs.append(np.array(obs))
        self.actions.append(np.array(actions))
        self.rewards.append(np.array(rewards))
        return rewards, used

    def score(self, obs: Array, encoded: Array) -> tuple[Array, int]:
        return self.model.score(obs, encoded)


class Basket:
    """Takes every segment, or none while it is `full`."""

    def __init__(self) -> None:
        self.segments: list[Segment] = []
        self.full = False

    def offer(self, segments: list[Segment]) -> int:
        if self.full:
            return 0
        self.segments += segments
        return len(segments)


def env_runner(config: RunConfig, *, version: int = 1) -> tuple[ColumnarEnvRunner, Watched, Basket]:
    """A local env runner with its edges: an untrained reward model, and a basket for
    segments.
    """
    facts = probe(config.env)
    runner = ColumnarEnvRunner(
        config=algorithm_config(config, facts.spaces, action_space=action_space(config)),
        worker_index=0,
    )
    source, basket = Watched(priced(config, facts.spaces, version=version)), Basket()
    runner.reward_source, runner.segment_sink = source, basket
    return runner, source, basket
