"""An evaluation plays whole episodes as a plain loop would, and leaves no trace in the
training.
"""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

from rlhp.config.schema import EnvConfig, RunConfig
from rlhp.envs.make import make_env
from rlhp.learn.evaluate import Evaluation, evaluate, policy_act, random_act
from rlhp.rollout.normalization import RunningMoments
from rlhp.types import Array
from tests.environments import LENGTH
from tests.small_runs import env_runner, small

DRIFT = EnvConfig(id="tests.environments:Drift", max_episode_steps=LENGTH)
EARLY = EnvConfig(
    id="tests.environments:Drift", kwargs={"ends_early": True}, max_episode_steps=LENGTH
)


def to_the_right(vector: Any) -> Any:
    """Always the same action, so that a plain loop can repeat it."""
    return lambda obs: np.tile(np.array([1.0, 0.25], np.float32), (len(obs), 1))


def plain(env: gym.Env[Any, Any], *, seed: int, episodes: int) -> list[tuple[float, int]]:
    """(return, length) of these episodes, one step at a time."""
    played = []
    for number in range(episodes):
        env.reset(seed=seed if number == 0 else None)
        total, steps, done = 0.0, 0, False
        while not done:
            _, reward, terminated, truncated, _ = env.step(np.array([1.0, 0.25], np.float32))
            total, steps, done = total + float(reward), steps + 1, terminated or truncated
        played.append((total, steps))
    return played


@pytest.mark.parametrize("config", [DRIFT, EARLY], ids=["equal lengths", "variable length"])
@pytest.mark.parametrize("episodes", [1, 7, 10, 23])
def test_returns_and_lengths_are_those_of_a_plain_loop(config: EnvConfig, episodes: int) -> None:
    played = evaluate(to_the_right, config, episodes=episodes, seed=4)
    count = min(episodes, 10)
    seeds = np.random.default_rng([4, 11]).integers(2**31 - 1, size=count)
    expected = []
    for index, seed in enumerate(seeds):
        quota = episodes // count + (index < episodes % count)
        expected += plain(make_env(config), seed=int(seed), episodes=quota)
    assert len(played.returns) == episodes
    assert played.returns == pytest.approx([total for total, _ in expected])
    assert list(played.lengths) == [steps for _, steps in expected]


def test_the_summary_is_mean_and_standard_deviation_over_episodes() -> None:
    played = Evaluation(returns=(1.0, 3.0, 8.0), lengths=(5, 5, 5))
    assert played.mean == 4.0
    assert played.std == pytest.approx(np.std([1.0, 3.0, 8.0]))


def test_the_random_baseline_is_repeatable() -> None:
    once, again, other = (evaluate(random_act, DRIFT, episodes=3, seed=seed) for seed in (0, 0, 1))
    assert once == again
    assert once != other


def policy(config: RunConfig) -> tuple[Any, RunningMoments]:
    """A policy that was never trained, and observation statistics that were."""
    runner, _, _ = env_runner(config)
    runner.sample(num_timesteps=60, explore=True)
    runner._moments.fold()
    return runner.module, runner._moments


@pytest.mark.parametrize("explore", [False, True])
def test_evaluating_moves_no_random_stream_and_is_repeatable(explore: bool) -> None:
    module, moments = policy(small())
    torch.manual_seed(1)
    np.random.seed(1)
    before = torch.random.get_rng_state(), np.random.get_state(legacy=False)
    make = policy_act(module, moments, explore=explore, seed=3)
    once, again = (evaluate(make, DRIFT, episodes=3, seed=3) for _ in range(2))
    assert once == again
    assert torch.equal(torch.random.get_rng_state(), before[0])
    np.testing.assert_equal(np.random.get_state(legacy=False), before[1])
    other = evaluate(
        policy_act(module, moments, explore=explore, seed=4), DRIFT, episodes=3, seed=3
    )
    assert (other != once) == explore


def test_without_exploration_the_most_likely_action_is_taken_on_normalized_observations() -> None:
    module, moments = policy(small())
    env = make_env(DRIFT)
    vector = gym.vector.SyncVectorEnv([lambda: make_env(DRIFT)])
    act = policy_act(module, moments, explore=False, seed=0)(vector)
    obs: Array = np.array([[0.3, -0.2, 0.5], [1.0, 1.0, 1.0]], np.float32)
    with torch.inference_mode():
        logits = module.forward_inference({"obs": torch.from_numpy(moments.normalize(obs))})[
            "action_dist_inputs"
        ]
    mean = logits.numpy()[:, :2]
    np.testing.assert_allclose(act(obs), np.clip(-0.5 + (mean + 1), -0.5, 1.5), rtol=1e-6)
    assert all(env.action_space.contains(action) for action in act(obs))
    vector.close()


@pytest.mark.parametrize("explore", [False, True])
@pytest.mark.parametrize(
    "env",
    [
        {"kwargs": {"discrete": True}},
        {"id": "tests.environments:TwoWheels"},
    ],
    ids=["discrete", "dict and multi-discrete"],
)
def test_every_kind_of_action_can_be_evaluated(env: dict[str, Any], explore: bool) -> None:
    config = small(env=env)
    module, moments = policy(config)
    played = evaluate(
        policy_act(module, moments, explore=explore, seed=0), config.env, episodes=2, seed=0
    )
    assert played.lengths == (LENGTH, LENGTH)
