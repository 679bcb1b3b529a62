"""What a reward ensemble is fitted to and how well it fits, as pure functions (Christiano et al. 2017, section 2.2.3).

Shapes: M members, B preferences, K steps per segment. A return is the sum of predicted rewards over one segment,
undiscounted. Targets and weights are [B] or [M, B]; a weight is how often a preference lies in a member's bag.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

TIE = 0.5
UNDECIDED = 1e-6
"""A probability this close to one half is rounding, not an opinion."""
CALIBRATION_BINS = 10


def segment_returns(rewards: Tensor, mask: Tensor) -> Tensor:
    """Rewards [..., K], mask [..., K] True for real steps -> returns [...]. Padded steps count nothing."""
    return torch.where(mask, rewards, 0.0).sum(-1)  # a sum, not a mean: longer segments are judged more surely


def first_preferred(first_MB: Tensor, second_MB: Tensor, *, error_rate: float) -> Tensor:
    """P(first preferred) [M, B] from the returns of both segments, inside [error_rate / 2, 1 - error_rate / 2]."""
    return (1 - error_rate) * (first_MB - second_MB).sigmoid() + error_rate / 2


def preference_loss(
    first_MB: Tensor, second_MB: Tensor, target: Tensor, *, error_rate: float, weights: Tensor | None = None
) -> Tensor:
    """Cross-entropy of every member's P(first preferred) against the answers: [M], without the L2 penalty.

    A labeler answers at random with probability `error_rate` (Ibarz et al. 2018, A.3), which bounds the loss of one
    wrong answer. The price: a member that is confidently wrong learns almost nothing from that answer.
    """
    logits_MB = first_MB - second_MB
    cross_entropy_MB = -(
        target * _log_probability(logits_MB, error_rate) + (1 - target) * _log_probability(-logits_MB, error_rate)
    )
    return _mean(cross_entropy_MB, weights)


def regression_loss(first_MB: Tensor, second_MB: Tensor, true_B2: Tensor, *, weights: Tensor | None = None) -> Tensor:
    """Mean squared error of both returns against the true ones [B, 2] or [M, B, 2], already standardised: [M].

    The paper's `target` ablation: it sees numbers where the method sees only comparisons.
    """
    errors_MB = ((first_MB - true_B2[..., 0]) ** 2 + (second_MB - true_B2[..., 1]) ** 2) / 2
    return _mean(errors_MB, weights)


def l2_penalty(parameters: Iterable[Tensor]) -> Tensor:
    """Sum of squares per member [M] of parameters [M, ...]. Hand it weights only: a bias does not overfit."""
    return torch.stack([parameter.square().flatten(1).sum(1) for parameter in parameters]).sum(0)


def loss_floor(tie_share: float, *, error_rate: float) -> float:
    """Smallest mean preference loss possible when this share of the answers are ties."""
    return tie_share * math.log(2) - (1 - tie_share) * math.log1p(-error_rate / 2)


def accuracy(p_first_MB: Tensor, target: Tensor, *, weights: Tensor | None = None) -> Tensor:
    """Share of decisive answers that each member predicts: [M], NaN without one. Ties are left out.

    A probability of one half counts as half right, so a constant reward scores 0.5.
    """
    right_MB = ((p_first_MB > 0.5) == (target > 0.5)).to(p_first_MB.dtype)
    right_MB = torch.where((p_first_MB - 0.5).abs() < UNDECIDED, 0.5, right_MB)
    return _mean(right_MB, _decisive(p_first_MB, target, weights))


def calibration_error(p_first_MB: Tensor, target: Tensor, *, weights: Tensor | None = None) -> Tensor:
    """Expected calibration error over ten bins of P(first preferred): [M], NaN without a decisive answer."""
    weights_MB = _decisive(p_first_MB, target, weights)
    bins_MB = (p_first_MB * CALIBRATION_BINS).long().clamp(max=CALIBRATION_BINS - 1)
    surplus_MB = weights_MB * (p_first_MB - target)
    surplus_MC = torch.zeros(len(p_first_MB), CALIBRATION_BINS, dtype=p_first_MB.dtype, device=p_first_MB.device)
    surplus_MC.scatter_add_(1, bins_MB, surplus_MB)
    return surplus_MC.abs().sum(1) / weights_MB.sum(1)


def member_correlation(rewards_MB: Tensor) -> float | None:
    """Mean pairwise Pearson correlation of the members' rewards; None for one member or a constant one."""
    centred_MB = rewards_MB.double() - rewards_MB.double().mean(1, keepdim=True)
    norms_M = centred_MB.norm(dim=1)
    members = len(rewards_MB)
    if members < 2 or rewards_MB.shape[1] < 2 or bool((norms_M == 0).any()):
        return None
    unit_MB = centred_MB / norms_M[:, None]
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
