"""What a policy is shown and what its draws do to the world: the same for a rollout and for an evaluation.

Shapes: N environments, A action.
"""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np

from rlhp.types import Array


def as_seen(obs: Array) -> Array:
    """Observations that are not normalised, as a policy takes them: float32, pictures as they are."""
    return obs if obs.dtype == np.uint8 and obs.ndim > 2 else obs.astype(np.float32)


def executed_actions(sampled: Array, space: gym.Space[Any]) -> Array:
    """Sampled [N, *A] -> executed [N, *A]: the same for a rollout and for an evaluation."""
    if isinstance(space, gym.spaces.Box):
        scaled = space.low + (sampled + 1.0) * 0.5 * (space.high - space.low)
        clipped: Array = np.minimum(np.maximum(scaled, space.low), space.high)  # np.clip asks around first
        return clipped.astype(space.dtype, copy=False)
    if isinstance(space, gym.spaces.Discrete | gym.spaces.MultiDiscrete):
        shifted: Array = (sampled + np.asarray(space.start)).astype(np.int64)
        return shifted
    raise TypeError(f"no such action space: {space}")
