"""Environments of the program's tests, named in configs as `tests.environments:Name`,
and teachers to go with them.
"""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np

from rlhp.types import Answer, Query, answers_to, digest

LENGTH = 20
PAID: list[float] = []
"""Every env reward that any `Drift` has paid in this process, in order."""


class Drift(gym.Env[Any, Any]):
    """A point in the plane and the time left; the action pushes it, and being near the
    origin pays.

    `reward_scale` multiplies the env reward, `noise` replaces it by that much noise.
    `fixed_start` begins every episode at the same place, whatever the seed. Ends itself
    only where `ends_early` says so.
    """

    def __init__(
        self,
        *,
        reward_scale: float = 1.0,
        noise: float = 0.0,
        fixed_start: bool = False,
        discrete: bool = False,
        ends_early: bool = False,
    ) -> None:
        self.observation_space = gym.spaces.Box(-10, 10, (3,), np.float32)
        self.action_space = (
            gym.spaces.Discrete(4, start=2)
            if discrete
            else gym.spaces.Box(-0.5, 1.5, (2,), np.float32)
        )
        self._reward_scale, self._noise = reward_scale, noise
        self._fixed_start, self._discrete, self._ends_early = fixed_start, discrete, ends_early
        self._noise_rng = np.random.default_rng(5)
        self.place = np.zeros(2)
        self.steps = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.place = np.full(2, 0.5) if self._fixed_start else self.np_random.uniform(-1, 1, 2)
        self.steps = 0
        return self._show(), {"env_reward": -1.0}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action), f"{action!r} is no action of {self.action_space}"
        push = (
            np.array([(1, 0), (0, 1), (-1, 0), (0, -1)][int(action) - 2])
            if self._discrete
            else action
        )
        self.place = np.clip(self.place + 0.2 * push, -5, 5)
        self.steps += 1
        pay = -self._reward_scale * float(np.linalg.norm(self.place))
        if self._noise:
            pay = self._noise * float(self._noise_rng.normal())
        PAID.append(pay)
        fell = self._ends_early and float(np.abs(self.place).max()) > 1.5
        return self._show(), pay, fell, False, {"env_reward": pay}

    def rlhp_state(self) -> list[float]:
        """Everything that is needed to draw it."""
        return [*self.place, float(self.steps)]

    def _show(self) -> Any:
        return np.array([*self.place, 1 - self.steps / LENGTH], np.float32)


class TwoWheels(Drift):
    """The same, with a Dict of observations and two switches."""

    def __init__(self) -> None:
        super().__init__()
        self.observation_space = gym.spaces.Dict(
            {
                "place": gym.spaces.Box(-10, 10, (2,), np.float64),
                "phase": gym.spaces.Discrete(3, start=1),
            }
        )
        self.action_space = gym.spaces.MultiDiscrete([3, 2], start=[-1, 5])

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action), f"{action!r} is no action of {self.action_space}"
        self.place = np.clip(self.place + 0.1 * (action - np.array([0, 5])), -5, 5)
        self.steps += 1
        return self._show(), float(self.place[0]), False, False, {}

    def _show(self) -> Any:
        return {"place": np.array(self.place), "phase": np.int64(1 + self.steps % 3)}


class Matrix(Drift):
    """Takes a matrix of actions, in double precision."""

    def __init__(self) -> None:
        super().__init__()
        self.action_space = gym.spaces.Box(-1, 1, (2, 2), np.float64)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action), f"{action!r} is no action of {self.action_space}"
        self.place = np.clip(self.place + 0.2 * action.sum(0), -5, 5)
        self.steps += 1
        return self._show(), -float(np.linalg.norm(self.place)), False, False, {}


class ByObservation:
    """Prefers the segment that stays nearer to the origin; it never looks at an env
    reward.
    """

    def answer(self, query: Query) -> Answer | None:
        first, second = (
            float(np.abs(segment.obs[""][:, :2]).mean()) for segment in (query.first, query.second)
        )
        return Answer.FIRST if first < second else Answer.SECOND


class Contrary(ByObservation):
    """The other way round."""

    def answer(self, query: Query) -> Answer | None:
        return Answer.SECOND if super().answer(query) is Answer.FIRST else Answer.FIRST


class ByQueryId:
    """Answers by a hash of the query's id, all four answers now and then."""

    def answer(self, query: Query) -> Answer | None:
        answers = list(answers_to(2)) + 3 * [Answer.FIRST, Answer.SECOND]
        return answers[int(digest("by query id", query.id), 16) % len(answers)]


class Mute:
    """Skips every query."""

    def answer(self, query: Query) -> Answer | None:
        return None


class Picky(ByObservation):
    """Skips every second query."""

    def __init__(self) -> None:
        self.asked = 0

    def answer(self, query: Query) -> Answer | None:
        self.asked += 1
        return super().answer(query) if self.asked % 2 else None
