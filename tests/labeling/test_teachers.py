"""Each teacher against its parameters, the order of its rules, and what it cannot
judge.
"""

from __future__ import annotations

import logging
import math

import numpy as np
import pytest

from rlhp.labeling.teachers import BPrefTeacher
from rlhp.types import Answer, Query, TeacherContext
from tests.labeling.parts import query, segment

FIRST, SECOND, TIE, INCOMPARABLE = Answer.FIRST, Answer.SECOND, Answer.TIE, Answer.INCOMPARABLE

CONTEXT = TeacherContext(mean_episode_return=100.0, lowest_warmup_return=0.0, episode_length=50.0)
"""Two per step: segments of 5 steps have a margin of 10."""
NEGATIVE = TeacherContext(
    mean_episode_return=-200.0, lowest_warmup_return=-1000.0, episode_length=100.0
)
"""Eight per step above the floor of -10 per step: segments of 5 steps have a margin of
40.
"""


def pair(
    first: float, second: float, *, name: str = "q", context: TeacherContext | None = CONTEXT
) -> Query:
    """Two segments of 5 steps whose env rewards sum to `first` and `second`."""
    return query([0, 0, 0, 0, first], [0, 0, 0, 0, second], name=name, context=context)


def share(answers: list[Answer], which: Answer) -> float:
    return answers.count(which) / len(answers)


def close(observed: float, probability: float, *, draws: int) -> bool:
    """Within four standard deviations: one seeded test in 16 000 would fail by chance."""
    return abs(observed - probability) < 4 * math.sqrt(probability * (1 - probability) / draws)


# -- the oracle


def test_the_oracle_prefers_the_larger_sum_and_ties_on_exact_equality() -> None:
    oracle = BPrefTeacher()
    assert oracle.answer(pair(3, 2)) is FIRST
    assert oracle.answer(pair(2, 3)) is SECOND
    assert oracle.answer(query([1, 0, 2], [0, 3, 0])) is TIE
    assert oracle.answer(query([0.0, 0.0], [0.0, 0.0], context=None)) is TIE


def test_env_rewards_times_four_leave_every_answer_as_it_was() -> None:
    generator = np.random.default_rng(0)
    oracle = BPrefTeacher()
    for number in range(200):
        first, second = generator.normal(size=(2, 10)).astype(np.float32)
        small = query(first, second, name=str(number))
        large = query(4 * first, 4 * second, name=str(number))
        assert oracle.answer(small) is oracle.answer(large)


def test_segments_of_unequal_length_are_compared_by_their_sums() -> None:
    assert BPrefTeacher().answer(query([1, 1, 1], [1, 1, 1, 1])) is SECOND
    assert BPrefTeacher().answer(query([-1, -1, -1], [-1, -1, -1, -1])) is FIRST


# -- one fault at a time, against its parameter


@pytest.mark.parametrize("difference", [-3.0, -0.5, 0.25, 2.0])
def test_the_noisy_teacher_draws_with_the_boltzmann_probability(difference: float) -> None:
    draws = 4000
    teacher = BPrefTeacher(beta=0.7, seed=3)
    answers = [teacher.answer(pair(difference, 0, name=str(n))) for n in range(draws)]
    expected = 1 / (1 + math.exp(-0.7 * difference))
    assert close(share(answers, FIRST), expected, draws=draws)
    assert set(answers) == {FIRST, SECOND}


def test_a_huge_difference_does_not_overflow_the_boltzmann_teacher() -> None:
    teacher = BPrefTeacher(beta=1.0)
    assert teacher.answer(pair(1e30, -1e30)) is FIRST
    assert teacher.answer(pair(-1e30, 1e30)) is SECOND


@pytest.mark.parametrize("mistake", [0.1, 0.3])
def test_the_mistake_teacher_flips_that_share(mistake: float) -> None:
    draws = 4000
    teacher = BPrefTeacher(mistake=mistake, seed=1)
    answers = [teacher.answer(pair(2, 1, name=str(n))) for n in range(draws)]
    assert close(share(answers, SECOND), mistake, draws=draws)
    assert BPrefTeacher(mistake=1.0).answer(pair(2, 1)) is SECOND
    assert BPrefTeacher(mistake=1.0).answer(pair(1, 1)) is TIE


def test_which_answers_are_mistakes_does_not_depend_on_beta() -> None:
    careful = BPrefTeacher(mistake=0.5, seed=1)
    drawing = BPrefTeacher(mistake=0.5, beta=1e9, seed=1)
    queries = [pair(2, 1, name=str(n)) for n in range(100)]
    assert [careful.answer(q) for q in queries] == [drawing.answer(q) for q in queries]


def test_the_skip_teacher_skips_up_to_its_share_of_the_margin_and_no_further() -> None:
    teacher = BPrefTeacher(skip=0.1)  # 0.1 * margin 10 = 1
    assert teacher.answer(pair(1.0, 0.0)) is INCOMPARABLE
    assert teacher.answer(pair(1.01, 0.0)) is FIRST
    assert BPrefTeacher().answer(pair(0.5, 0.0)) is FIRST


def test_the_equal_teacher_ties_below_its_share_of_the_margin_and_no_further() -> None:
    teacher = BPrefTeacher(equal=0.1)
    assert teacher.answer(pair(5.99, 5.0)) is TIE
    assert teacher.answer(pair(6.0, 5.0)) is FIRST
    assert teacher.answer(pair(5.0, 6.0)) is SECOND


@pytest.mark.parametrize("gamma", [0.5, 0.9, 1.0])
def test_gamma_weighs_steps_as_the_slow_formula_does(gamma: float) -> None:
    generator = np.random.default_rng(2)
    teacher = BPrefTeacher(gamma=gamma)
    for number in range(100):
        first, second = generator.normal(size=(2, 7))
        slow = [0.0, 0.0]
        for side, rewards in enumerate((first, second)):
            for t, reward in enumerate(rewards):
                slow[side] += gamma ** (7 - 1 - t) * float(np.float32(reward))
        expected = FIRST if slow[0] > slow[1] else SECOND
        assert teacher.answer(query(first, second, name=str(number))) is expected


def test_the_myopic_teacher_weighs_the_last_steps_most() -> None:
    early_is_better = query([3, 0, 0], [0, 0, 2.5])
    assert BPrefTeacher().answer(early_is_better) is FIRST
    assert BPrefTeacher(gamma=0.9).answer(early_is_better) is SECOND


# -- thresholds


def test_the_share_is_applied_once_in_the_first_round_and_in_every_later_one() -> None:
    teacher = BPrefTeacher(skip=0.1, equal=0.1)
    for _ in range(3):
        assert teacher.answer(pair(0.9, 0.0)) is INCOMPARABLE
        assert teacher.answer(pair(1.5, 1.0)) is TIE
        assert teacher.answer(pair(2.5, 1.0)) is FIRST


def test_thresholds_follow_the_returns_of_the_run() -> None:
    teacher = BPrefTeacher(skip=0.1)
    later = TeacherContext(
        mean_episode_return=1000.0, lowest_warmup_return=0.0, episode_length=50.0
    )
    assert teacher.answer(pair(5.0, 0.0)) is FIRST
    assert teacher.answer(pair(5.0, 0.0, context=later)) is INCOMPARABLE


def test_skip_and_equal_act_on_a_task_with_negative_returns() -> None:
    # 0.1 * margin 40 = 4, above the floor -50
    skip, equal = BPrefTeacher(skip=0.1), BPrefTeacher(equal=0.1)
    assert skip.answer(pair(-46.0, -50.0, context=NEGATIVE)) is INCOMPARABLE
    assert skip.answer(pair(-45.9, -50.0, context=NEGATIVE)) is FIRST
    assert equal.answer(pair(-20.0, -23.9, context=NEGATIVE)) is TIE
    assert equal.answer(pair(-20.0, -24.0, context=NEGATIVE)) is FIRST


def test_a_positive_warmup_return_does_not_raise_the_floor() -> None:
    lucky = TeacherContext(
        mean_episode_return=100.0, lowest_warmup_return=40.0, episode_length=50.0
    )
    assert BPrefTeacher(skip=0.1).answer(pair(1.0, 0.0, context=lucky)) is INCOMPARABLE
    assert BPrefTeacher(skip=0.1).answer(pair(1.01, 0.0, context=lucky)) is FIRST


@pytest.mark.parametrize(
    "context",
    [
        None,
        TeacherContext(
            mean_episode_return=float("nan"), lowest_warmup_return=0.0, episode_length=50.0
        ),
        TeacherContext(mean_episode_return=1.0, lowest_warmup_return=0.0, episode_length=0.0),
    ],
)
def test_without_a_usable_context_the_thresholds_rest_and_say_so_once(
    context: TeacherContext | None, caplog: pytest.LogCaptureFixture
) -> None:
    teacher = BPrefTeacher(skip=10.0, equal=10.0)
    with caplog.at_level(logging.WARNING):
        assert [teacher.answer(pair(2, 1, name=str(n), context=context)) for n in range(3)] == [
            FIRST
        ] * 3
    assert teacher.without_context == 3
    (record,) = caplog.records
    assert "query 0 says nothing usable about the run's returns" in record.getMessage()
    oracle = BPrefTeacher()
    assert oracle.answer(pair(2, 1, context=context)) is FIRST
    assert oracle.without_context == 0


# -- the order of the rules


def test_skip_comes_before_everything_else() -> None:
    teacher = BPrefTeacher(skip=0.1, equal=1.0, mistake=1.0, beta=1.0)
    assert teacher.answer(pair(0.5, 0.4)) is INCOMPARABLE


def test_a_tie_by_threshold_is_never_flipped() -> None:
    assert BPrefTeacher(equal=0.1, mistake=1.0).answer(pair(5.5, 5.0)) is TIE


def test_thresholds_look_at_plain_sums_and_the_comparison_at_weighted_ones() -> None:
    # margin 30
    context = TeacherContext(mean_episode_return=30.0, lowest_warmup_return=0.0, episode_length=3.0)
    far_in_weight = query([10, 0, 0], [0, 0, 10], context=context)  # plain sums are equal
    assert BPrefTeacher(gamma=0.1, equal=0.1).answer(far_in_weight) is TIE
    assert BPrefTeacher(gamma=0.1).answer(far_in_weight) is SECOND
    # weighted sums are far below the threshold 3
    poor_in_weight = query([10, 0, 0], [0, 9, 0], context=context)
    assert BPrefTeacher(gamma=0.1, skip=0.1).answer(poor_in_weight) is SECOND


def test_a_mistake_flips_what_was_drawn() -> None:
    right = BPrefTeacher(beta=0.5, seed=7)
    wrong = BPrefTeacher(beta=0.5, mistake=1.0, seed=7)
    for number in range(50):
        asked = pair(1, 0, name=str(number))
        assert {right.answer(asked), wrong.answer(asked)} == {FIRST, SECOND}


# -- determinism


def test_the_same_query_gets_the_same_answer_however_often_and_in_whatever_order() -> None:
    settings = {"beta": 0.5, "mistake": 0.2}
    queries = [pair(1, 0, name=str(n)) for n in range(100)]
    once = [BPrefTeacher(**settings, seed=5).answer(q) for q in queries]
    teacher = BPrefTeacher(**settings, seed=5)
    backwards = [teacher.answer(q) for q in reversed(queries)][::-1]
    assert once == backwards == [teacher.answer(q) for q in queries]
    assert once != [BPrefTeacher(**settings, seed=6).answer(q) for q in queries]


# -- what it cannot judge


def test_a_segment_without_env_rewards_is_refused_with_the_way_out() -> None:
    blind = Query(
        id="q", candidates=(segment(None, name="a", steps=3), segment([1, 2, 3], name="b"))
    )
    with pytest.raises(
        ValueError, match=r"segment a carries no env rewards.*set labels\.share_env_reward = true"
    ):
        BPrefTeacher().answer(blind)


def test_env_rewards_that_are_not_finite_are_refused() -> None:
    with pytest.raises(
        ValueError,
        match=r"segment q-first: its env rewards sum to nan; a teacher needs finite ones",
    ):
        BPrefTeacher().answer(query([1, float("nan")], [1, 2]))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"beta": 0.0}, "beta is a finite number above 0, or None to never draw; got 0.0"),
        ({"gamma": 1.5}, "gamma is above 0 and at most 1; got 1.5"),
        ({"mistake": 1.1}, "mistake is a probability, between 0 and 1; got 1.1"),
        ({"skip": -0.1}, "skip is a share of the mean return, 0 or more; got -0.1"),
        ({"equal": float("nan")}, "equal is a share of the mean return, 0 or more; got nan"),
    ],
)
def test_impossible_parameters_are_refused(settings: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BPrefTeacher(**settings, seed=0)
