"""MovingDot: pixels, a known best return, and a vector implementation that is the same
world.
"""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from rlhp.config.schema import EnvConfig, RunConfig
from rlhp.envs.make import make_env, make_vector_env, probe
from rlhp.envs.moving_dot import DOT, MovingDot, MovingDots, best_return, first_distance
from rlhp.rollout.context import RunnerContext
from rlhp.types import Array

DOT_ENV = EnvConfig(id="MovingDot-v0")


def place(picture: Array) -> Array:
    """Row and column of the dot in the newest frame [S, S]."""
    assert (picture == 255).sum() == DOT * DOT
    found: Array = np.argwhere(picture == 255)[0]
    return found


def way_home(picture: Array) -> int:
    """The action that a person would take, from what is to be seen."""
    down, right = (picture.shape[0] - DOT) // 2 - place(picture)
    if down:
        return 2 if down > 0 else 1
    return 0 if not right else 4 if right > 0 else 3


def test_it_keeps_to_gymnasiums_rules() -> None:
    check_env(MovingDot(), skip_render_check=True)


@pytest.mark.parametrize("size", [12, 24, 33])
def test_going_straight_to_the_middle_is_worth_the_best_return_whatever_the_seed(size: int) -> None:
    env = make_env(EnvConfig(id="MovingDot-v0", kwargs={"size": size}))
    for seed in range(5):
        obs, _ = env.reset(seed=seed)
        total, done = 0.0, False
        while not done:
            obs, reward, _, done, _ = env.step(way_home(obs[-1]))
            total += float(reward)
        assert total == pytest.approx(best_return(size))


def test_rewards_are_how_close_the_dot_is() -> None:
    env = make_env(DOT_ENV)
    rng = np.random.default_rng(0)
    obs, _ = env.reset(seed=3)
    middle = (24 - DOT) // 2
    for _ in range(50):
        old = obs
        obs, reward, *_ = env.step(int(rng.integers(5)))
        np.testing.assert_array_equal(obs[:-1], old[1:])
        assert np.abs(place(obs[-1]) - place(old[-1])).sum() <= 1
        assert reward == pytest.approx(max(0, 1 - np.abs(place(obs[-1]) - middle).sum() / 11))


def test_many_step_as_one_does() -> None:
    """The vector implementation against single environments that are put where its dots
    are.
    """
    vector: Any = MovingDots(4, max_episode_steps=7)
    singles = [MovingDot() for _ in range(4)]
    obs, _ = vector.reset(seed=1)
    rng = np.random.default_rng(2)
    was_done = np.ones(4, bool)
    for step in range(30):
        for index in np.flatnonzero(was_done).tolist():  # a new episode: the same frame throughout
            assert (obs[index] == obs[index][-1]).all()
            assert np.abs(place(obs[index][-1]) - 11).sum() == first_distance() == 11
            singles[index].reset(seed=0)
            singles[index]._dots.place[0] = place(obs[index][-1])
            singles[index]._dots.frames[0] = obs[index]
        actions = rng.integers(5, size=4)
        done_before = (step % 8) == 7
        obs, reward, terminated, truncated, _ = vector.step(actions)
        assert not terminated.any()
        assert truncated.tolist() == [step % 8 == 6] * 4
        if done_before:
            assert (reward == 0).all()
        else:
            for index, single in enumerate(singles):
                alone, pay, *_ = single.step(actions[index])
                np.testing.assert_array_equal(obs[index], alone)
                assert reward[index] == pay
        was_done = np.full(4, done_before)


def test_its_own_vector_implementation_is_used_and_its_pictures_stay_pictures() -> None:
    facts = probe(DOT_ENV)
    assert facts.native_vector
    assert not facts.variable_length_possible
    assert (facts.episode_limit, facts.spaces.obs.picture) == (50, (2, 24, 24))
    for vectorize in ("native", "sync"):
        vector: Any = make_vector_env(DOT_ENV, num_envs=3, vectorize=vectorize)
        obs, _ = vector.reset(seed=[0, 1, 2])
        assert (obs.shape, obs.dtype) == ((3, 2, 24, 24), np.uint8)
        vector.close()


def test_a_state_is_all_that_drawing_needs() -> None:
    env = gym.make("MovingDot-v0", render_mode="rgb_array")
    obs, _ = env.reset(seed=4)
    inner: Any = env.unwrapped
    drawn: Any = env.render()
    state = inner.rlhp_state()
    env.step(1)
    env.step(3)
    inner.rlhp_set_state(state)
    np.testing.assert_array_equal(env.render(), drawn)
    row, column = place(obs[-1])
    assert (np.asarray(drawn)[7 * row + 3, 7 * column + 3] == 255).all()


def test_people_see_it_drawn_from_states_which_only_single_environments_tell() -> None:
    settings = {"env": DOT_ENV.model_dump(), "name": "dot", "query": {"segment_length": 10}}
    ways = {}
    for source in ("oracle", "human"):
        config = RunConfig.model_validate({**settings, "labels": {"source": source}})
        ways[source] = RunnerContext.of(config, probe(DOT_ENV).spaces).vectorize
    assert ways == {"oracle": "auto", "human": "sync"}
