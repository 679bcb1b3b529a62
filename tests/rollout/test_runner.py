"""The columnar env runner does what a plain loop does, and what RLlib's own runner
does, only in columns.
"""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import ray
import torch
from gymnasium.envs.classic_control.cartpole import CartPoleVectorEnv
from ray.rllib.core.columns import Columns

from rlhp.envs.make import make_env, probe
from rlhp.learn.ppo.rllib import algorithm_config
from rlhp.rollout.acting import executed_actions
from rlhp.rollout.runner import ColumnarEnvRunner
from tests.environments import LENGTH
from tests.rollout.runner_parts import (
    DRIFT,
    ENVS,
    EXAMPLES,
    RAW,
    by_episode,
    example,
    finished,
    joined,
    place_of,
    stock_runner,
)
from tests.small_runs import action_space, env_runner, small


@pytest.mark.parametrize("explore", [True, False])
def test_until_the_first_reset_it_reproduces_rllibs_own_runner(explore: bool) -> None:
    config = small(env={**DRIFT, "kwargs": {"fixed_start": True}}, learner=RAW)
    ours, _, _ = env_runner(config)
    stock = stock_runner(config)
    ours.module.set_state(stock.module.get_state())
    found = []
    for runner in (stock, ours):
        torch.manual_seed(3)
        found.append(runner.sample(num_timesteps=ENVS * (LENGTH - 1), explore=explore))
    assert len(found[0]) == len(found[1]) == ENVS
    for theirs, mine in zip(*found, strict=True):
        assert len(theirs) == len(mine) == LENGTH - 1
        np.testing.assert_allclose(
            mine.get_observations(), theirs.get_observations(), rtol=1e-4, atol=1e-6
        )
        np.testing.assert_allclose(mine.get_actions(), theirs.get_actions(), rtol=1e-4, atol=1e-6)
        names = (
            (Columns.ACTION_LOGP, Columns.ACTION_DIST_INPUTS)
            if explore
            else (Columns.ACTION_DIST_INPUTS,)
        )
        for name in names:
            np.testing.assert_allclose(
                mine.get_extra_model_outputs(name),
                theirs.get_extra_model_outputs(name),
                rtol=1e-4,
                atol=1e-5,
            )


@pytest.mark.parametrize("name", EXAMPLES)
def test_observations_returns_and_ends_are_those_of_a_plain_loop(name: str) -> None:
    config = example(name)
    runner, _, _ = env_runner(config)
    seeds = np.random.default_rng([runner._seed, 0]).integers(2**31 - 1, size=ENVS)
    episodes = [
        episode for _ in range(4) for episode in runner.sample(num_timesteps=40, explore=True)
    ]
    chunks = by_episode(episodes)
    spaces = probe(config.env).spaces
    returns: dict[str, float] = {}
    for env_index in range(ENVS):
        env = make_env(config.env)
        seed: int | None = int(seeds[env_index])
        for episode_id in sorted(
            (id_ for id_ in chunks if place_of(id_)[0] == env_index), key=place_of
        ):
            obs, _ = env.reset(seed=seed)
            seed = None
            returns[episode_id] = 0.0
            for chunk in chunks[episode_id]:
                executed = executed_actions(chunk.get_actions(), env.action_space)
                for step, action in enumerate(executed):
                    expected = np.asarray(spaces.obs.flatten_one(obs), np.float32)
                    np.testing.assert_array_equal(chunk.get_observations(step), expected)
                    obs, reward, terminated, truncated, _ = env.step(action)
                    returns[episode_id] += float(np.float32(reward))
                last = chunk is chunks[episode_id][-1]
                np.testing.assert_array_equal(
                    chunk.get_observations(-1), np.asarray(spaces.obs.flatten_one(obs), np.float32)
                )
                assert last or not chunk.is_done, "only the last chunk of an episode may be done"
            assert (terminated, truncated) == (chunk.is_terminated, chunk.is_truncated)
    done = {id_ for id_ in chunks if chunks[id_][-1].is_done}
    assert len(done) > 3
    true_returns = sorted(true for true, _, _ in finished(runner))
    assert true_returns == pytest.approx(sorted(returns[id_] for id_ in done))


@pytest.mark.parametrize("name", EXAMPLES)
def test_chunks_of_one_episode_follow_each_other_and_none_is_empty(name: str) -> None:
    runner, _, _ = env_runner(example(name))
    chunks = by_episode(
        [episode for _ in range(5) for episode in runner.sample(num_timesteps=33, explore=True)]
    )
    lengths = sorted(length for _, _, length in finished(runner))
    for parts in chunks.values():
        at = 0
        for part in parts:
            assert part.t_started == at
            assert len(part) > 0
            at += len(part)
        assert at <= LENGTH
    assert lengths == sorted(sum(map(len, parts)) for parts in chunks.values() if parts[-1].is_done)
    for env in range(ENVS):
        numbers = sorted(number for index, number in map(place_of, chunks) if index == env)
        assert numbers == list(range(len(numbers)))


@pytest.mark.parametrize("wanted", [1, 3, 7, 60, 100])
def test_at_least_the_wanted_number_of_real_steps_is_taken_and_resets_are_not_counted(
    wanted: int,
) -> None:
    runner, source, _ = env_runner(example("box"))
    for _ in range(4):
        before = runner.metrics.peek("num_env_steps_sampled_lifetime", default=0)
        episodes = runner.sample(num_timesteps=wanted, explore=True)
        steps = sum(map(len, episodes))
        assert wanted <= steps < wanted + ENVS
        assert runner.metrics.peek("num_env_steps_sampled_lifetime") - before == steps
    rows = sum(obs.shape[0] * obs.shape[1] for obs in source.obs)
    assert rows >= runner.metrics.peek("num_env_steps_sampled_lifetime")


def test_the_learner_gets_exactly_what_the_reward_model_said() -> None:
    runner, source, _ = env_runner(example("variable length"))
    for _ in range(4):
        chunks = by_episode(runner.sample(num_timesteps=40, explore=True))
        said = {value.tobytes() for value in source.rewards[-1].reshape(-1)}
        learned = np.concatenate([joined(parts, "rewards") for parts in chunks.values()])
        assert learned.dtype == np.float32
        assert {value.tobytes() for value in learned} <= said
    assert runner.metrics.peek("reward_version") == 1


def test_sampled_gaussians_leave_the_bounds_and_executed_actions_do_not() -> None:
    runner, source, _ = env_runner(example("box"))
    sampled = np.concatenate(
        [episode.get_actions() for episode in runner.sample(num_timesteps=300, explore=True)]
    )
    executed = np.concatenate([actions.reshape(-1, 2) for actions in source.actions])
    assert np.abs(sampled).max() > 1
    assert executed.min() == -0.5
    assert executed.max() == 1.5


def test_the_reward_model_sees_raw_observations_whatever_the_policy_sees() -> None:
    runner, source, _ = env_runner(small(env=DRIFT))
    for _ in range(3):
        episodes = runner.sample(num_timesteps=60, explore=True)
    raw = source.obs[-1].reshape(-1, 3)
    assert raw[:, 2].min() >= 0, "the share of time left, as the environment shows it"
    assert raw[:, 2].max() <= 1
    seen = np.concatenate([episode.get_observations() for episode in episodes])
    assert seen[:, 2].min() < -0.5, "normalized"
    first, later = source.model.predict(source.obs[-1], source.actions[-1])
    assert (first.tobytes(), later) == (source.rewards[-1].tobytes(), 1)


def test_the_vector_environment_of_cartpole_itself_obeys_the_same_rules() -> None:
    config = small(env={"id": "CartPole-v1"}, learner=RAW)
    runner, _, basket = env_runner(config)
    assert isinstance(runner.env.unwrapped, CartPoleVectorEnv)
    chunks = by_episode(
        [episode for _ in range(5) for episode in runner.sample(num_timesteps=90, explore=True)]
    )
    plain: Any = gym.make("CartPole-v1").unwrapped
    plain.reset(seed=0)
    for parts in chunks.values():
        assert np.abs(parts[0].get_observations(0)).max() <= 0.05, (
            "an episode begins where a reset begins"
        )
        for part in parts:
            obs, actions = part.get_observations(), part.get_actions()
            for step, action in enumerate(actions):
                plain.state, plain.steps_beyond_terminated = obs[step], None
                after, _, terminated, _, _ = plain.step(int(action))
                np.testing.assert_allclose(obs[step + 1], after, atol=1e-5)
                assert terminated == (part.is_terminated and step == len(actions) - 1)
    ended = finished(runner)
    assert len(ended) > 10
    assert all(true == length for true, _, length in ended), "CartPole pays one per step"
    assert all(
        segment.state is None and segment.state_kind == "none" for segment in basket.segments
    )


def test_the_control_arm_learns_from_scaled_env_rewards_and_offers_nothing() -> None:
    config = small(env=DRIFT, labels={"source": "none"}, learner=RAW)
    runner, source, basket = env_runner(config)
    first = runner.sample(num_timesteps=60, explore=True)
    second = runner.sample(num_timesteps=60, explore=True)
    paid = -np.linalg.norm(first[0].get_observations(slice(1, None))[:, :2], axis=1)
    own = first[0].get_rewards() / paid
    assert own == pytest.approx(own[0], rel=1e-4), "by its own, the first time"
    scale = second[0].get_rewards() / -np.linalg.norm(
        second[0].get_observations(slice(1, None))[:, :2], axis=1
    )
    assert scale == pytest.approx(scale[0], rel=1e-4)
    std = config.reward.target_std / runner._moments.known["reward"].std()[0]
    assert scale[0] == pytest.approx(std, rel=1e-4), "as predicted rewards are"
    assert source.obs == []
    assert basket.segments == []


def test_the_control_reward_is_centered_where_no_episode_can_end_early() -> None:
    for hide, mean in ((False, -0.1), (True, 0.0)):
        config = small(
            env={**DRIFT, "hide_termination": hide}, labels={"source": "none"}, learner=RAW
        )
        runner, _, _ = env_runner(config)
        rewards = np.concatenate(
            [each.get_rewards() for each in runner.sample(num_timesteps=60, explore=True)]
        )
        assert rewards.std() == pytest.approx(0.1, rel=1e-4)
        assert rewards.mean() < mean if mean else rewards.mean() == pytest.approx(0, abs=1e-5)


@pytest.mark.usefixtures("ray_session")
def test_an_env_runner_that_was_restarted_plays_other_episodes() -> None:
    config = small(env=DRIFT, labels={"source": "none"}, rollout={"num_env_runners": 1})
    settings = algorithm_config(config, probe(config.env).spaces, action_space=action_space(config))
    remote = ray.remote(num_cpus=0, max_restarts=1, max_task_retries=1)(ColumnarEnvRunner)

    def played(runner: Any) -> tuple[bytes, bytes]:
        (episode, *_) = ray.get(runner.sample.remote(num_timesteps=30, explore=True))
        return episode.get_observations(0).tobytes(), episode.get_actions().tobytes()

    first, twin = (remote.remote(config=settings, worker_index=1) for _ in range(2))
    before = played(first)
    assert played(twin) == before, "by the seed of the run"
    ray.kill(first, no_restart=False)
    after = played(first)
    assert after[0] != before[0]
    assert after[1] != before[1]
    for runner in (first, twin):
        ray.kill(runner)


@pytest.mark.parametrize(
    "wish", [{"num_episodes": 2}, {"num_timesteps": 5, "random_actions": True}]
)
def test_what_it_does_not_sample_is_refused(wish: dict[str, Any]) -> None:
    runner, _, _ = env_runner(small(env=DRIFT))
    with pytest.raises(
        ValueError, match="this env runner collects fragments of env steps; whole episodes, random"
    ):
        runner.sample(**wish)


def test_rllibs_metrics_are_there_under_its_names() -> None:
    runner, _, _ = env_runner(small(env=DRIFT))
    runner.sample(num_timesteps=130, explore=True)
    true = [value for value, _, _ in finished(runner)]
    assert runner.metrics.peek("episode_return_mean") == pytest.approx(np.mean(true))
    assert runner.metrics.peek("episode_len_mean") == LENGTH
    assert runner.metrics.peek("num_episodes") == len(true)
    assert runner.metrics.peek("predicted_mean") == pytest.approx(0, abs=5)
    assert 0 < runner.metrics.peek("predicted_std") < 10
    assert set(runner.get_metrics()) >= {
        "num_env_steps_sampled",
        "num_env_steps_sampled_lifetime",
        "predict_wait_ms",
    }


@pytest.mark.parametrize("name", ["box", "discrete", "dict and multi-discrete"])
def test_log_probabilities_of_a_whole_fragment_are_those_of_its_rows_bit_for_bit(name: str) -> None:
    runner, _, _ = env_runner(example(name))
    fragment = runner._collect(100, explore=True)
    assert np.isfinite(fragment.logp).all()
    for row in range(fragment.logp.shape[1]):
        one = slice(row, row + 1)
        alone = runner._logp(fragment.dist_inputs[:, one], fragment.sampled[:, one], explore=True)
        assert alone.tobytes() == fragment.logp[:, one].tobytes()


def test_executed_actions_are_the_same_for_a_rollout_and_an_evaluation() -> None:
    box = gym.spaces.Box(np.array([-2.0, 0.0]), np.array([2.0, 10.0]), dtype=np.float64)
    scaled = executed_actions(np.array([[-1.0, -1.0], [0.0, 0.5], [7.0, -9.0]]), box)
    assert scaled.tolist() == [[-2.0, 0.0], [0.0, 7.5], [2.0, 0.0]]
    assert scaled.dtype == np.float64
    assert executed_actions(np.array([0, 3]), gym.spaces.Discrete(4, start=-1)).tolist() == [-1, 2]
    several = gym.spaces.MultiDiscrete([3, 2], start=[5, -2])
    assert executed_actions(np.array([[0, 1], [2, 0]]), several).tolist() == [[5, -1], [7, -2]]
    with pytest.raises(TypeError, match="no such action space: MultiBinary"):
        executed_actions(np.zeros((1, 2)), gym.spaces.MultiBinary(2))


def test_the_action_space_of_a_small_run_is_that_of_its_environment() -> None:
    assert action_space(example("discrete")) == gym.spaces.Discrete(4, start=2)
