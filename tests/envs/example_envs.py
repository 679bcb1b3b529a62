"""Environments of a user's own, as small as they can be, named in tests as
`tests.envs.example_envs:Name`.
"""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.wrappers import TimeLimit

NOT_CALLABLE = 3
Obs = dict[str, Any]
Step = tuple[Any, float, bool, bool, dict[str, Any]]


class Countdown(gym.Env[Any, Any]):
    """Shows the steps left and ends at zero; every step pays one."""

    observation_space: gym.Space[Any] = gym.spaces.Box(0, 100, (1,), np.float32)
    action_space: gym.Space[Any] = gym.spaces.Discrete(2)

    def __init__(self, *, steps: int = 3, truncates: bool = False) -> None:
        self.steps = steps
        self.truncates = truncates
        self.left = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.left = self.steps
        return self.show(), {}

    def step(self, action: Any) -> Step:
        self.left -= 1
        done = self.left == 0
        return self.show(), 1.0, done and not self.truncates, done and self.truncates, {}

    def show(self) -> Any:
        return np.array([self.left], np.float32)


class Remembers(Countdown):
    """Says itself what its simulator state is."""

    def rlhp_state(self) -> list[float]:
        return [float(self.left), float(self.steps)]


class DictEnv(Countdown):
    """A Dict of a picture, a Discrete that starts at -1, and a Tuple; takes two
    buttons.
    """

    observation_space = gym.spaces.Dict(
        {
            "image": gym.spaces.Box(0, 255, (2, 3), np.uint8),
            "mode": gym.spaces.Discrete(3, start=-1),
            "pose": gym.spaces.Tuple(
                (gym.spaces.Box(-1, 1, (2,), np.float64), gym.spaces.Box(-1, 1, (), np.float32))
            ),
        }
    )
    action_space = gym.spaces.MultiDiscrete([2, 3])

    def show(self) -> Obs:
        noise = self.np_random
        return {
            "image": noise.integers(0, 256, (2, 3), dtype=np.uint8),
            "mode": np.int64(noise.integers(-1, 2)),
            "pose": (noise.uniform(-1, 1, 2), np.array(0.25, np.float32)),
        }


class Sentence(Countdown):
    """Shows text, which is not supported."""

    observation_space = gym.spaces.Text(5)


class Broken(Countdown):
    """Fails on its first step."""

    def step(self, action: Any) -> Step:
        raise RuntimeError("the motor is unplugged")


class Drawn(Countdown):
    """Can be drawn, and takes the argument for it."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 7}  # noqa: RUF012  # as Gymnasium declares it

    def __init__(self, *, render_mode: str | None = None) -> None:
        super().__init__()
        self.render_mode = render_mode


def limited(steps: int = 3, limit: int = 2) -> gym.Env[Any, Any]:
    """With a time limit of its own."""
    return TimeLimit(Countdown(steps=steps), max_episode_steps=limit)


def forgets_to_return() -> None:
    """A factory with its last line missing."""


def fails(why: str) -> gym.Env[Any, Any]:
    """A factory that fails."""
    raise RuntimeError(why)
