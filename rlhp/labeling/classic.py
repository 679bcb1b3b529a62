"""Gymnasium's small worlds, which draw themselves once they are put into a state that their observation tells."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from rlhp.types import Array

Put = Callable[[Any, Array, Array | None], None]
"""Put the unwrapped environment into what was observed, [*O], after the action before it (None at the start)."""


def _cart_pole(inner: Any, seen: Array, _: Array | None) -> None:
    inner.state = tuple(float(value) for value in seen)


def _pendulum(inner: Any, seen: Array, action: Array | None) -> None:
    inner.state = np.array([np.arctan2(seen[1], seen[0]), seen[2]])
    # The arrow that shows the torque.
    inner.last_u = None if action is None else float(np.clip(action[0], -inner.max_torque, inner.max_torque))


def _acrobot(inner: Any, seen: Array, _: Array | None) -> None:
    inner.state = np.array([np.arctan2(seen[1], seen[0]), np.arctan2(seen[3], seen[2]), seen[4], seen[5]])


def _mountain_car(inner: Any, seen: Array, _: Array | None) -> None:
    inner.state = np.array(seen, np.float64)


def _square(inner: Any, seen: Array, action: Array | None) -> None:
    inner.s, inner.lastaction = int(seen), None if action is None else int(action)


WORLDS: dict[str, Put] = {
    "CartPoleEnv": _cart_pole,
    "PendulumEnv": _pendulum,
    "AcrobotEnv": _acrobot,
    "MountainCarEnv": _mountain_car,
    "Continuous_MountainCarEnv": _mountain_car,
    "FrozenLakeEnv": _square,
    "TaxiEnv": _square,
    "CliffWalkingEnv": _square,
}
"""By the name of Gymnasium's class: all of `rlhp.rollout.drawable.SMALL_WORLDS`."""
