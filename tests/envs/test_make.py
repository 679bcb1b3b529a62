"""Environments by name: what is made, what is refused and in which words."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.wrappers import TimeLimit

from rlhp.config.schema import EnvConfig
from rlhp.envs.make import make_env, probe, variable_length_warning
from rlhp.envs.spaces import describe
from rlhp.envs.states import sim_state, state_kind

OWN = "tests.envs.example_envs:"


def config(env_id: str, **keys: Any) -> EnvConfig:
    return EnvConfig(id=env_id, **keys)


def refusal(env_id: str, **keys: Any) -> str:
    with pytest.raises(ValueError, match=r"env\.|a") as caught:
        probe(config(env_id, **keys))
    return str(caught.value)


# One environment


def test_an_environment_keeps_its_own_time_limit_and_its_ends() -> None:
    env = make_env(config("CartPole-v1"))
    assert isinstance(env, TimeLimit)
    assert env._max_episode_steps == 500
    env.reset(seed=0)
    assert any(env.step(1)[2] for _ in range(20)), "always pushing to one side topples the pole"


def test_the_time_limit_of_the_config_wins() -> None:
    for env_id in ("Pendulum-v1", OWN + "limited"):
        kwargs = {"steps": 9} if env_id.startswith(OWN) else {}
        env = make_env(config(env_id, max_episode_steps=4, kwargs=kwargs))
        env.reset(seed=0)
        assert [env.step(env.action_space.sample())[3] for _ in range(4)] == [
            False,
            False,
            False,
            True,
        ]


def test_a_hidden_end_leaves_one_episode_as_long_as_the_limit() -> None:
    env = make_env(
        config("CartPole-v1", hide_termination=True, termination_penalty=5, max_episode_steps=60)
    )
    assert isinstance(env, TimeLimit), (
        "the time limit is outermost, or hidden resets would restart it"
    )
    env.reset(seed=0)
    steps = [env.step(1) for _ in range(60)]
    assert not any(terminated for _, _, terminated, *_ in steps)
    assert [truncated for *_, truncated, _ in steps] == [False] * 59 + [True]
    assert sum(env_reward == -4 for _, env_reward, *_ in steps) == 6, "a fall about every ten steps"


def test_a_factory_s_time_limit_counts_over_hidden_ends() -> None:
    env = make_env(config(OWN + "limited", hide_termination=True, kwargs={"steps": 2, "limit": 5}))
    env.reset(seed=0)
    steps = [env.step(0) for _ in range(5)]
    assert [truncated for *_, truncated, _ in steps] == [False] * 4 + [True]
    assert [float(obs[0]) for obs, *_ in steps] == [1, 2, 1, 2, 1]


def test_a_known_task_may_be_shorter_than_in_the_paper() -> None:
    facts = probe(config("Hopper-v5", hide_termination=True, max_episode_steps=300))
    assert (facts.episode_limit, facts.known_task, facts.fps) == (300, True, 40)


def test_a_render_mode_reaches_ids_and_factories() -> None:
    assert make_env(config("Pendulum-v1"), render_mode="rgb_array").render_mode == "rgb_array"
    assert (
        make_env(config(OWN + "Drawn", max_episode_steps=5), render_mode="rgb_array").render_mode
        == "rgb_array"
    )
    with pytest.raises(
        ValueError, match="cannot be drawn: it was made with render_mode=None"
    ) as caught:
        make_env(config(OWN + "limited"), render_mode="rgb_array")
    assert "Give the factory an argument `render_mode`" in str(caught.value)


# Refusals


def test_an_unknown_id_is_answered_with_the_nearest_one() -> None:
    assert refusal("HalfCheeta-v5") == (
        "env.id='HalfCheeta-v5' is no Gymnasium id. Did you mean 'HalfCheetah-v5'? An environment "
        "of your own is named as `package.module:factory`."
    )
    assert "Did you mean" not in refusal("qqqqqqqqqqqqqqq")
    assert "Did you mean 'CartPole-v" in refusal("CartPole"), (
        "an id without a version may mean another env next year"
    )


@pytest.mark.parametrize(
    ("env_id", "keys", "message"),
    [
        (
            "nowhere.envs:make",
            {},
            "'nowhere.envs' cannot be imported (ModuleNotFoundError: No module named 'nowhere')",
        ),
        (
            "nowhere:Env-v0",
            {},
            "'nowhere' cannot be imported (ModuleNotFoundError: No module named 'nowhere')",
        ),
        (
            OWN + "limitd",
            {},
            "module 'tests.envs.example_envs' has no 'limitd'; did you mean 'limited'?",
        ),
        (OWN + "NOT_CALLABLE", {}, "names a int, which cannot be called"),
        (OWN + "forgets_to_return", {}, "returned a NoneType, not a gymnasium.Env"),
        (
            OWN + "fails",
            {"kwargs": {"why": "no license."}},
            "with env.kwargs={'why': 'no license.'}: RuntimeError: no license.",
        ),
        (OWN + "limited", {"kwargs": {"stepz": 1}}, "unexpected keyword argument 'stepz'"),
        ("Pendulum-v1", {"kwargs": {"gravity": 1}}, "unexpected keyword argument 'gravity'"),
        (
            OWN + "Countdown",
            {"kwargs": {"steps": 10**6}},
            "so one might never end. Set env.max_episode_steps",
        ),
        (
            OWN + "Countdown",
            {"hide_termination": True},
            "has no time limit, and env.hide_termination hides every",
        ),
        (
            OWN + "Broken",
            {"max_episode_steps": 5},
            "step failed with RuntimeError: the motor is unplugged",
        ),
        (
            OWN + "Sentence",
            {"max_episode_steps": 5},
            "an observation is a Box, a Discrete, or a Dict or Tuple",
        ),
        ("CartPole-v1", {"kwargs": {"max_episode_steps": 5}}, "Set env.max_episode_steps instead."),
        (
            "CartPole-v1",
            {"termination_penalty": 3},
            "=3.0 would do nothing: env.hide_termination is false. Remove it.",
        ),
        (
            "Hopper-v5",
            {"termination_penalty": 3, "hide_termination": True},
            "env.termination_penalty=3.0 would do nothing: Hopper pays a bonus of its own for "
            "staying up. Remove it.",
        ),
        ("CartPole-v1", {"kwargs": {"render_mode": "human"}}, "is decided elsewhere. Remove it."),
    ],
)
def test_what_cannot_work_is_refused_before_the_first_step(
    env_id: str, keys: dict[str, Any], message: str
) -> None:
    assert message in refusal(env_id, **keys)


# What is known beforehand


def test_the_facts_of_an_environment() -> None:
    facts = probe(config("CartPole-v1"))
    assert facts.spaces == describe(
        gym.make("CartPole-v1").observation_space, gym.spaces.Discrete(2)
    )
    assert (facts.episode_limit, facts.known_task, facts.native_vector) == (500, False, True)
    assert (facts.state_kind, facts.fps, facts.reward_threshold) == ("none", 50, 475)
    hidden = probe(config("CartPole-v1", hide_termination=True))
    assert (hidden.native_vector, hidden.reward_threshold) == (False, None)
    assert probe(config("HalfCheetah-v5")).state_kind == "mujoco"


def test_episodes_that_may_end_early_are_warned_about_with_the_key_that_helps() -> None:
    assert variable_length_warning(probe(config("Hopper-v5"))) == (
        "episodes of Hopper-v5 may end before their 1000 steps, and an early end tells the policy "
        "about the task even though the env reward is hidden. Set env.hide_termination = true so "
        "that all episodes are equally long; it changes nothing where no episode ends early."
    )
    for equal in (
        config("Pendulum-v1"),
        config("HalfCheetah-v5"),
        config("CartPole-v1", hide_termination=True),
    ):
        assert variable_length_warning(probe(equal)) is None


# The simulator's state


def test_the_state_of_a_mujoco_environment_draws_it_again() -> None:
    env, other = make_env(config("Hopper-v5", hide_termination=True)), make_env(config("Hopper-v5"))
    env.reset(seed=0)
    env.step(np.ones(3, np.float32))
    state = sim_state(env)
    assert state is not None
    assert (state_kind(env), state.dtype.name, state.shape) == ("mujoco", "float64", (6 + 6 + 1,))
    assert state[-1] == pytest.approx(0.008)
    other.reset(seed=1)
    simulator: Any = other.unwrapped
    simulator.set_state(state[:6], state[6:12])
    np.testing.assert_array_equal(simulator.data.qpos, state[:6])
    env.step(np.ones(3, np.float32))
    assert state[-1] == pytest.approx(0.008), "a copy, not a view of the simulator"


def test_other_environments_have_no_state_unless_they_tell_it() -> None:
    env = make_env(config("Pendulum-v1"))
    assert (state_kind(env), sim_state(env)) == ("none", None)
    telling = make_env(config(OWN + "Remembers", max_episode_steps=5))
    telling.reset(seed=0)
    state = sim_state(telling)
    assert state is not None
    assert (state_kind(telling), state.tolist()) == ("hook", [3, 3])


# Around the environment

QUIET = """
import sys
from rlhp.config.schema import EnvConfig
from rlhp.envs.make import make_vector_env
print("torch" in sys.modules, "ray" in sys.modules, "mujoco" in sys.modules)
config = EnvConfig(id="HalfCheetah-v5", hide_termination=True)
make_vector_env(config, num_envs=2, vectorize="auto").reset(seed=0)
"""


def test_mujoco_leaves_no_noise_and_no_file_and_nothing_heavy_is_imported(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    path = os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", QUIET],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["False", "False", "False"]
    assert done.stderr == ""
    assert list(tmp_path.iterdir()) == []
