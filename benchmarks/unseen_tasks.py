"""Tasks of our own for the suites of unseen tasks, in spaces that no file in `configs/`
has.

`Reach` belongs to the development suite. `Arm` and `Tanks` belong to the test suite:
they were written before the defaults were frozen, and nobody who chooses defaults runs
them.

The environments need Gymnasium and numpy alone, and run under every Gymnasium from 0.29
on, so that other libraries play them too.
"""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

Array = np.ndarray[Any, np.dtype[Any]]
Step = tuple[Any, float, bool, bool, dict[str, Any]]


class Reach(gym.Env[Any, Any]):
    """A point in a square of 4 by 4 has to reach a goal; the reward is minus their
    distance.

    Its two actions are bounded unevenly, so that actions in the middle of their bounds
    drift into a corner, and the observation holds a number of three (`mode`) that means
    nothing.
    """

    horizon = 60

    def __init__(self, render_mode: str | None = None) -> None:
        self.observation_space = spaces.Dict(
            {
                "goal": spaces.Box(-1.0, 1.0, (2,), np.float32),
                "mode": spaces.Discrete(3, start=1),
                "pos": spaces.Box(-np.inf, np.inf, (2,), np.float64),
            }
        )
        self.action_space = spaces.Box(
            np.array([-0.1, -0.3], np.float32), np.array([0.3, 0.1], np.float32)
        )

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Point, goal and mode at random."""
        super().reset(seed=seed)
        self._pos: Array = self.np_random.uniform(-1, 1, 2)
        self._goal: Array = self.np_random.uniform(-1, 1, 2).astype(np.float32)
        self._mode = int(self.np_random.integers(1, 4))
        self._steps = 0
        return self._obs(), {}

    def step(self, action: Any) -> Step:
        """Move by the action."""
        self._pos = np.clip(self._pos + np.asarray(action, np.float64), -2, 2)
        self._steps += 1
        distance = float(np.linalg.norm(self._pos - self._goal))
        return self._obs(), -distance, False, self._steps >= self.horizon, {}

    def _obs(self) -> dict[str, Any]:
        return {"goal": self._goal.copy(), "mode": self._mode, "pos": self._pos.copy()}


class Arm(gym.Env[Any, Any]):
    """A planar arm of five joints has to hold its tip at a target; the reward is minus
    the distance of the tip.

    An action is a torque per joint. Joints have friction and no stops.
    """

    horizon = 60
    joints = 5
    link = 0.2
    """Length of each of the five links: the arm reaches 1."""
    seconds = 0.05
    """A step takes so long in the simulation."""

    def __init__(self, render_mode: str | None = None) -> None:
        self.observation_space = spaces.Dict(
            {
                "angles": spaces.Box(-np.inf, np.inf, (self.joints,), np.float32),
                "target": spaces.Box(-1.0, 1.0, (2,), np.float32),
                "velocities": spaces.Box(-np.inf, np.inf, (self.joints,), np.float32),
            }
        )
        self.action_space = spaces.Box(-1.0, 1.0, (self.joints,), np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """A bent arm at rest, and a target within its reach."""
        super().reset(seed=seed)
        self._angles: Array = self.np_random.uniform(-1, 1, self.joints)
        self._velocities: Array = np.zeros(self.joints)
        radius, direction = self.np_random.uniform(0.3, 0.9), self.np_random.uniform(-np.pi, np.pi)
        self._target: Array = radius * np.array([np.cos(direction), np.sin(direction)])
        self._steps = 0
        return self._obs(), {}

    def step(self, action: Any) -> Step:
        """Torques change velocities, which friction slows down."""
        self._velocities = 0.9 * self._velocities + 0.8 * np.clip(
            np.asarray(action, np.float64), -1, 1
        )
        self._angles = self._angles + self.seconds * self._velocities
        self._steps += 1
        directions = np.cumsum(self._angles)  # of each link, in the world
        tip = self.link * np.array([np.cos(directions).sum(), np.sin(directions).sum()])
        distance = float(np.linalg.norm(tip - self._target))
        return self._obs(), -distance, False, self._steps >= self.horizon, {}

    def _obs(self) -> dict[str, Any]:
        parts = {"angles": self._angles, "target": self._target, "velocities": self._velocities}
        return {name: part.astype(np.float32) for name, part in parts.items()}


class Tanks(gym.Env[Any, Any]):
    """Three tanks in a row have to be held at the levels that are shown; the reward is
    minus the sum of the errors.

    Each tank has a valve with three positions: shut, half open, open. What runs out of
    a tank runs into the next one, and the inflow is noisy.
    """

    horizon = 50
    tanks = 3

    def __init__(self, render_mode: str | None = None) -> None:
        one = spaces.Box(0.0, 1.0, (self.tanks,), np.float32)
        self.observation_space = spaces.Tuple(
            (one, spaces.Box(0.0, 1.0, (self.tanks,), np.float32))
        )
        self.action_space = spaces.MultiDiscrete([3] * self.tanks)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Levels and the heights to hold, at random."""
        super().reset(seed=seed)
        self._levels: Array = self.np_random.uniform(0, 1, self.tanks)
        self._heights: Array = self.np_random.uniform(0.2, 0.8, self.tanks)
        self._steps = 0
        return self._obs(), {}

    def step(self, action: Any) -> Step:
        """Valves let water in; each tank loses in proportion to the root of its level."""
        inflow = (
            0.06 * np.asarray(action, np.float64) * self.np_random.uniform(0.7, 1.3, self.tanks)
        )
        outflow = 0.08 * np.sqrt(self._levels)
        from_above = 0.5 * np.concatenate([[0.0], outflow[:-1]])
        self._levels = np.clip(self._levels + inflow + from_above - outflow, 0, 1)
        self._steps += 1
        error = float(np.abs(self._levels - self._heights).sum())
        return self._obs(), -error, False, self._steps >= self.horizon, {}

    def _obs(self) -> tuple[Array, Array]:
        return self._levels.astype(np.float32), self._heights.astype(np.float32)
