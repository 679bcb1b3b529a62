"""What a reward ensemble is fitted to and how well it fits, as pure functions
(Christiano et al. 2017, section 2.2.3).

Shapes: M members, B preferences, K steps per segment. A return is the sum of predicted
rewards over one segment, undiscounted. Targets and weights are [B] or [M, B]; a weight
is how often a preference lies in a member's bag.

How well the ensemble knows the preferences, in the numbers that a run logs.

Shapes: M members, N preferences. Returns are sums of predicted rewards over a segment.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from rlhp.config.schema import RewardConfig
from rlhp.errors import RlhpError
from rlhp.reward.data import Subset
from rlhp.types import Array

TIE = 0.5
UNDECIDED = 1e-6
"""A probability this close to one half is rounding, not an opinion."""
CALIBRATION_BINS = 10


def segment_returns(rewards: Tensor, mask: Tensor) -> Tensor:
    """Rewards [..., K], mask [..., K] True for real steps -> returns [...]. Padded
    steps count nothing.
    """
    # a sum, not a mean: longer segments are judged more surely
    return torch.where(mask, rewards, 0.0).sum(-1)


def first_preferred(first_MB: Tensor, second_MB: Tensor, *, error_rate: float) -> Tensor:
    """P(first preferred) [M, B] from the returns of both segments, inside [error_rate /
    2, 1 - error_rate / 2].
    """
    return (1 - error_rate) * (first_MB - second_MB).sigmoid() + error_rate / 2


def preference_loss(
    first_MB: Tensor,
    second_MB: Tensor,
    target: Tensor,
    *,
    error_rate: float,
    weights: Tensor | None = None,
) -> Tensor:
    """Cross-entropy of every member's P(first preferred) against the answers: [M],
    without the L2 penalty.

    A labeler answers at random with probability `error_rate` (Ibarz et al. 2018, A.3),
    which bounds the loss of one wrong answer. The price: a member that is confidently
    wrong learns almost nothing from that answer.
    """
    logits_MB = first_MB - second_MB
    cross_entropy_MB = -(
        target * _log_probability(logits_MB, error_rate)
        + (1 - target) * _log_probability(-logits_MB, error_rate)
    )
    return _mean(cross_entropy_MB, weights)


def regression_loss(
    first_MB: Tensor, second_MB: Tensor, true_B2: Tensor, *, weights: Tensor | None = None
) -> Tensor:
    """Mean squared error of both returns against the true ones [B, 2] or [M, B, 2],
    already standardized: [M].

    The paper's `target` ablation: it sees numbers where the method sees only
    comparisons.
    """
    errors_MB = ((first_MB - true_B2[..., 0]) ** 2 + (second_MB - true_B2[..., 1]) ** 2) / 2
    return _mean(errors_MB, weights)


def l2_penalty(parameters: Iterable[Tensor]) -> Tensor:
    """Sum of squares per member [M] of parameters [M, ...]. Hand it weights only: a
    bias does not overfit.
    """
    return torch.stack([parameter.square().flatten(1).sum(1) for parameter in parameters]).sum(0)


def loss_floor(tie_share: float, *, error_rate: float) -> float:
    """Smallest mean preference loss possible when this share of the answers are ties."""
    return tie_share * math.log(2) - (1 - tie_share) * math.log1p(-error_rate / 2)


def accuracy(p_first_MB: Tensor, target: Tensor, *, weights: Tensor | None = None) -> Tensor:
    """Share of decisive answers that each member predicts: [M], NaN without one. Ties
    are left out.

    A probability of one half counts as half right, so a constant reward scores 0.5.
    """
    right_MB = ((p_first_MB > 0.5) == (target > 0.5)).to(p_first_MB.dtype)
    right_MB = torch.where((p_first_MB - 0.5).abs() < UNDECIDED, 0.5, right_MB)
    return _mean(right_MB, _decisive(p_first_MB, target, weights))


def calibration_error(
    p_first_MB: Tensor, target: Tensor, *, weights: Tensor | None = None
) -> Tensor:
    """Expected calibration error over ten bins of P(first preferred): [M], NaN without
    a decisive answer.
    """
    weights_MB = _decisive(p_first_MB, target, weights)
    bins_MB = (p_first_MB * CALIBRATION_BINS).long().clamp(max=CALIBRATION_BINS - 1)
    surplus_MB = weights_MB * (p_first_MB - target)
    surplus_MC = torch.zeros(
        len(p_first_MB), CALIBRATION_BINS, dtype=p_first_MB.dtype, device=p_first_MB.device
    )
    surplus_MC.scatter_add_(1, bins_MB, surplus_MB)
    return surplus_MC.abs().sum(1) / weights_MB.sum(1)


def member_correlation(rewards_MB: Tensor) -> float | None:
    """Mean pairwise Pearson correlation of the members' rewards; None for one member or
    a constant one.
    """
    centered_MB = rewards_MB.double() - rewards_MB.double().mean(1, keepdim=True)
    norms_M = centered_MB.norm(dim=1)
    members = len(rewards_MB)
    if members < 2 or rewards_MB.shape[1] < 2 or bool((norms_M == 0).any()):
        return None
    unit_MB = centered_MB / norms_M[:, None]
    return float(((unit_MB @ unit_MB.T).sum() - members) / (members * (members - 1)))


def _log_probability(logits: Tensor, error_rate: float) -> Tensor:
    """ln((1 - e) sigmoid(logits) + e / 2), finite for any logits, e = 0 included."""
    certain = logsigmoid(logits) + math.log1p(-error_rate)
    if error_rate == 0:
        return certain
    return torch.logaddexp(certain, torch.full_like(certain, math.log(error_rate / 2)))


def _decisive(p_first_MB: Tensor, target: Tensor, weights: Tensor | None) -> Tensor:
    decisive = (target != TIE).to(p_first_MB.dtype)
    return (decisive if weights is None else decisive * weights).expand_as(p_first_MB)


def _mean(values_MB: Tensor, weights: Tensor | None) -> Tensor:
    """Weighted mean over preferences: [M], NaN where a member has no weight."""
    if weights is None:
        return values_MB.mean(-1)
    return (values_MB * weights).sum(-1) / weights.expand_as(values_MB).sum(-1)


pass


@dataclass(frozen=True, kw_only=True, slots=True)
class FitReport:
    """Means over the members, None where nothing measures it yet.

    Losses are over all preferences, dropout off, without the penalty. Accuracies leave
    ties out. Held-out numbers judge the ensemble's mean probability on the held-out
    answers or, where none are held out, each member on the answers outside its own bag.
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
    """Mean pairwise correlation of the members' rewards over the recent transitions of
    the last publication.
    """


def losses(
    first_MN: Tensor, second_MN: Tensor, part: Subset, *, config: RewardConfig, weights: Tensor
) -> Tensor:
    """The loss of every member over these preferences, by weight [M, N]: [M], NaN for a
    member without any.
    """
    if config.loss == "regression":
        return regression_loss(first_MN, second_MN, part.returns, weights=weights)
    return preference_loss(
        first_MN, second_MN, part.target, error_rate=config.error_rate, weights=weights
    )


def assess(
    first_MN: Tensor,
    second_MN: Tensor,
    part: Subset,
    *,
    config: RewardConfig,
    updates: int,
    preferences: int,
    l2: float,
    member_correlation: float | None,
) -> FitReport:
    """The report on predicted returns of these preferences, of so many."""
    target_N, bags_MN, validation_MN = part.target, part.bags, part.validation
    p_first_MN = first_preferred(first_MN, second_MN, error_rate=config.error_rate)
    ties_M = (bags_MN * (target_N == TIE)).sum(1) / bags_MN.sum(1)
    floors = torch.tensor(
        [loss_floor(share, error_rate=config.error_rate) for share in ties_M.tolist()]
    )
    if bool(part.held_out.any()):
        judged, weights = p_first_MN.mean(0, keepdim=True), part.held_out[None]
    else:
        judged, weights = p_first_MN, validation_MN
    return FitReport(
        updates=updates,
        preferences=preferences,
        train_loss=mean_known(losses(first_MN, second_MN, part, config=config, weights=bags_MN)),
        val_loss=mean_known(
            losses(first_MN, second_MN, part, config=config, weights=validation_MN)
        ),
        loss_floor=0.0 if config.loss == "regression" else mean_known(floors),
        l2=l2,
        train_accuracy=mean_known(accuracy(p_first_MN, target_N, weights=bags_MN)),
        heldout_accuracy=mean_known(accuracy(judged, target_N, weights=weights)),
        calibration_error=mean_known(calibration_error(judged, target_N, weights=weights)),
        member_correlation=member_correlation,
    )


def mean_known(values_M: Tensor) -> float | None:
    """Mean of those that are not NaN, None if there are none."""
    known = values_M[~values_M.isnan()]
    return float(known.mean()) if len(known) else None


def numbers(losses_M: Tensor, active_M: Tensor) -> Array:
    """Losses [M] as float64, NaN for a member that had no rows; ValueError where one is
    not finite.
    """
    losses = losses_M.detach().cpu().numpy().astype(np.float64)
    active = active_M.cpu().numpy()
    if not np.isfinite(losses[active]).all():
        raise RlhpError(
            f"the reward ensemble diverged: losses of its members are {losses.tolist()}; lower "
            "reward.lr, or clean the observations of extreme values"
        )
    return np.where(active, losses, np.nan)
