"""What a reward ensemble is fitted to and how well it fits, as pure functions
(Christiano et al. 2017, section 2.2.3).

A labeler is taken to choose among the C candidates of a query by the softmax of their
returns, which for a pair is the Bradley-Terry model of the paper.

Shapes: M members, B preferences, C candidates of the widest query, K steps per segment. A
return is the sum of predicted rewards over one segment, undiscounted. Targets are [B, C]
or [M, B, C], and so is `present`, False where a query has no such candidate; without it
all have C. Weights are [B] or [M, B]: how often a preference lies in a member's bag.

How well the ensemble knows the preferences, in the numbers that a run logs.

Shapes: M members, N preferences. Returns are sums of predicted rewards over a segment.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from rlhp.config.schema import RewardConfig
from rlhp.errors import RlhpError
from rlhp.reward.data import Subset
from rlhp.types import Array

UNDECIDED = 2e-6
"""Probabilities this close to each other differ by rounding, not by an opinion."""
CALIBRATION_BINS = 10


def segment_returns(rewards: Tensor, mask: Tensor) -> Tensor:
    """Rewards [..., K], mask [..., K] True for real steps -> returns [...]. Padded
    steps count nothing.
    """
    # a sum, not a mean: longer segments are judged more surely
    return torch.where(mask, rewards, 0.0).sum(-1)


def choice_probabilities(
    returns_MBC: Tensor, *, error_rate: float, present: Tensor | None = None
) -> Tensor:
    """P(each candidate preferred) [M, B, C] from the returns of all: with
    `error_rate` any of them is named at random. 0 where there is no candidate.
    """
    by_chance = _each(returns_MBC, present, lambda count: error_rate / count)
    p_MBC = (1 - error_rate) * log_odds(returns_MBC, present).sigmoid() + by_chance
    return p_MBC if present is None else torch.where(present, p_MBC, 0.0)


def preference_loss(
    returns_MBC: Tensor,
    target: Tensor,
    *,
    error_rate: float,
    weights: Tensor | None = None,
    present: Tensor | None = None,
) -> Tensor:
    """Cross-entropy of every member's P(each candidate preferred) against the answers:
    [M], without the L2 penalty.

    A labeler answers at random with probability `error_rate` (Ibarz et al. 2018, A.3),
    which bounds the loss of one wrong answer. The price: a member that is confidently
    wrong learns almost nothing from that answer.
    """
    log_p_MBC = logsigmoid(log_odds(returns_MBC, present)) + math.log1p(-error_rate)
    if error_rate:
        by_chance = _each(returns_MBC, present, lambda count: math.log(error_rate / count))
        log_p_MBC = torch.logaddexp(log_p_MBC, by_chance.expand_as(log_p_MBC))
    return _mean(-(target * log_p_MBC).sum(-1), weights)


def log_odds(returns_MBC: Tensor, present: Tensor | None = None) -> Tensor:
    """ln(P / (1 - P)) [M, B, C] of each candidate under the softmax of the returns.

    That is its return less the log-sum-exp of the others, so for a pair the difference
    of two returns, and accurate however large it is. 0 where there is no candidate.
    """
    if present is not None:
        returns_MBC = returns_MBC.masked_fill(~present, -torch.inf)
    each = returns_MBC.unbind(-1)
    odds = [
        own - torch.stack([*each[:c], *each[c + 1 :]], -1).logsumexp(-1)
        for c, own in enumerate(each)
    ]
    odds_MBC = torch.stack(odds, -1)
    return odds_MBC if present is None else torch.where(present, odds_MBC, 0.0)


def regression_loss(
    returns_MBC: Tensor,
    true: Tensor,
    *,
    weights: Tensor | None = None,
    present: Tensor | None = None,
) -> Tensor:
    """Mean squared error of the returns against the true ones [B, C] or [M, B, C],
    already standardized: [M].

    The paper's `target` ablation: it sees numbers where the method sees only
    comparisons.
    """
    errors_MBC = (returns_MBC - true) ** 2
    if present is None:
        return _mean(errors_MBC.mean(-1), weights)
    errors_MB = torch.where(present, errors_MBC, 0.0).sum(-1) / present.sum(-1)
    return _mean(errors_MB, weights)


def l2_penalty(parameters: Iterable[Tensor]) -> Tensor:
    """Sum of squares per member [M] of parameters [M, ...]. Hand it weights only: a
    bias does not overfit.
    """
    return torch.stack([parameter.square().flatten(1).sum(1) for parameter in parameters]).sum(0)


def loss_floor(target: Tensor, *, error_rate: float, present: Tensor | None = None) -> Tensor:
    """Smallest loss possible on each of these answers [B, C]: [B]."""
    tie = _each(target, present, math.log)
    decisive = _each(target, present, lambda count: -math.log1p(-error_rate * (1 - 1 / count)))
    return torch.where(_is_decisive(target), decisive[..., 0], tie[..., 0])


def accuracy(p_MBC: Tensor, target: Tensor, *, weights: Tensor | None = None) -> Tensor:
    """Share of decisive answers that each member predicts: [M], NaN without one. Ties
    are left out.

    Where several candidates are equally likely, each of them is predicted in part, so a
    constant reward scores 0.5 on pairs.
    """
    likeliest_MBC = p_MBC > p_MBC.amax(-1, keepdim=True) - UNDECIDED
    right_MB = (likeliest_MBC * target).sum(-1) / likeliest_MBC.sum(-1)
    return _mean(right_MB, _decisive(p_MBC, target, weights))


def calibration_error(p_MBC: Tensor, target: Tensor, *, weights: Tensor | None = None) -> Tensor:
    """Expected calibration error over ten bins of P(first preferred): [M], NaN without
    a decisive answer.
    """
    weights_MB, p_first_MB = _decisive(p_MBC, target, weights), p_MBC[..., 0]
    bins_MB = (p_first_MB * CALIBRATION_BINS).long().clamp(max=CALIBRATION_BINS - 1)
    surplus_MB = weights_MB * (p_first_MB - target[..., 0])
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


def _each(like: Tensor, present: Tensor | None, value: Callable[[int], float]) -> Tensor:
    """[B, 1] this value of the number of candidates, as the tensor `like` [*, C] has
    numbers.
    """
    most = like.shape[-1]
    by_count = like.new_tensor([math.nan, *(value(count) for count in range(1, most + 1))])
    return by_count[-1:] if present is None else by_count[present.sum(-1, keepdim=True)]


def _is_decisive(target: Tensor) -> Tensor:
    return target.amax(-1) == 1


def _decisive(p_MBC: Tensor, target: Tensor, weights: Tensor | None) -> Tensor:
    decisive = _is_decisive(target).to(p_MBC.dtype)
    return (decisive if weights is None else decisive * weights).expand(p_MBC.shape[:-1])


def _mean(values_MB: Tensor, weights: Tensor | None) -> Tensor:
    """Weighted mean over preferences: [M], NaN where a member has no weight."""
    if weights is None:
        return values_MB.mean(-1)
    return (values_MB * weights).sum(-1) / weights.expand_as(values_MB).sum(-1)


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


def losses(returns_MNC: Tensor, part: Subset, *, config: RewardConfig, weights: Tensor) -> Tensor:
    """The loss of every member over these preferences, by weight [M, N]: [M], NaN for a
    member without any.
    """
    if config.loss == "regression":
        return regression_loss(returns_MNC, part.returns, weights=weights, present=part.present)
    return preference_loss(
        returns_MNC,
        part.target,
        error_rate=config.error_rate,
        weights=weights,
        present=part.present,
    )


def assess(
    returns_MNC: Tensor,
    part: Subset,
    *,
    config: RewardConfig,
    updates: int,
    preferences: int,
    l2: float,
    member_correlation: float | None,
) -> FitReport:
    """The report on predicted returns of these preferences, of so many."""
    target_NC, bags_MN, validation_MN = part.target, part.bags, part.validation
    rate, present = config.error_rate, part.present
    p_MNC = choice_probabilities(returns_MNC, error_rate=rate, present=present)
    floor_N = loss_floor(target_NC, error_rate=rate, present=present)
    floors_M = _mean(floor_N.expand_as(bags_MN), bags_MN)
    if bool(part.held_out.any()):
        judged, weights = p_MNC.mean(0, keepdim=True), part.held_out[None]
    else:
        judged, weights = p_MNC, validation_MN
    return FitReport(
        updates=updates,
        preferences=preferences,
        train_loss=mean_known(losses(returns_MNC, part, config=config, weights=bags_MN)),
        val_loss=mean_known(losses(returns_MNC, part, config=config, weights=validation_MN)),
        loss_floor=0.0 if config.loss == "regression" else mean_known(floors_M),
        l2=l2,
        train_accuracy=mean_known(accuracy(p_MNC, target_NC, weights=bags_MN)),
        heldout_accuracy=mean_known(accuracy(judged, target_NC, weights=weights)),
        calibration_error=mean_known(calibration_error(judged, target_NC, weights=weights)),
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
