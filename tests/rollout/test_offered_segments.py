"""Segments that an env runner offers: what the learner got and the environment
executed, and no more than may be.
"""

from __future__ import annotations

import numpy as np

from rlhp.envs.make import make_env
from rlhp.rollout.acting import executed_actions
from tests.environments import LENGTH
from tests.rollout.runner_parts import DRIFT, ENVS, RAW, by_episode, example, finished, joined
from tests.small_runs import env_runner, small


def test_a_segment_shows_the_learners_predicted_rewards_bit_for_bit() -> None:
    runner, _, basket = env_runner(example("variable length"))
    chunks = by_episode(
        [episode for _ in range(6) for episode in runner.sample(num_timesteps=33, explore=True)]
    )
    assert len(basket.segments) > 20
    assert any(len(chunks[segment.episode]) > 1 for segment in basket.segments), (
        "some span several fragments"
    )
    for segment in basket.segments:
        steps = slice(segment.start, segment.start + segment.length)
        assert segment.predicted_reward is not None
        assert (
            segment.predicted_reward.tobytes()
            == joined(chunks[segment.episode], "rewards")[steps].tobytes()
        )
        executed = executed_actions(
            joined(chunks[segment.episode], "actions")[steps], runner.env.single_action_space
        )
        np.testing.assert_array_equal(segment.actions, executed)


def test_segments_hold_executed_actions_and_every_leaf_in_its_own_type() -> None:
    config = example("dict and multi-discrete")
    runner, _, basket = env_runner(config)
    runner.sample(num_timesteps=100, explore=True)
    env = make_env(config.env)
    for segment in basket.segments:
        assert segment.obs["place"].dtype == np.float64
        assert segment.obs["phase"].shape == (segment.length + 1,)
        assert all(env.action_space.contains(action) for action in segment.actions)
        moved = np.diff(segment.obs["place"], axis=0)
        np.testing.assert_allclose(moved[:, 0], 0.1 * segment.actions[:, 0], atol=1e-9)


def test_simulator_state_belongs_to_the_observation_beside_it() -> None:
    config = small(env={"id": "InvertedPendulum-v5", "max_episode_steps": 25}, learner=RAW)
    runner, _, basket = env_runner(config)
    runner.sample(num_timesteps=150, explore=True)
    assert basket.segments
    for segment in basket.segments:
        assert segment.state_kind == "mujoco"
        assert segment.state is not None
        np.testing.assert_array_equal(segment.state[:, :4], segment.obs[""][:-1])  # qpos and qvel
        assert (np.diff(segment.state[:, 4]) > 0).all(), "time goes on within a segment"


def test_warm_up_offers_unpriced_segments_and_makes_nothing_to_learn_from() -> None:
    runner, source, basket = env_runner(small(env=DRIFT, rollout={"segments_per_fragment": 1}))
    result = runner.warm_up(100)
    assert 100 <= result["steps"] < 100 + ENVS
    assert source.obs == [], "nobody is asked for a reward"
    assert len(basket.segments) > 10, "all of them, whatever segments_per_fragment says"
    assert all(segment.predicted_reward is None for segment in basket.segments)


def test_an_episode_that_began_in_the_warm_up_has_no_predicted_return() -> None:
    runner, _, _ = env_runner(small(env=DRIFT))
    runner.warm_up(ENVS * (LENGTH - 2))
    runner.sample(num_timesteps=ENVS * (LENGTH + 5), explore=True)
    ended = finished(runner)
    assert len(ended) == 2 * ENVS
    assert sum(np.isnan(predicted) for _, predicted, _ in ended) == ENVS
    assert all(np.isfinite(true) for true, _, _ in ended)


def test_at_most_the_configured_number_of_segments_is_offered_and_the_rest_is_counted() -> None:
    runner, _, basket = env_runner(small(env=DRIFT, rollout={"segments_per_fragment": 2}))
    for _ in range(3):
        runner.sample(num_timesteps=100, explore=True)
    assert len(basket.segments) == 6
    basket.full = True
    runner.sample(num_timesteps=100, explore=True)
    assert runner.metrics.peek("segments_offered") == 6
    assert runner.metrics.peek("segments_dropped") > 20


def test_short_episodes_give_short_segments_that_are_counted() -> None:
    runner, _, basket = env_runner(example("one step"))
    runner.sample(num_timesteps=30, explore=True)
    assert {segment.length for segment in basket.segments} == {1}
    assert runner.metrics.peek("segments_short") == len(basket.segments)


def test_without_leave_no_segment_carries_the_env_reward() -> None:
    for share in (True, False):
        runner, _, basket = env_runner(small(env=DRIFT, labels={"share_env_reward": share}))
        runner.sample(num_timesteps=60, explore=True)
        assert {segment.env_reward is not None for segment in basket.segments} == {share}


def test_twice_the_same_seed_is_twice_the_same_rollout_and_another_seed_is_another() -> None:
    found = []
    for seed in (0, 0, 1):
        config = small(env=DRIFT, seed=seed)
        runner, _, basket = env_runner(config)
        runner.sample(num_timesteps=60, explore=True)
        found.append([(segment.id, segment.obs[""].tobytes()) for segment in basket.segments])
    assert found[0] == found[1]
    assert {obs for _, obs in found[0]}.isdisjoint({obs for _, obs in found[2]})
