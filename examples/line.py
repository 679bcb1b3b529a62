"""A point on a line, pushed left or right, that is to stay in the middle."""

from typing import Any

import gymnasium as gym
import numpy as np


class Line(gym.Env[Any, Any]):
    observation_space = gym.spaces.Box(-1, 1, (1,), np.float32)
    action_space = gym.spaces.Box(-1, 1, (1,), np.float32)
    place = np.zeros(1, np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.place = self.np_random.uniform(-1, 1, 1).astype(np.float32)
        return self.place, {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.place = np.clip(self.place + 0.1 * action, -1, 1).astype(np.float32)
        return self.place, -abs(float(self.place[0])), False, False, {}
