"""MovingDot: a white dot in a dark field, seen as pixels only, to be steered to the
middle.

    rlhp train configs/moving_dot.yaml

The smallest task with pixels whose best return is known, after the one with which
Rahtz's reproduction of Christiano et al. 2017 begins (mrahtz/gym-moving-dot), at a size
that two CPU cores learn in minutes. A step pays how close the dot is: 1 in the middle,
0 from the first distance on. Theirs pays for coming closer, which is one unknown number
for each place and action, more than a few hundred answers can tell; this is one for
each place.

Every episode begins at a random place of the same distance (in moves of one pixel), so
`best_return` is that of whoever goes straight to the middle and stays, whatever the
seed.

Shapes: N environments, C frames per stack, S pixels along an edge.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from rlhp.errors import RlhpError
from rlhp.types import Array

SIZE = 24
STACK = 2
STEPS = 50
DOT = 2
"""Pixels along an edge of the dot."""
MOVES = np.array([(0, 0), (-1, 0), (1, 0), (0, -1), (0, 1)])
"""Stay, up, down, left, right: rows and columns by action."""
VIEW = 7
"""Pixels of a drawn frame per pixel of an observation."""


def first_distance(size: int = SIZE) -> int:
    """In moves, at which every episode begins: as far as the middle is from an edge."""
    return size // 2 - 1


def best_return(size: int = SIZE, *, steps: int = STEPS) -> float:
    """Of every episode of this many steps, at least as many as the first distance."""
    return steps - (first_distance(size) - 1) / 2


class Dots:
    """The world itself, N times: where the dots are and what has been seen of them."""

    def __init__(self, count: int, *, size: int, stack: int) -> None:
        if size < 12 or stack < 1:
            raise RlhpError(
                f"a field has at least 12 pixels along an edge and a stack one frame, got {size}, "
                f"{stack}"
            )
        self.place = np.zeros((count, 2), np.int64)
        """[N, 2] row and column of the upper left pixel."""
        self.frames = np.zeros((count, stack, size, size), np.uint8)
        """[N, C, S, S], oldest first."""
        self._size = size
        self._middle = (size - DOT) // 2

    def distance(self) -> Array:
        """[N] moves to the middle."""
        distance: Array = np.abs(self.place - self._middle).sum(1)
        return distance

    def begin(self, which: Array, rng: np.random.Generator) -> None:
        """Put the dots [N] of these environments somewhere at the first distance; their
        stacks show nothing else.
        """
        count = int(which.sum())
        reach = first_distance(self._size)
        rows = rng.integers(-reach, reach + 1, count)
        columns = (reach - np.abs(rows)) * rng.choice((-1, 1), count)
        self.place[which] = self._middle + np.stack([rows, columns], 1)
        self.frames[which] = self._draw()[which, None]

    def move(self, actions: Array, which: Array) -> Array:
        """Move the dots of these environments, and see where they are; what it pays
        [N].
        """
        moved = np.clip(self.place + MOVES[actions], 0, self._size - DOT)
        self.place = np.where(which[:, None], moved, self.place)
        seen = np.concatenate([self.frames[:, 1:], self._draw()[:, None]], 1)
        self.frames = np.where(which[:, None, None, None], seen, self.frames)
        return np.maximum(0.0, 1 - self.distance() / first_distance(self._size))

    def _draw(self) -> Array:
        frames = np.zeros((len(self.place), self._size, self._size), np.uint8)
        every = np.arange(len(self.place))
        for down in range(DOT):
            for right in range(DOT):
                frames[every, self.place[:, 0] + down, self.place[:, 1] + right] = 255
        return frames


class MovingDot(gym.Env[Array, Any]):
    """One of them. It never ends an episode by itself; drawn with the middle marked,
    from `rlhp_state`.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012  # as Gymnasium has it

    def __init__(
        self, *, size: int = SIZE, stack: int = STACK, render_mode: str | None = None
    ) -> None:
        self._dots = Dots(1, size=size, stack=stack)
        self.observation_space = gym.spaces.Box(0, 255, (stack, size, size), np.uint8)
        self.action_space = gym.spaces.Discrete(len(MOVES))
        self.render_mode = render_mode
        self._one = np.ones(1, bool)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Array, dict[str, Any]]:
        """At a random place."""
        super().reset(seed=seed)
        self._dots.begin(self._one, self.np_random)
        return self._dots.frames[0].copy(), {}

    def step(self, action: Any) -> tuple[Array, float, bool, bool, dict[str, Any]]:
        """One pixel, or none at an edge of the field."""
        pay = self._dots.move(np.array([action]), self._one)
        return self._dots.frames[0].copy(), float(pay[0]), False, False, {}

    def rlhp_state(self) -> list[float]:
        """Row and column of the dot."""
        return [float(value) for value in self._dots.place[0]]

    def rlhp_set_state(self, state: Sequence[float]) -> None:
        """The inverse; `render` follows."""
        self._dots.place[0] = [round(value) for value in state]

    def render(self) -> Any:
        """[7 S, 7 S, 3] uint8: what a person is shown, with a cross in the middle."""
        size = self._dots.frames.shape[-1]
        picture = np.full((size, size, 3), 24, np.uint8)
        middle = (size - DOT) // 2
        picture[middle : middle + DOT, :] = picture[:, middle : middle + DOT] = 64
        row, column = self._dots.place[0]
        picture[row : row + DOT, column : column + DOT] = 255
        return picture.repeat(VIEW, 0).repeat(VIEW, 1)


class MovingDots(VectorEnv[Array, Array, Array]):
    """Many of them in one array; an environment that is done is reset on its next step,
    whose action is ignored.
    """

    metadata = {**MovingDot.metadata, "autoreset_mode": AutoresetMode.NEXT_STEP}  # noqa: RUF012

    def __init__(
        self,
        num_envs: int,
        *,
        size: int = SIZE,
        stack: int = STACK,
        max_episode_steps: int = STEPS,
        **_: Any,
    ) -> None:
        self._dots = Dots(num_envs, size=size, stack=stack)
        self._limit = max_episode_steps
        self._steps = np.zeros(num_envs, np.int64)
        self._done = np.zeros(num_envs, bool)
        self.num_envs = num_envs
        self.single_observation_space = gym.spaces.Box(0, 255, (stack, size, size), np.uint8)
        self.single_action_space = gym.spaces.Discrete(len(MOVES))
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)

    def reset(
        self, *, seed: Any = None, options: dict[str, Any] | None = None
    ) -> tuple[Array, dict[str, Any]]:
        """All of them, from one seed."""
        super().reset(seed=seed)
        self._dots.begin(np.ones(self.num_envs, bool), self.np_random)
        self._steps[:], self._done[:] = 0, False
        return self._dots.frames.copy(), {}

    def step(self, actions: Array) -> tuple[Array, Array, Array, Array, dict[str, Any]]:
        """A step of those that go on, a reset of those that were done."""
        pay = np.where(self._done, 0.0, self._dots.move(np.asarray(actions), ~self._done))
        if self._done.any():
            self._dots.begin(self._done, self.np_random)
        self._steps = np.where(self._done, 0, self._steps + 1)
        self._done = self._steps >= self._limit
        return self._dots.frames.copy(), pay, np.zeros(self.num_envs, bool), self._done.copy(), {}


gym.register(
    id="MovingDot-v0",
    entry_point="rlhp.envs.moving_dot:MovingDot",
    vector_entry_point="rlhp.envs.moving_dot:MovingDots",
    max_episode_steps=STEPS,
)
