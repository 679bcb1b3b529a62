"""Environments that are brought back do what the ones that went on do, bit for bit,
whatever they are.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from rlhp.config.schema import EnvConfig
from rlhp.envs.make import make_vector_env
from rlhp.learn.checkpoint import load_state, save_state
from rlhp.rollout.episode_replay import CannotRestore, EpisodeReplay
from rlhp.types import Array

ENVS = 3
CONFIGS: dict[str, dict[str, Any]] = {
    "episodes of equal length": {"id": "Pendulum-v1", "max_episode_steps": 20},
    "MuJoCo": {"id": "Reacher-v5"},
    "hidden ends": {"id": "Hopper-v5", "hide_termination": True, "max_episode_steps": 40},
    "reset unseen": {"id": "Acrobot-v1", "hide_termination": True, "max_episode_steps": 60},
    "ends early, discrete": {
        "id": "tests.environments:Drift",
        "kwargs": {"discrete": True, "ends_early": True},
    },
    "dict and multi-discrete": {"id": "tests.environments:TwoWheels"},
    "vector implementation of its own": {"id": "CartPole-v1"},
}


class Stepped:
    """A vector environment under random actions, followed as the env runner follows it."""

    def __init__(self, config: EnvConfig, *, seed: int) -> None:
        vector: Any = make_vector_env(config, num_envs=ENVS, vectorize="auto")
        self.vector = vector
        self.tape = EpisodeReplay(self.vector)
        self.vector.action_space.seed(seed)
        seeds = [seed + k for k in range(ENVS)]
        self.obs: Array = np.array(self.vector.reset(seed=seeds)[0])
        self.tape.begin(seeds)
        self.done = np.zeros(ENVS, bool)
        self.returns = np.zeros(ENVS)

    def step(self, actions: Array) -> list[bytes]:
        valid = ~self.done
        obs, reward, terminated, truncated, _ = self.vector.step(actions)
        self.returns = np.where(
            valid, self.returns + np.asarray(reward, np.float32).astype(np.float64), 0.0
        )
        self.obs, self.done = np.array(obs), (terminated | truncated) & valid
        self.tape.record(actions, self.done)
        return [self.obs.tobytes(), np.asarray(reward).tobytes(), self.done.tobytes()]

    def restore(self, other: Stepped, state: Any) -> None:
        self.tape.restore(state, obs=other.obs, done=other.done, returns=other.returns)
        self.obs, self.done, self.returns = (
            other.obs.copy(),
            other.done.copy(),
            other.returns.copy(),
        )


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("steps", [0, 20, 57])
def test_environments_go_on_as_if_nothing_had_been(name: str, steps: int, tmp_path: Any) -> None:
    config = EnvConfig(**{"max_episode_steps": 50, **CONFIGS[name]})
    first, second = Stepped(config, seed=3), Stepped(config, seed=99)
    actions = [np.asarray(first.vector.action_space.sample()) for _ in range(steps + 70)]
    for action in actions[:steps]:
        first.step(action)
    for action in actions[: steps // 2]:
        second.step(action)
    save_state(tmp_path / "tape.pt", first.tape.state())
    second.restore(first, load_state(tmp_path / "tape.pt"))
    for action in actions[steps:]:
        assert second.step(action) == first.step(action)
    third = Stepped(config, seed=98)  # and again, from what the restored one recorded
    third.restore(second, second.tape.state())
    for action in actions[:30]:
        assert third.step(action) == second.step(action)


def test_an_environment_with_a_generator_of_its_own_is_found_out() -> None:
    config = EnvConfig(id="tests.environments:Drift", kwargs={"noise": 1.0}, max_episode_steps=10)
    first, second = Stepped(config, seed=3), Stepped(config, seed=99)
    for _ in range(14):
        first.step(np.asarray(first.vector.action_space.sample()))
    with pytest.raises(
        CannotRestore, match="environment 0 comes out elsewhere: it depends on more than its seed"
    ):
        second.restore(first, first.tape.state())


def test_a_vector_environment_that_holds_more_than_numbers_cannot_be_brought_back() -> None:
    first = Stepped(EnvConfig(id="CartPole-v1"), seed=3)
    first.vector.unwrapped.engine = object()
    with pytest.raises(
        CannotRestore, match=r"CartPoleVectorEnv\.engine is a object, which cannot be copied"
    ):
        first.tape.state()


def test_long_episodes_are_kept_whole_and_finished_ones_are_not() -> None:
    first = Stepped(EnvConfig(id="Pendulum-v1", max_episode_steps=50), seed=0)
    action = np.zeros((ENVS, 1), np.float32)
    for _ in range(5000):
        first.step(action)
    assert len(first.tape._rows) < 4300
    second = Stepped(EnvConfig(id="Pendulum-v1", max_episode_steps=50), seed=1)
    second.restore(first, first.tape.state())
    assert second.step(action) == first.step(action)
