"""The MuJoCo tasks without termination, against env rewards worked out again from the
simulator's state.
"""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from rlhp.config.schema import EnvConfig
from rlhp.envs.make import make_env
from rlhp.envs.mujoco_tasks import TASKS, EndlessEpisode, HiddenTermination, known_task
from tests.envs.example_envs import Countdown

VERSIONS = [f"{name}-v5" for name in TASKS] + [f"{name}-v4" for name in TASKS]


def config(env_id: str, **keys: Any) -> EnvConfig:
    return EnvConfig(id=env_id, hide_termination=True, **keys)


class Slow:
    """Env rewards as the table of the tasks has them, from the simulator's arrays
    alone.
    """

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        self.sim: Any = env.unwrapped
        self.name = env.unwrapped.spec.id.rpartition("-")[0] if env.unwrapped.spec else ""
        self.before = self.place()

    def place(self) -> float:
        """Where along x the forward speed of this task is measured."""
        data, model = self.sim.data, self.sim.model
        if self.name == "Humanoid":
            return float((model.body_mass @ data.xipos[:, 0]) / model.body_mass.sum())
        return float(data.body("torso").xpos[0] if self.name == "Ant" else data.qpos[0])

    def env_reward(self) -> float:
        data, name = self.sim.data, self.name
        before, self.before = self.before, self.place()
        forward = (self.before - before) / self.sim.dt
        if name == "Reacher":
            gap = data.body("fingertip").xpos - data.body("target").xpos
            return -float(np.sqrt((gap**2).sum()))
        if name == "InvertedPendulum":
            return 1.0 - float(data.qpos[1] ** 2)
        if name == "InvertedDoublePendulum":
            x, _, z = data.site("tip").xpos
            slow_down = 0.001 * data.qvel[1] ** 2 + 0.005 * data.qvel[2] ** 2
            return float(10 - 0.01 * x**2 - (z - 2) ** 2 - slow_down + 10 * (z - 1))
        z = data.qpos[2 if name in ("Ant", "Humanoid") else 1]
        bonus = {
            "Ant": z - 1.2,
            "Walker2d": z - 1,
            "Hopper": z,
            "Humanoid": 0.25 * forward + 5 * (z - 1),  # speed counts 1.25 times
        }
        return float(forward + bonus.get(name, 0.0))


@pytest.mark.parametrize("env_id", VERSIONS)
def test_a_full_episode_of_random_actions_has_the_limit_s_length_and_the_table_s_env_rewards(
    env_id: str,
) -> None:
    task = known_task(env_id)
    assert task is not None
    limit = task.limit if env_id.endswith("-v5") else 20
    env = make_env(config(env_id, max_episode_steps=None if limit == task.limit else limit))
    env.action_space.seed(7)
    env.reset(seed=7)
    slow = Slow(env)
    for step in range(1, limit + 1):
        obs, env_reward, terminated, truncated, info = env.step(env.action_space.sample())
        assert env_reward == pytest.approx(slow.env_reward(), rel=1e-9, abs=1e-9)
        assert not terminated
        assert truncated == (step == limit)
        assert info == {}, "Gymnasium's info names the parts of the env reward"
    assert env.observation_space.contains(obs)


@pytest.mark.parametrize(
    "env_id", ["Hopper-v5", "Walker2d-v5", "Ant-v5", "Humanoid-v5", "InvertedDoublePendulum-v5"]
)
def test_random_actions_do_end_the_original_early(env_id: str) -> None:
    env = make_env(EnvConfig(id=env_id))
    env.action_space.seed(7)
    env.reset(seed=7)
    assert any(env.step(env.action_space.sample())[2] for _ in range(999))


def test_the_original_shows_the_same_observations_and_keeps_its_own_env_reward() -> None:
    hidden, original = make_env(config("Hopper-v5")), gym.make("Hopper-v5")
    np.testing.assert_array_equal(hidden.reset(seed=3)[0], original.reset(seed=3)[0])
    action = np.array([0.5, -0.5, 0.25], np.float32)
    obs, env_reward, _, _, info = original.step(action)
    hidden_obs, hidden_reward, *_ = hidden.step(action)
    np.testing.assert_array_equal(hidden_obs, obs)
    assert env_reward == pytest.approx(
        info["reward_forward"] + 1 - 0.001 * float((action**2).sum())
    )
    assert hidden_reward != env_reward


def test_ant_shows_no_contact_forces_unless_asked_to() -> None:
    space = make_env(config("Ant-v5")).observation_space
    assert space.shape == (27,)
    asked = make_env(config("Ant-v5", kwargs={"include_cfrc_ext_in_observation": True}))
    assert asked.observation_space.shape == (105,)
    assert make_env(EnvConfig(id="Ant-v5")).observation_space.shape == (105,), (
        "untouched where nothing is hidden"
    )


def test_limits_and_segment_lengths_are_the_paper_s() -> None:
    assert {name: (task.limit, task.segment_length) for name, task in TASKS.items()} == {
        "Reacher": (50, 15),
        "InvertedPendulum": (25, 15),
        "InvertedDoublePendulum": (50, 15),
        "HalfCheetah": (1000, 30),
        "Ant": (1000, 30),
        "Walker2d": (1000, 45),
        "Hopper": (1000, 60),
        "Swimmer": (1000, 60),
        "Humanoid": (1000, 60),
    }
    assert all((task.short_limit or 1) <= task.limit for task in TASKS.values())


@pytest.mark.parametrize(
    "env_id", ["CartPole-v1", "Hopper-v3", "Hopper", "tests.envs:Hopper", "own/Hopper-v5"]
)
def test_other_names_are_no_known_task(env_id: str) -> None:
    assert known_task(env_id) is None


def test_a_simulation_that_blows_up_is_cut_at_its_last_good_observation(
    caplog: pytest.LogCaptureFixture,
) -> None:
    env = make_env(config("HalfCheetah-v5"))
    for episode in (1, 2):
        env.reset(seed=0)
        good, *_ = env.step(np.zeros(6, np.float32))
        simulator: Any = env.unwrapped
        simulator.data.qvel[:] = np.nan
        obs, env_reward, terminated, truncated, info = env.step(np.zeros(6, np.float32))
        np.testing.assert_array_equal(obs, good)
        assert (env_reward, terminated, truncated) == (0.0, False, True)
        assert info == {"simulator_faults": episode}
    assert caplog.text.count("the simulator of HalfCheetah left the finite numbers") == 1


def test_hidden_termination_shows_an_observation_that_is_not_finite_as_the_last_good_one() -> None:
    class Torn(gym.Wrapper[Any, Any, Any, Any]):
        def step(self, action: Any) -> Any:
            obs, *rest = self.env.step(action)
            return np.full_like(obs, np.inf), *rest

    env = HiddenTermination(Torn(gym.make("Reacher-v5")), task=TASKS["Reacher"])
    first, _ = env.reset(seed=1)
    obs, _, _, truncated, info = env.step(np.zeros(2, np.float32))
    np.testing.assert_array_equal(obs, first)
    assert truncated
    assert info == {"simulator_faults": 1}


def test_an_endless_episode_resets_unseen_and_pays_for_it() -> None:
    env = EndlessEpisode(Countdown(steps=2), termination_penalty=10)
    assert env.reset()[0] == [2]
    seen = [env.step(0) for _ in range(4)]
    assert [float(obs[0]) for obs, *_ in seen] == [1, 2, 1, 2]
    assert [env_reward for _, env_reward, *_ in seen] == [1, -9, 1, -9]
    assert not any(terminated or truncated for _, _, terminated, truncated, _ in seen)
    assert [info.get("hidden_reset", False) for *_, info in seen] == [False, True, False, True]


def test_an_endless_episode_hides_the_environment_s_own_truncation_without_a_penalty() -> None:
    env = EndlessEpisode(Countdown(steps=1, truncates=True), termination_penalty=10)
    env.reset()
    obs, env_reward, terminated, truncated, info = env.step(0)
    assert (float(obs[0]), env_reward, terminated, truncated) == (1, 1, False, False)
    assert info["hidden_reset"]
