"""How well the ensemble knows the preferences, in the numbers that a run logs.

Shapes: M members, N preferences. Returns are sums of predicted rewards over a segment.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from rlhp.config import RewardConfig
from rlhp.errors import RlhpError
from rlhp.reward import loss
from rlhp.reward.examples import Part
from rlhp.types import Array


@dataclass(frozen=True, kw_only=True, slots=True)
class FitReport:
    """Means over the members, None where nothing measures it yet.

    Losses are over all preferences, dropout off, without the penalty. Accuracies leave ties out. Held-out numbers
    judge the ensemble's mean probability on the held-out answers or, where none are held out, each member on the
    answers outside its own bag.
    """

    updates: int
    """Gradient steps so far."""
    preferences: int
    train_loss: float | None
    val_loss: float | None
    loss_floor: float | None
    """What the training loss cannot fall below, given the ties; 0 for regression."""
    l2: float
    """Mean weight of the L2 penalty."""
    train_accuracy: float | None
    heldout_accuracy: float | None
    calibration_error: float | None
    """Of P(first preferred), on the same answers as the held-out accuracy."""
    member_correlation: float | None
    """Mean pairwise correlation of the members' rewards over the recent transitions of the last publication."""


def losses(first_MN: Tensor, second_MN: Tensor, part: Part, *, config: RewardConfig, weights: Tensor) -> Tensor:
    """The loss of every member over these preferences, by weight [M, N]: [M], NaN for a member without any."""
    if config.loss == "regression":
        return loss.regression_loss(first_MN, second_MN, part.returns, weights=weights)
    return loss.preference_loss(first_MN, second_MN, part.target, error_rate=config.error_rate, weights=weights)


def assess(
    first_MN: Tensor,
    second_MN: Tensor,
    part: Part,
    *,
    config: RewardConfig,
    updates: int,
    preferences: int,
    l2: float,
    member_correlation: float | None,
) -> FitReport:
    """The report on predicted returns of these preferences, of so many."""
    target_N, bags_MN, validation_MN = part.target, part.bags, part.validation
    p_first_MN = loss.first_preferred(first_MN, second_MN, error_rate=config.error_rate)
    ties_M = (bags_MN * (target_N == loss.TIE)).sum(1) / bags_MN.sum(1)
    floors = torch.tensor([loss.loss_floor(share, error_rate=config.error_rate) for share in ties_M.tolist()])
    if bool(part.held_out.any()):
        judged, weights = p_first_MN.mean(0, keepdim=True), part.held_out[None]
    else:
        judged, weights = p_first_MN, validation_MN
    return FitReport(
        updates=updates,
        preferences=preferences,
        train_loss=mean_known(losses(first_MN, second_MN, part, config=config, weights=bags_MN)),
        val_loss=mean_known(losses(first_MN, second_MN, part, config=config, weights=validation_MN)),
        loss_floor=0.0 if config.loss == "regression" else mean_known(floors),
        l2=l2,
        train_accuracy=mean_known(loss.accuracy(p_first_MN, target_N, weights=bags_MN)),
        heldout_accuracy=mean_known(loss.accuracy(judged, target_N, weights=weights)),
        calibration_error=mean_known(loss.calibration_error(judged, target_N, weights=weights)),
        member_correlation=member_correlation,
    )


def mean_known(values_M: Tensor) -> float | None:
    """Mean of those that are not NaN, None if there are none."""
    known = values_M[~values_M.isnan()]
    return float(known.mean()) if len(known) else None


def numbers(losses_M: Tensor, active_M: Tensor) -> Array:
    """Losses [M] as float64, NaN for a member that had no rows; ValueError where one is not finite."""
    losses = losses_M.detach().cpu().numpy().astype(np.float64)
    active = active_M.cpu().numpy()
    if not np.isfinite(losses[active]).all():
        raise RlhpError(
            f"the reward ensemble diverged: losses of its members are {losses.tolist()}; lower reward.lr, or clean the "
            "observations of extreme values"
        )
    return np.where(active, losses, np.nan)
