"""The weight of the L2 penalty, steered by how much worse a member does on preferences
it never saw.

Christiano et al. 2017 keep the validation loss between 1.1 and 1.5 times the training
loss; the rule is that of Ibarz et al. 2018 (A.3): per learning step x 1.001 above the
band, / 1.001 below. Both losses are cross-entropies without the penalty, measured on
minibatches and smoothed over about a hundred steps. Validation is measured every few
steps only, and the factor of those steps is applied at once.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch

from rlhp.config.schema import RewardConfig
from rlhp.types import Array

SMALLEST_RATIO, LARGEST_RATIO = 1.1, 1.5
"""Of validation loss to training loss: below the penalty shrinks, above it grows."""
FACTOR = 1.001
SMOOTHING_STEPS = 100
LOWEST, HIGHEST = 1e-8, 1.0
"""Below nothing is penalized, above nothing is learned."""


class AdaptivePenalty:
    """One weight per member. `reward.l2 = 0` switches the penalty off: no factor moves
    zero.
    """

    def __init__(self, config: RewardConfig, *, members: int) -> None:
        self._adaptive = config.l2_adaptive and config.l2 > 0
        start = min(max(config.l2, LOWEST), HIGHEST) if self._adaptive else config.l2
        self.weights: Array = np.full(members, start)
        self._train = _Smoothed(members)
        self._validation = _Smoothed(members)

    @property
    def adaptive(self) -> bool:
        """Whether validation losses are of any use."""
        return self._adaptive

    def saw_training(self, losses: Array) -> None:
        """Training losses [M] of one step; NaN for a member that took none."""
        self._train.add(losses, steps=1)

    def saw_validation(self, losses: Array, *, steps: int) -> None:
        """Validation losses [M], NaN for a member without such preferences: moves the
        weights by `steps` steps.
        """
        self._validation.add(losses, steps=steps)
        train, validation = self._train.value, self._validation.value
        factor = FACTOR**steps
        # a NaN on either side compares as False: the weight stays
        with np.errstate(invalid="ignore"):
            grow, shrink = validation > LARGEST_RATIO * train, validation < SMALLEST_RATIO * train
        moved = np.where(
            grow, self.weights * factor, np.where(shrink, self.weights / factor, self.weights)
        )
        self.weights = np.clip(moved, LOWEST, HIGHEST)

    @property
    def train_loss(self) -> float | None:
        """Smoothed training loss, the mean of the members; None before the first step."""
        known = self._train.value[np.isfinite(self._train.value)]
        return float(known.mean()) if len(known) else None

    @property
    def ratio(self) -> Array:
        """Smoothed validation loss over smoothed training loss [M]; NaN where either is
        unknown.
        """
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(self._validation.value / self._train.value)

    def state_dict(self) -> dict[str, Any]:
        """Tensors only."""
        parts = {"train": self._train.state_dict(), "validation": self._validation.state_dict()}
        return {"weights": torch.tensor(self.weights), **parts}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of `state_dict`."""
        self.weights = state["weights"].numpy().copy()
        self._train.load_state_dict(state["train"])
        self._validation.load_state_dict(state["validation"])


class _Smoothed:
    """An exponential average per member that forgets over SMOOTHING_STEPS and is
    unbiased from the first value.
    """

    def __init__(self, members: int) -> None:
        self._sum = np.zeros(members)
        self._mass = np.zeros(members)

    def add(self, values: Array, *, steps: int) -> None:
        keep = math.exp(-steps / SMOOTHING_STEPS)
        known = ~np.isnan(values)
        self._sum = np.where(
            known, keep * self._sum + (1 - keep) * np.nan_to_num(values), self._sum
        )
        self._mass = np.where(known, keep * self._mass + (1 - keep), self._mass)

    @property
    def value(self) -> Array:
        with np.errstate(invalid="ignore"):
            return np.asarray(self._sum / self._mass)

    def state_dict(self) -> dict[str, Any]:
        return {"sum": torch.tensor(self._sum), "mass": torch.tensor(self._mass)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._sum = state["sum"].numpy().copy()
        self._mass = state["mass"].numpy().copy()
