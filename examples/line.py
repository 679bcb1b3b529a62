"""A point on a line, pushed left or right, that is to stay near the middle."""

from typing import Any

import gymnasium as gym
import numpy as np


class Line(gym.Env[Any, Any]):
    observation_space = gym.spaces.Box(-2, 2, (2,), np.float32)  # place, speed
    action_space = gym.spaces.Box(-1, 1, (1,), np.float32)
    state = np.zeros(2, np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.state = self.np_random.uniform(-1, 1, 2).astype(np.float32)
        return self.state, {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        place, speed = self.state
        speed = 0.9 * speed + 0.2 * float(action[0])
        self.state = np.clip([place + 0.1 * speed, speed], -2, 2).astype(np.float32)
        return self.state, -abs(float(self.state[0])), False, False, {}
