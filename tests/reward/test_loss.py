"""The loss and its statistics, against slow versions that look like the paper."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from rlhp.reward import loss
from rlhp.types import Array

ERROR_RATE = 0.1


def slow_loss(
    rewards_MB2K: Array, mask_B2K: Array, target_B: Array, *, error_rate: float
) -> list[float]:
    """Christiano et al. 2017, equation 1 and the cross-entropy below it, one number at
    a time.
    """
    losses = []
    for member in rewards_MB2K:
        total = 0.0
        for pair, masks, mu in zip(member, mask_B2K, target_B, strict=True):
            sums = [
                sum(r for r, real in zip(side, mask, strict=True) if real)
                for side, mask in zip(pair, masks, strict=True)
            ]
            p = math.exp(sums[0]) / (math.exp(sums[0]) + math.exp(sums[1]))
            p = (1 - error_rate) * p + error_rate * 0.5
            total -= mu * math.log(p) + (1 - mu) * math.log(1 - p)
        losses.append(total / len(target_B))
    return losses


def against(first: Tensor, second: Tensor | None = None) -> Tensor:
    """Returns [*, 2] of pairs, the second 0 unless given."""
    return torch.stack([first, torch.zeros_like(first) if second is None else second], -1)


def pair_target(p_first: Tensor) -> Tensor:
    """Targets [*, 2] of pairs."""
    return torch.stack([p_first, 1 - p_first], -1)


def of_logit(logit: float, *, target: float, error_rate: float = ERROR_RATE) -> tuple[float, float]:
    """Loss and d loss / d logit of one preference."""
    z = torch.tensor([[logit]], dtype=torch.float64, requires_grad=True)
    value = loss.preference_loss(
        against(z), pair_target(torch.tensor([target]).double()), error_rate=error_rate
    )
    value.sum().backward()  # type: ignore[no-untyped-call]
    assert z.grad is not None
    return float(value.detach()), float(z.grad)


@pytest.mark.parametrize("error_rate", [0.0, 0.1, 0.5])
def test_loss_is_the_cross_entropy_of_the_paper(error_rate: float) -> None:
    rng = np.random.default_rng(0)
    rewards = rng.normal(size=(3, 9, 2, 4))
    mask = rng.random((9, 2, 4)) < 0.8
    target = rng.choice([0.0, 0.5, 1.0], 9)
    returns = loss.segment_returns(torch.from_numpy(rewards), torch.from_numpy(mask))
    fast = loss.preference_loss(
        returns, pair_target(torch.from_numpy(target)), error_rate=error_rate
    )
    np.testing.assert_allclose(
        fast, slow_loss(rewards, mask, target, error_rate=error_rate), rtol=1e-12
    )


def test_probability_never_leaves_the_bounds_of_the_error_rate() -> None:
    returns = torch.linspace(-1e4, 1e4, 1001)[None]
    p = loss.choice_probabilities(against(returns), error_rate=ERROR_RATE)[..., 0]
    assert float(p.min()) == pytest.approx(0.05)
    assert float(p.max()) == pytest.approx(0.95)


@pytest.mark.parametrize("logit", [-1e4, -3.0, 0.0, 3.0, 1e4])
def test_a_decisive_answer_costs_between_0_0513_and_2_996_nats(logit: float) -> None:
    value, _ = of_logit(logit, target=1.0)
    assert -math.log(0.95) - 1e-12 <= value <= -math.log(0.05) + 1e-12


@pytest.mark.parametrize("logit", [-1e4, -0.1, 0.0, 0.1, 1e4])
def test_a_tie_costs_at_least_ln_2(logit: float) -> None:
    value, slope = of_logit(logit, target=0.5)
    assert value >= math.log(2) - 1e-12
    # it pulls both returns together
    assert math.copysign(1, slope) == math.copysign(1, logit) or abs(slope) < 1e-12


def test_gradient_peaks_at_0_627_and_vanishes_for_a_confidently_contradicted_answer() -> None:
    logits = np.linspace(-12, 12, 4801)
    z = torch.tensor(logits[None], requires_grad=True)
    target = torch.ones(len(logits), dtype=torch.float64)
    value = loss.preference_loss(against(z), pair_target(target), error_rate=ERROR_RATE)
    (gradient,) = torch.autograd.grad(value.sum() * len(logits), z)
    slopes = gradient[0].abs().numpy()
    peak = 1 / (1 + math.exp(-logits[slopes.argmax()]))
    assert slopes.max() == pytest.approx(0.627, abs=5e-4)
    assert peak == pytest.approx(0.187, abs=2e-3)
    assert slopes[0] < 1e-3
    assert abs(of_logit(-12.0, target=1.0, error_rate=0.0)[1]) == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize("error_rate", [0.0, 0.1])
def test_loss_and_gradient_stay_finite_for_any_returns(error_rate: float) -> None:
    for logit in (-1e5, 1e5):
        assert all(
            math.isfinite(number) for number in of_logit(logit, target=0.0, error_rate=error_rate)
        )


def test_a_constant_added_to_the_reward_changes_nothing() -> None:
    generator = torch.Generator().manual_seed(0)
    rewards = torch.randn(3, 5, 2, 4, generator=generator, dtype=torch.float64)
    target = torch.tensor([1.0, 0.0, 0.5, 1.0, 0.0]).double()
    mask = torch.ones(5, 2, 4, dtype=torch.bool)

    def value(r: Tensor) -> Tensor:
        returns = loss.segment_returns(r, mask)
        return loss.preference_loss(returns, pair_target(target), error_rate=ERROR_RATE)

    torch.testing.assert_close(value(rewards + 3), value(rewards))


def test_padded_steps_reach_neither_the_loss_nor_its_gradient() -> None:
    rewards = torch.tensor([[1.0, 2.0, torch.nan]], requires_grad=True)
    total = loss.segment_returns(rewards, torch.tensor([[True, True, False]]))
    total.sum().backward()  # type: ignore[no-untyped-call]
    assert total.tolist() == [3.0]
    assert rewards.grad is not None
    assert rewards.grad.tolist() == [[1.0, 1.0, 0.0]]


def test_a_weight_counts_as_repetition_and_zero_as_absence() -> None:
    generator = torch.Generator().manual_seed(1)
    first, second = torch.randn(2, 3, generator=generator), torch.randn(2, 3, generator=generator)
    target = pair_target(torch.tensor([1.0, 0.5, 0.0]))
    returns = against(first, second)
    weights = torch.tensor([[2, 1, 0], [0, 0, 0]])
    weighted = loss.preference_loss(returns, target, error_rate=ERROR_RATE, weights=weights)
    rows = torch.tensor([0, 0, 1])
    plain = loss.preference_loss(returns[:1, rows], target[rows], error_rate=ERROR_RATE)
    torch.testing.assert_close(weighted[:1], plain)
    assert math.isnan(weighted[1])


def test_regression_is_the_mean_squared_error_of_both_returns() -> None:
    rng = np.random.default_rng(2)
    first, second, true = rng.normal(size=(2, 4)), rng.normal(size=(2, 4)), rng.normal(size=(4, 2))
    slow = [
        np.mean(
            [(f - t[0]) ** 2 / 2 + (s - t[1]) ** 2 / 2 for f, s, t in zip(*m, true, strict=True)]
        )
        for m in zip(first, second, strict=True)
    ]
    fast = loss.regression_loss(
        against(torch.from_numpy(first), torch.from_numpy(second)), torch.from_numpy(true)
    )
    np.testing.assert_allclose(fast, slow, rtol=1e-12)


def test_l2_penalty_is_the_sum_of_squares_of_each_member() -> None:
    penalty = loss.l2_penalty(
        [torch.tensor([[[1.0, 2.0]], [[0.0, 3.0]]]), torch.tensor([[1.0], [2.0]])]
    )
    assert penalty.tolist() == [6.0, 13.0]


def test_floor_is_the_loss_of_a_perfect_member() -> None:
    target = pair_target(torch.tensor([1.0, 0.0, 0.5, 0.5, 1.0]))
    returns = against(torch.tensor([[99.0, -99.0, 0.0, 0.0, 99.0]]))
    best = loss.preference_loss(returns, target, error_rate=ERROR_RATE)
    floor = loss.loss_floor(target, error_rate=ERROR_RATE)
    assert float(best) == pytest.approx(float(floor.mean()), rel=1e-6)
    assert floor.tolist() == pytest.approx(
        [-math.log(0.95)] * 2 + [math.log(2)] * 2 + [-math.log(0.95)]
    )


def test_accuracy_leaves_ties_out_and_counts_no_opinion_as_half() -> None:
    p = pair_target(torch.tensor([[0.9, 0.9, 0.9, 0.5], [0.1, 0.2, 0.3, 0.5]]))
    target = pair_target(torch.tensor([1.0, 0.0, 0.5, 1.0]))
    assert loss.accuracy(p, target).tolist() == [0.5, 0.5]
    torch.testing.assert_close(
        loss.accuracy(p, target, weights=torch.tensor([[1, 0, 5, 0], [0, 0, 1, 0]])),
        torch.tensor([1.0, torch.nan]),
        equal_nan=True,
    )


def test_a_constant_reward_is_half_right_whatever_the_error_rate() -> None:
    for error_rate in (0.0, 0.07, 0.1, 0.33):
        p = loss.choice_probabilities(torch.full((1, 3, 2), 2.0), error_rate=error_rate)
        assert loss.accuracy(p, pair_target(torch.ones(3))).tolist() == [0.5]


def test_calibration_error_is_the_weighted_gap_per_bin() -> None:
    rng = np.random.default_rng(3)
    p = rng.random((2, 200))
    p[0, 0] = 1.0
    target = rng.choice([0.0, 0.5, 1.0], 200)
    decisive = target != 0.5
    slow = []
    for member in p:
        bins = np.minimum((member * 10).astype(int), 9)
        gaps = [
            abs(member[here].mean() - target[here].mean()) * here.sum()
            for k in range(10)
            if (here := (bins == k) & decisive).any()
        ]
        slow.append(sum(gaps) / decisive.sum())
    fast = loss.calibration_error(
        pair_target(torch.from_numpy(p)), pair_target(torch.from_numpy(target))
    )
    np.testing.assert_allclose(fast, slow, rtol=1e-12)


def test_members_that_agree_correlate_fully_and_a_constant_one_not_at_all() -> None:
    ramp = torch.arange(5.0)
    assert loss.member_correlation(torch.stack([ramp, 2 * ramp + 1])) == pytest.approx(1.0)
    assert loss.member_correlation(torch.stack([ramp, -ramp])) == pytest.approx(-1.0)
    assert loss.member_correlation(torch.stack([ramp, torch.ones(5)])) is None
    assert loss.member_correlation(ramp[None]) is None
