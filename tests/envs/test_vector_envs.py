"""Environments stepped together: each is its single environment, whoever does the
stepping.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.envs.registration import EnvSpec
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv

from rlhp.config.schema import EnvConfig
from rlhp.envs.make import (
    FlatObservation,
    make_env,
    make_vector_env,
    probe,
)
from tests.envs.example_envs import Countdown

OWN = "tests.envs.example_envs:"


def config(env_id: str, **keys: Any) -> EnvConfig:
    return EnvConfig(id=env_id, **keys)


def rollout(envs: VectorEnv[Any, Any, Any], steps: int) -> list[tuple[Any, ...]]:
    envs.action_space.seed(0)
    return [envs.step(envs.action_space.sample()) for _ in range(steps)]


@pytest.mark.parametrize(
    ("env_id", "keys"),
    [
        ("Pendulum-v1", {}),
        ("HalfCheetah-v5", {"hide_termination": True}),
        ("CartPole-v1", {"hide_termination": True, "termination_penalty": 3}),
        ("CartPole-v1", {}),
        (OWN + "DictEnv", {}),
    ],
)
def test_a_vector_environment_is_its_single_environments_step_by_step(
    env_id: str, keys: dict[str, Any]
) -> None:
    same = config(env_id, max_episode_steps=15, **keys)
    envs: Any = make_vector_env(same, num_envs=2, vectorize="sync")
    leaves = probe(same).spaces.obs
    first, _ = envs.reset(seed=[4, 9])
    envs.action_space.seed(0)
    batches = [envs.action_space.sample() for _ in range(40)]
    together = [envs.step(batch) for batch in batches]
    for index, seed in enumerate((4, 9)):
        env = make_env(same)
        np.testing.assert_array_equal(first[index], leaves.flatten_one(env.reset(seed=seed)[0]))
        done = False
        for batch, (obs, env_reward, terminated, truncated, _) in zip(
            batches, together, strict=True
        ):
            expected: Any = (
                (env.reset()[0], 0.0, False, False) if done else env.step(batch[index])[:4]
            )
            np.testing.assert_array_equal(obs[index], leaves.flatten_one(expected[0]))
            assert (env_reward[index], terminated[index], truncated[index]) == expected[1:]
            done = expected[2] or expected[3]


def test_dict_observations_are_flattened_for_the_policy_and_come_back_whole() -> None:
    own = config(OWN + "DictEnv", max_episode_steps=5)
    envs: Any = make_vector_env(own, num_envs=3, vectorize="auto")
    leaves = probe(own).spaces.obs
    assert envs.single_observation_space == gym.spaces.Box(
        -np.inf, np.inf, (6 + 3 + 2 + 1,), np.float64
    )
    flat, _ = envs.reset(seed=[1, 2, 3])
    singles = [make_env(own).reset(seed=seed)[0] for seed in (1, 2, 3)]
    back = leaves.unflatten(flat)
    np.testing.assert_array_equal(back["image"], [single["image"] for single in singles])
    np.testing.assert_array_equal(back["mode"], [single["mode"] for single in singles])
    np.testing.assert_array_equal(back["pose/0"], [single["pose"][0] for single in singles])
    assert back["image"].dtype == np.uint8


def test_plain_observations_need_no_flattening() -> None:
    envs = make_vector_env(config("Pendulum-v1"), num_envs=2, vectorize="auto")
    assert isinstance(envs, SyncVectorEnv)
    assert not any(
        isinstance(env.env, FlatObservation) for env in envs.envs if isinstance(env, gym.Wrapper)
    )
    assert envs.observation_space.shape == (2, 3)


def test_cartpole_uses_its_own_vector_implementation() -> None:
    envs: Any = make_vector_env(
        config("CartPole-v1", max_episode_steps=7), num_envs=4, vectorize="auto"
    )
    assert type(envs.unwrapped).__name__ == "CartPoleVectorEnv"
    assert envs.metadata["autoreset_mode"] is AutoresetMode.NEXT_STEP
    first, _ = envs.reset(seed=[5, 6, 7, 8])
    again, _ = envs.reset(seed=5)
    np.testing.assert_array_equal(first, again)
    steps = rollout(envs, 9)
    assert [bool(truncated.all()) for *_, truncated, _ in steps] == [False] * 6 + [True] + [
        False
    ] * 2
    _, env_reward, terminated, _, _ = steps[7]
    assert not env_reward.any(), "the step after the end is the reset"
    assert not terminated.any()


def test_a_native_vector_environment_reports_an_end_once_and_then_resets() -> None:
    envs = make_vector_env(config("CartPole-v1"), num_envs=1, vectorize="native")
    envs.reset(seed=0)
    ends = [bool(envs.step(np.array([1]))[2][0]) for _ in range(40)]
    assert sum(ends) == 3
    assert not any(now and after for now, after in pairwise(ends))


@pytest.mark.parametrize(
    ("env_id", "keys", "reason"),
    [
        ("Pendulum-v1", {}, "Pendulum-v1 has no vector implementation of its own"),
        (OWN + "limited", {}, "has no vector implementation of its own"),
        (
            "CartPole-v1",
            {"hide_termination": True},
            "env.hide_termination needs a wrapper around each environment",
        ),
    ],
)
def test_native_stepping_is_refused_where_it_cannot_be_had(
    env_id: str, keys: dict[str, Any], reason: str
) -> None:
    with pytest.raises(
        ValueError, match=r"rollout.vectorize=native cannot be had: .*Set rollout.vectorize = auto"
    ):
        make_vector_env(config(env_id, **keys), num_envs=2, vectorize="native")
    with pytest.raises(ValueError, match=reason.replace(".", r"\.")):
        make_vector_env(config(env_id, **keys), num_envs=2, vectorize="native")
    assert isinstance(
        make_vector_env(config(env_id, **keys), num_envs=2, vectorize="auto"), SyncVectorEnv
    )


class Hasty(VectorEnv[Any, Any, Any]):
    """A vector implementation that resets within the step that ended the episode."""

    metadata = {"autoreset_mode": AutoresetMode.SAME_STEP}  # noqa: RUF012  # as Gymnasium declares it
    single_observation_space: Any = gym.spaces.Box(-1, 1, (1,))
    single_action_space: Any = gym.spaces.Discrete(2)

    def __init__(self, **kwargs: Any) -> None:
        super().__init__()


class OtherObs(Hasty):
    """A vector implementation that shows something else than the single environment."""

    metadata = {"autoreset_mode": AutoresetMode.NEXT_STEP}  # noqa: RUF012
    single_observation_space: Any = gym.spaces.Box(0, 100, (2,))


class OtherActions(OtherObs):
    """A vector implementation that takes other actions than the single environment."""

    single_observation_space: Any = Countdown.observation_space
    single_action_space: Any = gym.spaces.Discrete(3)


def unlicensed(**kwargs: Any) -> VectorEnv[Any, Any, Any]:
    raise TypeError("needs a license")


@pytest.mark.parametrize(
    ("vector", "reason"),
    [
        (Hasty, "resets by AutoresetMode.SAME_STEP, not on the next step"),
        (OtherObs, "has other spaces than the single environment"),
        (OtherActions, "has other spaces than the single environment"),
        (unlicensed, "the vector implementation of Hasty-v0 could not be made: needs a license"),
    ],
)
def test_a_vector_implementation_that_would_break_episodes_is_not_used(
    vector: Any, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = EnvSpec(
        id="Hasty-v0",
        entry_point=OWN + "Countdown",
        vector_entry_point=vector,
        max_episode_steps=5,
    )
    monkeypatch.setitem(gym.registry, "Hasty-v0", spec)
    with pytest.raises(ValueError, match=reason):
        make_vector_env(config("Hasty-v0"), num_envs=2, vectorize="native")
    assert isinstance(
        make_vector_env(config("Hasty-v0"), num_envs=2, vectorize="auto"), SyncVectorEnv
    )
