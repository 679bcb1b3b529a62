"""Means of few seeds, with 95 % bootstrap intervals."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

DRAWS = 10_000
Estimate = tuple[float, float, float]
"""Value, lower and upper end of its 95 % interval."""


def mean(values: Sequence[float]) -> Estimate:
    """Of the values, drawn with replacement."""
    return _estimate(float(np.mean(values)), _means(values, np.random.default_rng(0)))


def recovered(preferences: Sequence[float], control: Sequence[float], by_chance: float) -> Estimate:
    """F = (R_pref - R_random) / (R_true - R_random) of the means; both arms' seeds are
    drawn anew.
    """
    return _estimate(
        _f(np.mean(preferences), np.mean(control), by_chance),
        _draws(preferences, control, by_chance),
    )


def recovered_over_tasks(
    tasks: Sequence[tuple[Sequence[float], Sequence[float], float]],
) -> Estimate:
    """The mean over tasks of F, each with seeds of its own: (preferences, control, by
    chance) per task.
    """
    values = [
        _f(np.mean(preferences), np.mean(control), by_chance)
        for preferences, control, by_chance in tasks
    ]
    draws = np.mean([_draws(*task, seed=number) for number, task in enumerate(tasks)], axis=0)
    return _estimate(float(np.mean(values)), draws)


def ratio(above: Sequence[float], below: Sequence[float], floor: float = 0.0) -> Estimate:
    """(mean(above) - floor) / (mean(below) - floor)."""
    return recovered(above, below, floor)


def separable(control: Sequence[float], by_chance: Sequence[float]) -> bool:
    """Whether the interval of R_true - R_random leaves out 0; F says nothing where it
    does not.
    """
    rng = np.random.default_rng(0)
    low, high = np.percentile(_means(control, rng) - _means(by_chance, rng), [2.5, 97.5])
    return bool(low > 0 or high < 0)


def told(estimate: Estimate, digits: int = 2) -> str:
    """`1.02 (0.95 to 1.10)`, or `1.02 (one seed)`, which has no interval."""
    value, low, high = (f"{number:,.{digits}f}" for number in estimate)
    if estimate[1] == estimate[2]:
        return f"{value} (one seed)"
    return f"{value} ({low} to {high})"


def _f(preferences: float | np.floating, control: float | np.floating, by_chance: float) -> float:
    return float((preferences - by_chance) / (control - by_chance))


def _draws(
    preferences: Sequence[float], control: Sequence[float], by_chance: float, seed: int = 0
) -> NDArray[np.float64]:
    rng = np.random.default_rng(seed)
    draws: NDArray[np.float64] = (_means(preferences, rng) - by_chance) / (
        _means(control, rng) - by_chance
    )
    return draws


def _means(values: Sequence[float], rng: np.random.Generator) -> NDArray[np.float64]:
    means: NDArray[np.float64] = rng.choice(
        np.array(values, np.float64), size=(DRAWS, len(values))
    ).mean(1)
    return means


def _estimate(value: float, draws: NDArray[np.float64]) -> Estimate:
    low, high = np.percentile(draws, [2.5, 97.5])
    return value, float(low), float(high)
