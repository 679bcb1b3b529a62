"""Queries of two to four candidates: the loss against a slow version that looks like the
paper, and an ensemble that learns from the best of four.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from rlhp.models.architecture import Architecture
from rlhp.reward import loss
from rlhp.reward.data import TrainingSet
from rlhp.reward.fit import Fitter
from rlhp.reward.versions import RewardPredictor
from rlhp.types import CHOICES, Answer, Array, Preference
from tests.reward.fit_samples import SPACES, config, env_rewards, preferences, segment, transitions

ERROR_RATE = 0.1


def best_of(count: int, *, candidates: int, start: int = 0) -> list[Preference]:
    """The oracle's answers to queries of so many candidates, over segments of their
    own.
    """
    made = []
    for number in range(start, start + count):
        shown = tuple(segment(10_000 + candidates * number + c) for c in range(candidates))
        best = max(range(candidates), key=lambda c: shown[c].true_return)
        made.append(
            Preference(
                query=f"best-{candidates}-{number}",
                candidates=shown,
                answer=CHOICES[best],
                labeler="oracle",
            )
        )
    return made


def slow_loss(returns: Array, answers: list[Answer], *, error_rate: float) -> float:
    """The mean over queries of -sum_i mu_i ln P(i), P the softmax of the returns and
    sometimes chance, one number at a time. NaN returns are candidates that are not
    there.
    """
    total = 0.0
    for row, answer in zip(returns, answers, strict=True):
        shown = [value for value in row if not math.isnan(value)]
        whole = sum(math.exp(value) for value in shown)
        for place, value in enumerate(shown):
            mu = 1 / len(shown) if answer is Answer.TIE else float(answer.place == place)
            p = (1 - error_rate) * math.exp(value) / whole + error_rate / len(shown)
            total -= mu * math.log(p)
    return total / len(answers)


def some(candidates: list[int], *, seed: int) -> tuple[Array, list[Answer]]:
    """Returns [B, C] of queries with so many candidates, NaN beyond, and answers."""
    rng = np.random.default_rng(seed)
    returns = np.full((len(candidates), max(candidates)), np.nan)
    answers = []
    for row, count in enumerate(candidates):
        returns[row, :count] = 3 * rng.normal(size=count)
        tie = rng.random() < 0.3
        answers.append(Answer.TIE if tie else CHOICES[int(rng.integers(count))])
    return returns, answers


def tensors(
    returns: Array, answers: list[Answer]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Returns, targets and which candidates are there, as the fit has them."""
    present = ~np.isnan(returns)
    target = np.zeros_like(returns)
    for row, answer in enumerate(answers):
        if answer.place is None:
            target[row, present[row]] = 1 / present[row].sum()
        else:
            target[row, answer.place] = 1.0
    # what stands where no candidate is must not matter
    return (
        torch.from_numpy(np.where(present, returns, 1e3)),
        torch.from_numpy(target),
        torch.from_numpy(present),
    )


@pytest.mark.parametrize("error_rate", [0.0, ERROR_RATE])
@pytest.mark.parametrize("candidates", [[3] * 8, [4] * 8, [2, 4, 3, 2, 4, 3, 2]])
def test_the_loss_is_the_cross_entropy_over_the_softmax_of_all_returns(
    candidates: list[int], error_rate: float
) -> None:
    returns, answers = some(candidates, seed=0)
    fast_returns, target, present = tensors(returns, answers)
    fast = loss.preference_loss(fast_returns[None], target, error_rate=error_rate, present=present)
    assert float(fast) == pytest.approx(
        slow_loss(returns, answers, error_rate=error_rate), rel=1e-12
    )


def test_probabilities_are_the_softmax_and_none_is_for_a_candidate_that_is_not_there() -> None:
    returns, answers = some([2, 3, 4], seed=1)
    fast_returns, _, present = tensors(returns, answers)
    p = loss.choice_probabilities(fast_returns[None], error_rate=0.0, present=present)[0]
    for row, found in zip(returns, p.numpy(), strict=True):
        shown = np.exp(row[~np.isnan(row)])
        np.testing.assert_allclose(found[: len(shown)], shown / shown.sum(), rtol=1e-12)
        assert not found[len(shown) :].any()


@pytest.mark.parametrize("error_rate", [0.0, ERROR_RATE])
def test_loss_and_gradient_stay_finite_for_any_returns_of_any_number(error_rate: float) -> None:
    returns = torch.tensor([[[1e5, -1e5, 0.0, 7.0], [-1e5, 1e5, 1e3, 0.0]]], requires_grad=True)
    present = torch.tensor([[True] * 4, [True, True, False, False]])
    target = torch.tensor([[0.0, 1.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0]])
    value = loss.preference_loss(returns, target, error_rate=error_rate, present=present)
    (gradient,) = torch.autograd.grad(value.sum(), returns)
    assert torch.isfinite(value).all()
    assert torch.isfinite(gradient).all()
    assert not gradient[0, 1, 2:].any()


def test_the_floor_is_the_loss_of_a_perfect_member_for_any_number_of_candidates() -> None:
    returns = torch.tensor(
        [[[99.0, 0, 0, 0], [0, 0, 99.0, 0], [5.0, 5.0, 5.0, 5.0], [99.0, 0, 0, 0]]]
    )
    present = torch.tensor([[True] * 4, [True] * 3 + [False], [True] * 4, [True] * 2 + [False] * 2])
    target = torch.tensor([[1.0, 0, 0, 0], [0, 0, 1.0, 0], [0.25] * 4, [1.0, 0, 0, 0]])
    floor = loss.loss_floor(target, error_rate=ERROR_RATE, present=present)
    best = loss.preference_loss(returns, target, error_rate=ERROR_RATE, present=present)
    assert float(floor.mean()) == pytest.approx(float(best), rel=1e-6)


def test_accuracy_of_a_constant_reward_is_that_of_chance() -> None:
    present = torch.tensor([[True] * 4, [True] * 3 + [False], [True, True, False, False]])
    p = loss.choice_probabilities(torch.zeros(1, 3, 4), error_rate=ERROR_RATE, present=present)
    target = torch.tensor([[0, 1.0, 0, 0], [1.0, 0, 0, 0], [0, 1.0, 0, 0]])
    assert float(loss.accuracy(p, target)) == pytest.approx((1 / 4 + 1 / 3 + 1 / 2) / 3)
    p[0, :, 1] += 0.5
    assert float(loss.accuracy(p, target)) == pytest.approx(2 / 3)


def test_regression_is_over_the_candidates_that_are_there() -> None:
    returns, true = torch.tensor([[[1.0, 2, 9], [1, 2, 3]]]), torch.tensor([[0.0, 0, 0], [0, 0, 0]])
    present = torch.tensor([[True, True, False], [True, True, True]])
    fast = loss.regression_loss(returns, true, present=present)
    assert float(fast) == pytest.approx(((1 + 4) / 2 + (1 + 4 + 9) / 3) / 2)


def test_pairs_are_what_they_were_when_wider_queries_come_in_between() -> None:
    pairs, wide = preferences(6), best_of(3, candidates=4)
    settings = config(loss="regression")

    def taken(*groups: list[Preference]) -> TrainingSet:
        made = TrainingSet(
            settings,
            architecture=Architecture.of(settings, spaces=SPACES),
            spaces=SPACES,
            seed=0,
            device=torch.device("cpu"),
        )
        for group in groups:
            made.add(group)
        return made

    alone, mixed = taken(pairs), taken(pairs[:2], wide, pairs[2:])
    at = np.array([0, 1, 5, 6, 7, 8])
    one, other = alone.batch(np.arange(6)), mixed.batch(at)
    assert torch.equal(other.obs[:, :2], one.obs)
    assert torch.equal(other.actions[:, :2], one.actions)
    assert torch.equal(other.target[:, :2], one.target)
    assert other.present.tolist() == [[True, True, False, False]] * 6
    assert not other.obs[:, 2:].any()
    assert torch.equal(alone.bags, mixed.bags[:, at])
    assert mixed.batch(np.arange(2, 5)).present.all()
    assert mixed.middles(100).shape == (2 * 6 + 4 * 3, one.obs.shape[-1])
    true = [each.true_return for p in (*pairs[:2], *wide, *pairs[2:]) for each in p.candidates]
    expected = (np.array(true) - np.mean(true)) / np.std(true)
    everything = mixed.part(np.arange(9))
    np.testing.assert_allclose(everything.returns[everything.present], expected, rtol=1e-5)


def correlation(data: list[Preference], *, seed: int) -> float:
    """Of the reward fitted to these answers with the env reward."""
    fitter = Fitter(config(), spaces=SPACES, seed=seed)
    fitter.observe(*transitions(500, seed=7))
    fitter.add(data)
    report = fitter.pretrain(40)
    assert report.train_accuracy is not None
    obs, actions = transitions(400, seed=99 + seed)
    predicted = RewardPredictor(fitter.publish(1)).predict(obs, actions)
    return float(np.corrcoef(predicted, env_rewards(obs, actions))[0, 1])


def test_an_ensemble_learns_from_the_best_of_four_and_from_mixed_queries() -> None:
    of_four = [correlation(best_of(60, candidates=4, start=60 * s), seed=s) for s in range(3)]
    assert np.mean(of_four) > 0.8, of_four
    mixed = [*preferences(30), *best_of(20, candidates=3), *best_of(30, candidates=4)]
    assert correlation(mixed, seed=5) > 0.75
