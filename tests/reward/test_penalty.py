"""The adaptive weight of the L2 penalty."""

from __future__ import annotations

import numpy as np
import pytest

from rlhp.reward.penalty import FACTOR, HIGHEST, LOWEST, AdaptivePenalty
from tests.reward.fit_samples import config


def penalty(**changes: object) -> AdaptivePenalty:
    return AdaptivePenalty(config(**{"l2": 1e-4, "l2_adaptive": True} | changes), members=2)


def after(ratios: list[float], *, looks: int = 1, **changes: object) -> np.ndarray:
    made = penalty(**changes)
    for _ in range(looks):
        for _ in range(10):
            made.saw_training(np.ones(2))
        made.saw_validation(np.array(ratios), steps=10)
    return made.weights


def test_it_grows_above_the_band_and_shrinks_below_by_one_thousandth_per_step() -> None:
    np.testing.assert_allclose(
        after([1.6, 1.0]), [1e-4 * FACTOR**10, 1e-4 / FACTOR**10], rtol=1e-12
    )


def test_it_stays_inside_the_band() -> None:
    np.testing.assert_array_equal(after([1.2, 1.4], looks=50), [1e-4, 1e-4])


def test_694_steps_above_the_band_double_it() -> None:
    assert after([9.0, 9.0], looks=69)[0] / 1e-4 == pytest.approx(2, rel=0.01)


def test_it_stops_at_its_bounds() -> None:
    np.testing.assert_array_equal(after([9.0, 0.5], looks=1000), [HIGHEST, LOWEST])


def test_a_member_without_validation_keeps_its_weight() -> None:
    np.testing.assert_array_equal(after([np.nan, 1.2], looks=5), [1e-4, 1e-4])


def test_zero_switches_it_off() -> None:
    off = penalty(l2=0.0)
    assert not off.adaptive
    np.testing.assert_array_equal(off.weights, [0.0, 0.0])


def test_a_fixed_penalty_is_not_adaptive() -> None:
    assert not penalty(l2_adaptive=False).adaptive


def test_one_outlier_among_many_looks_does_not_move_it() -> None:
    made = penalty()
    for look in range(100):
        for _ in range(10):
            made.saw_training(np.ones(2))
        made.saw_validation(np.full(2, 2.5 if look == 50 else 1.25), steps=10)
    np.testing.assert_array_equal(made.weights, [1e-4, 1e-4])
