"""What the reward networks see: standardized observations, and the recent transitions
that fix every scale.

The reward model owns its normalizer. It travels with the weights of a version, so
whoever holds the version sees observations alike. Continuous actions are standardized
too, since their bounds may be anything; discrete ones are zeros and ones and stay as
they are.

Shapes: N transitions, O observation as a row, A encoded action, F = O + A inputs of an
MLP.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rlhp.envs.spaces import ObsSpec
from rlhp.errors import RlhpError
from rlhp.types import Array

CLIP = 10.0
"""Standard deviations: beyond, an observation says no more than that it is extreme."""
CONSTANT = 1e-6
"""A feature that varies less has shown no scale yet: it keeps its own."""


class InputNormalizer(nn.Module):
    """Raw inputs [..., F] -> standardized and clipped; discrete actions have mean 0 and
    std 1 here.
    """

    mean: Tensor
    std: Tensor
    limit: Tensor

    def __init__(self, *, obs_size: int, action_size: int) -> None:
        super().__init__()
        size = obs_size + action_size
        limit = torch.full((size,), CLIP)
        limit[obs_size:] = torch.inf
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("std", torch.ones(size))
        self.register_buffer("limit", limit)

    def forward(self, inputs: Tensor) -> Tensor:
        """Standardized inputs, shaped as they came."""
        return ((inputs - self.mean) / self.std).clamp(-self.limit, self.limit)

    @torch.no_grad()
    def set(self, mean_F: Array, std_F: Array) -> tuple[Tensor, Tensor]:
        """Use these from now on. Returns shift [F] and scale [F]: unclipped, old inputs
        = new * scale + shift.
        """
        mean, std = (
            torch.as_tensor(part, dtype=self.mean.dtype).to(self.mean.device)
            for part in (mean_F, std_F)
        )
        shift, scale = (mean - self.mean) / self.std, std / self.std
        self.mean.copy_(mean)
        self.std.copy_(std)
        return shift, scale


class Moments:
    """Running mean and standard deviation of every feature, in float64, over all rows
    ever seen.

    It forgets nothing: old segments stay in the training data, so their range must stay
    in the scale.
    """

    def __init__(self, size: int) -> None:
        self.count = 0
        self.mean = np.zeros(size)
        self._squares = np.zeros(size)

    def add(self, rows: Array) -> None:
        """Take in rows [N, size] (Chan et al. 1979: moments of two sets, merged)."""
        if len(rows) == 0:
            return
        exact = np.asarray(rows, np.float64)
        mean = exact.mean(0)
        total = self.count + len(exact)
        difference = mean - self.mean
        self._squares += ((exact - mean) ** 2).sum(0) + difference**2 * (
            self.count * len(exact) / total
        )
        self.mean = self.mean + difference * (len(exact) / total)
        self.count = total

    @property
    def std(self) -> Array:
        """Population standard deviation; 1 where a feature has not moved yet."""
        std = np.sqrt(self._squares / max(1, self.count))
        return np.where(std < CONSTANT, 1.0, std)

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain values."""
        return {
            "count": self.count,
            "mean": torch.tensor(self.mean),
            "squares": torch.tensor(self._squares),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of `state_dict`."""
        self.count = int(state["count"])
        self.mean = state["mean"].numpy().copy()
        self._squares = state["squares"].numpy().copy()


class Reservoir:
    """The newest transitions, at most `size`: what the scale of a reward version is
    measured on.
    """

    def __init__(self, size: int, *, obs: ObsSpec, action_size: int) -> None:
        self._pictures = obs.picture is not None
        # of pictures nobody asks for them
        self.moments = Moments(0 if self._pictures else obs.size + action_size)
        """Mean and standard deviation of observations and actions, side by side as [F].
        """
        self._obs = np.empty((0, *obs.row_shape), np.uint8 if self._pictures else np.float32)
        self._actions = np.empty((0, action_size), np.float32)
        self._size = size

    def __len__(self) -> int:
        return len(self._obs)

    def add(self, obs: Array, actions: Array) -> None:
        """Observations [N, *O] and encoded actions [N, A]; ValueError where a number is
        not finite.
        """
        if (
            obs.shape != (len(actions), *self._obs.shape[1:])
            or actions.shape[1:] != self._actions.shape[1:]
        ):
            raise ValueError(
                f"transitions are observations [N, {', '.join(map(str, self._obs.shape[1:]))}] "
                f"and encoded actions [N, {self._actions.shape[1]}]; got {obs.shape} and "
                f"{actions.shape}"
            )
        if not np.isfinite(obs).all() or not np.isfinite(actions).all():
            raise RlhpError(
                "observations and actions must be finite, or no reward could be scaled by them; "
                "got NaN or infinity among new transitions. Wrap the environment so that it ends "
                "the episode before its state diverges."
            )
        if not self._pictures:
            self.moments.add(np.concatenate([obs, actions], axis=1))
        self._obs = np.concatenate([self._obs, obs.astype(self._obs.dtype)])[-self._size :]
        self._actions = np.concatenate([self._actions, actions.astype(np.float32)])[-self._size :]

    def rows(self) -> tuple[Array, Array]:
        """Observations [N, *O] and actions [N, A], oldest first."""
        return self._obs, self._actions

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain values."""
        return {
            "obs": torch.tensor(self._obs),
            "actions": torch.tensor(self._actions),
            "moments": self.moments.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of `state_dict`."""
        self._obs = state["obs"].numpy().copy()
        self._actions = state["actions"].numpy().copy()
        self.moments.load_state_dict(state["moments"])
