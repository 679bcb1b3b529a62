"""Ranking candidate pairs: the paper's disagreement, chance, and a strategy of one's
own.
"""

from __future__ import annotations

import math

import numpy as np
import pytest

from rlhp.query.selection import Disagreement, Random, choice_probabilities, make_selection
from rlhp.types import Array, Segment
from tests.preferences.dataset_samples import segment
from tests.query.own_selection import Recorded

PAIRS: list[tuple[Segment, Segment]] = [(segment(2 * n), segment(2 * n + 1)) for n in range(40)]


def slow_disagreement(returns: Array) -> list[float]:
    """Variance over members of P(first preferred), as the paper says it."""
    members, pairs, _ = returns.shape
    scores = []
    for pair in range(pairs):
        p = [
            1 / (1 + math.exp(float(returns[m, pair, 1]) - float(returns[m, pair, 0])))
            for m in range(members)
        ]
        mean = sum(p) / members
        scores.append(sum((value - mean) ** 2 for value in p) / members)
    return scores


@pytest.mark.parametrize("members", [1, 2, 3, 7])
def test_disagreement_is_the_variance_of_the_members_probabilities(members: int) -> None:
    rng = np.random.default_rng(members)
    returns = rng.normal(scale=3, size=(members, len(PAIRS), 2))
    scores = Disagreement().rank(PAIRS, returns, rng)
    np.testing.assert_allclose(scores, slow_disagreement(returns), rtol=1e-6, atol=1e-12)


def test_disagreement_survives_returns_that_would_overflow_an_exponential() -> None:
    returns = np.array([[[1e30, -1e30], [0, 0]], [[-1e30, 1e30], [0, 0]]], np.float32)
    assert Disagreement().rank(PAIRS[:2], returns, np.random.default_rng(0)).tolist() == [0.25, 0.0]


def test_members_that_agree_disagree_nowhere() -> None:
    one = np.random.default_rng(0).normal(size=(1, len(PAIRS), 2))
    assert (
        Disagreement().rank(PAIRS, np.repeat(one, 3, axis=0), np.random.default_rng(0)).max()
        < 1e-30
    )


@pytest.mark.parametrize("strategy", [Random(), Disagreement()])
def test_before_the_first_version_every_strategy_is_chance(strategy: Random | Disagreement) -> None:
    scores = strategy.rank(PAIRS, None, np.random.default_rng(3))
    assert scores.shape == (len(PAIRS),)
    assert len(set(scores.tolist())) == len(PAIRS)
    np.testing.assert_array_equal(scores, strategy.rank(PAIRS, None, np.random.default_rng(3)))


def test_the_random_strategy_does_not_look_at_the_returns() -> None:
    returns = np.zeros((2, len(PAIRS), 2))
    np.testing.assert_array_equal(
        Random().rank(PAIRS, returns, np.random.default_rng(1)),
        Random().rank(PAIRS, None, np.random.default_rng(1)),
    )


def test_strategies_go_by_name() -> None:
    assert isinstance(make_selection("random"), Random)
    assert isinstance(make_selection("disagreement"), Disagreement)
    assert isinstance(make_selection("tests.query.own_selection:Recorded"), Recorded)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "disagrement",
            r"query.selection is random, disagreement or package.module:Name; got 'disagrement'",
        ),
        (
            "no_such_module:Name",
            r"query.selection='no_such_module:Name': 'no_such_module' cannot be imported "
            r".ModuleNotFoundError",
        ),
        (
            "tests.query.own_selection:Absent",
            r"query.selection=.*: module 'tests.query.own_selection' has no 'Absent'",
        ),
        (
            "tests.query.own_selection:Unready",
            r"could not be built: .* missing 1 required .* 'needed'",
        ),
        (
            "tests.query.own_selection:Silent",
            r"has no method rank\(queries, returns, rng\) -> scores",
        ),
    ],
)
def test_a_strategy_that_cannot_be_had_is_one_error(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_selection(name)


def test_disagreement_about_more_candidates_is_the_mean_variance_of_their_softmax() -> None:
    rng = np.random.default_rng(0)
    returns = rng.normal(size=(5, 7, 4))
    p = np.exp(returns) / np.exp(returns).sum(-1, keepdims=True)
    scores = Disagreement().rank([], returns, rng)
    np.testing.assert_allclose(scores, p.var(axis=0).mean(-1), rtol=1e-9)
    np.testing.assert_allclose(choice_probabilities(returns), p, rtol=1e-9)


def test_probabilities_of_any_returns_are_finite() -> None:
    returns = np.array([[1e9, -1e9, 0.0], [-1e9, 1e9, 1e9]])
    np.testing.assert_allclose(choice_probabilities(returns), np.array([[1, 0, 0], [0, 0.5, 0.5]]))
