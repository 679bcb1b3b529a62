"""Example runs for an env runner, RLlib's own runner beside it, and how to read what
they sampled.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import gymnasium as gym
import numpy as np
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from ray.tune.registry import register_env

from rlhp.config.schema import RunConfig
from rlhp.envs.make import make_env
from rlhp.rollout.runner import EPISODES, ColumnarEnvRunner
from rlhp.types import Array
from tests.environments import LENGTH
from tests.small_runs import env_runner, small

ENVS = 3
RAW = {"normalize_obs": False}
DRIFT = {"id": "tests.environments:Drift", "max_episode_steps": LENGTH}
EXAMPLES = {
    "box": DRIFT,
    "discrete": {**DRIFT, "kwargs": {"discrete": True}},
    "dict and multi-discrete": {**DRIFT, "id": "tests.environments:TwoWheels"},
    "variable length": {**DRIFT, "kwargs": {"ends_early": True}},
    "one step": {**DRIFT, "id": "tests.envs.example_envs:Countdown", "kwargs": {"steps": 1}},
}


def example(name: str, **changes: Any) -> RunConfig:
    """A small run of the example environment whose policy sees observations as they
    are.
    """
    return small(env=EXAMPLES[name], learner=RAW, **changes)


def by_episode(episodes: list[SingleAgentEpisode]) -> dict[str, list[SingleAgentEpisode]]:
    """The chunks of every episode, in the order of sampling."""
    chunks: dict[str, list[SingleAgentEpisode]] = defaultdict(list)
    for episode in episodes:
        chunks[episode.id_].append(episode)
    return chunks


def joined(chunks: list[SingleAgentEpisode], column: str) -> Array:
    """One column of an episode over all its chunks."""
    get = {"actions": "get_actions", "rewards": "get_rewards"}[column]
    whole: Array = np.concatenate([getattr(chunk, get)() for chunk in chunks])
    return whole


def place_of(episode_id: str) -> tuple[int, int]:
    """Environment and running number of an episode."""
    _, env, number = episode_id.rsplit("-", 2)
    return int(env), int(number)


def finished(runner: ColumnarEnvRunner) -> list[tuple[float, float, int]]:
    """(true return, predicted return, length) of every episode that ended, in the order
    of ending.
    """
    return [tuple(item) for item in runner.metrics.peek(EPISODES)]


def stock_runner(config: RunConfig) -> SingleAgentEnvRunner:
    """RLlib's own runner with the same network and environment."""
    register_env("stock", lambda _: make_env(config.env))
    # RLlib registers it again, and Gymnasium warns
    gym.registry.pop("rllib-single-agent-env-v0", None)
    ours = env_runner(config)[0].config
    stock = (
        PPOConfig()
        .api_stack(enable_rl_module_and_learner=True, enable_env_runner_and_connector_v2=True)
        .environment("stock")
        .env_runners(
            num_env_runners=0, num_envs_per_env_runner=ENVS, batch_mode="truncate_episodes"
        )
        .rl_module(model_config=ours._model_config)
    )
    return SingleAgentEnvRunner(config=stock, worker_index=0)
