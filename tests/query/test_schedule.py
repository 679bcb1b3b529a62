"""The label schedules: the closed forms, their end points, and that nothing is ever
asked beyond the budget.
"""

from __future__ import annotations

import math
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhp.config.schema import LabelsConfig
from rlhp.query.schedule import LabelBudget

SCHEDULES = get_args(LabelsConfig.model_fields["schedule"].annotation)
SHARES = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0)


def budget(steps: int = 5_000_000, **labels: Any) -> LabelBudget:
    return LabelBudget(
        LabelsConfig.model_validate({"budget": 700, "initial_share": 0.25, **labels}), steps
    )


def asked_at(limit: LabelBudget, shares: tuple[float, ...] = SHARES) -> list[int]:
    return [limit.allowed(round(share * limit.learning_steps)) for share in shares]


@pytest.mark.parametrize(
    ("total", "steps", "c", "table"),
    [
        (350, 5_000_000, 2e6, [88, 134, 189, 257, 309, 350]),
        (700, 5_000_000, 2e6, [175, 269, 378, 515, 618, 700]),
        (1400, 5_000_000, 2e6, [350, 537, 757, 1030, 1235, 1400]),
        (700, 1_000_000, 2e6, [175, 238, 328, 464, 587, 700]),
        (700, 300_000, 2e6, [175, 231, 313, 447, 575, 700]),
    ],
)
def test_the_hyperbolic_schedule_gives_the_cumulative_labels_of_the_paper(
    total: int, steps: int, c: float, table: list[int]
) -> None:
    found = asked_at(budget(steps, budget=total, schedule_c=c))
    assert all(0 <= rounded - asked <= 1 for asked, rounded in zip(found, table, strict=True)), (
        found
    )
    assert found[0] == table[0]
    assert found[-1] == total


def test_the_hyperbolic_schedule_of_the_atari_experiments() -> None:
    limit = budget(50_000_000, budget=5_500, initial_share=500 / 5_500, schedule_c=5e6)
    found = [limit.allowed(millions * 500_000) for millions in (0, 2, 5, 10, 20, 40, 60, 80, 100)]
    table = [500, 880, 1345, 1945, 2791, 3856, 4558, 5082, 5500]
    assert all(0 <= rounded - asked <= 1 for asked, rounded in zip(found, table, strict=True)), (
        found
    )


def test_without_a_c_a_short_run_is_front_loaded_like_a_long_one() -> None:
    assert (
        asked_at(budget(300_000))
        == asked_at(budget(5_000_000))
        == asked_at(budget(5_000_000, schedule_c=2e6))
    )


@pytest.mark.parametrize("steps", [0, 1, 250_000, 1_234_567, 4_999_999, 5_000_000, 6_000_000])
def test_every_schedule_is_the_floor_of_its_closed_form(steps: int) -> None:
    share = min(1.0, steps / 5e6)
    closed = {
        "hyperbolic": 175 + 525 * math.log(1 + share * 5e6 / 2e6) / math.log(1 + 5e6 / 2e6),
        "constant": 175 + 525 * share,
        "exponential": 700 * (0.25 + 0.75 * (1 - 0.01**share)) if share < 1 else 700,
        "offline": 700,
        "adaptive": 175 + 525 * math.log(1 + share * 5e6 / 2e6) / math.log(1 + 5e6 / 2e6),
    }
    assert set(closed) == set(SCHEDULES)
    for schedule, labels in closed.items():
        assert budget(schedule=schedule).allowed(steps) == math.floor(labels + 1e-9), schedule


def test_the_exponential_schedule_of_rl_teacher_spends_the_last_labels_at_the_end() -> None:
    found = asked_at(budget(schedule="exponential"))
    assert all(
        0 <= rounded - asked <= 1
        for asked, rounded in zip(found[:-1], [175, 369, 534, 648, 683], strict=True)
    )
    assert found[-1] == 700


def test_offline_asks_everything_before_learning() -> None:
    limit = budget(schedule="offline", initial_share=0.1)
    assert limit.initial == 700
    assert asked_at(limit) == 6 * [700]


labels = st.builds(
    LabelsConfig,
    budget=st.integers(0, 10_000),
    initial_share=st.floats(0, 1),
    schedule=st.sampled_from(SCHEDULES),
    schedule_c=st.none() | st.floats(1, 1e9),
)


@given(
    labels=labels,
    learning=st.integers(-10, 10**8),
    steps=st.lists(st.integers(-5, 2 * 10**8), min_size=2),
)
def test_no_schedule_ever_shrinks_or_goes_beyond_its_budget(
    labels: LabelsConfig, learning: int, steps: list[int]
) -> None:
    limit = LabelBudget(labels, learning)
    found = [limit.allowed(step) for step in sorted(steps)]
    assert found == sorted(found)
    assert limit.initial <= found[0]
    assert found[-1] <= labels.budget
    assert limit.allowed(max(1, learning)) == labels.budget
