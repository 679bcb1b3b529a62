"""Teachers and judges on queries of three and four candidates, and what they said of
pairs before there were any.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from rlhp.labeling.teachers import BPrefTeacher
from rlhp.types import CHOICES, Answer, Query, TeacherContext, digest
from tests.labeling.parts import segment

CONTEXT = TeacherContext(mean_episode_return=100.0, lowest_warmup_return=0.0, episode_length=50.0)
"""Two per step: segments of 5 steps have a margin of 10."""


def query(*sums: float, name: str = "q", context: TeacherContext | None = CONTEXT) -> Query:
    """Segments of 5 steps whose env rewards sum to these."""
    shown = [segment([0, 0, 0, 0, each], name=f"{name}-{place}") for place, each in enumerate(sums)]
    return Query(id=name, candidates=tuple(shown), context=context)


def answers(teacher: BPrefTeacher, *sums: float, draws: int = 4000) -> list[Answer]:
    return [teacher.answer(query(*sums, name=f"q{number}")) for number in range(draws)]


def test_the_oracle_names_the_best_of_three_and_of_four() -> None:
    oracle = BPrefTeacher()
    assert oracle.answer(query(1, 2, 3)) is Answer.THIRD
    assert oracle.answer(query(1, 5, 3, 4)) is Answer.SECOND
    assert oracle.answer(query(1, 0, 3, 4)) is Answer.FOURTH
    assert oracle.answer(query(2, 2, 2, 2)) is Answer.TIE


def test_of_two_that_are_equally_good_either_is_named() -> None:
    said = answers(BPrefTeacher(), 3, 1, 3, draws=400)
    assert set(said) == {Answer.FIRST, Answer.THIRD}
    assert 0.4 < said.count(Answer.FIRST) / len(said) < 0.6


def test_a_noisy_teacher_chooses_by_the_softmax_of_the_sums() -> None:
    sums, beta, draws = (0.0, 1.0, 2.0, -1.0), 0.7, 4000
    said = answers(BPrefTeacher(beta=beta), *sums, draws=draws)
    weights = [math.exp(beta * each) for each in sums]
    for choice, weight in zip(CHOICES, weights, strict=True):
        p = weight / sum(weights)
        assert abs(said.count(choice) / draws - p) < 4 * math.sqrt(p * (1 - p) / draws)


def test_a_noisy_teacher_takes_sums_of_any_size() -> None:
    teacher = BPrefTeacher(beta=1.0)
    assert set(answers(teacher, 1e6, -1e6, 0.0, draws=20)) == {Answer.FIRST}
    assert set(answers(teacher, -1e6, 0.0, 1e6, draws=20)) == {Answer.THIRD}


def test_a_mistake_names_any_of_the_others() -> None:
    said = answers(BPrefTeacher(mistake=0.3), 0, 9, 1, 2)
    assert said.count(Answer.SECOND) / len(said) == pytest.approx(0.7, abs=0.03)
    for other in (Answer.FIRST, Answer.THIRD, Answer.FOURTH):
        assert said.count(other) / len(said) == pytest.approx(0.1, abs=0.02)


def test_skip_goes_by_the_best_and_equal_by_how_far_apart_all_are() -> None:
    skip, equal = BPrefTeacher(skip=0.5), BPrefTeacher(equal=0.5)
    assert skip.answer(query(1, 5, 2)) is Answer.INCOMPARABLE
    assert skip.answer(query(1, 6, 2)) is Answer.SECOND
    assert equal.answer(query(1, 5, 2)) is Answer.TIE
    assert equal.answer(query(1, 5.5, 0)) is Answer.SECOND


def said_before(teacher: BPrefTeacher, asked: Query) -> Answer:
    """The answer to a pair as it was computed when all queries were pairs."""
    assert asked.first.env_reward is not None
    assert asked.second.env_reward is not None
    seeds = int(digest("teacher", teacher.seed, asked.id), 16)
    draw, slip = np.random.default_rng(seeds).random(2)
    weights = teacher.gamma ** np.arange(4, -1, -1, dtype=np.float64)
    first, second = (
        float(np.sum(weights * np.asarray(each.env_reward, np.float64)))
        for each in (asked.first, asked.second)
    )
    if first == second:
        return Answer.TIE
    answer = Answer.FIRST if first > second else Answer.SECOND
    if teacher.beta is not None:
        p_first = 0.5 * (1 + math.tanh(0.5 * teacher.beta * (first - second)))
        answer = Answer.FIRST if draw < p_first else Answer.SECOND
    if slip < teacher.mistake:
        answer = Answer.SECOND if answer is Answer.FIRST else Answer.FIRST
    return answer


@pytest.mark.parametrize(
    "knobs", [{}, {"beta": 1.0}, {"mistake": 0.3}, {"beta": 0.5, "mistake": 0.2, "gamma": 0.9}]
)
def test_pairs_are_answered_as_they_always_were(knobs: dict[str, Any]) -> None:
    teacher, rng = BPrefTeacher(seed=3, **knobs), np.random.default_rng(0)
    for number in range(500):
        asked = query(*rng.integers(-2, 3, 2).tolist(), name=f"pair{number}")
        assert teacher.answer(asked) is said_before(teacher, asked)
