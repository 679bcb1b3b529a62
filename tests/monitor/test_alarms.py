"""Each alarm is raised by what it is about, once, with its way out, and by nothing
else.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from rlhp.monitor.alarms import LASTING, VERSIONS, Alarms, rises
from tests.small_runs import small

GOOD: dict[str, Any] = {
    "labels/asked": 15,
    "labels/allowed": 15,
    "labels/answered": 15,
    "labels/recent": 60,
    "labels/recent_ties": 3,
    "reward/fresh_accuracy": 0.85,
    "reward/fresh_accuracy_low": 0.74,
    "reward/fresh_accuracy_high": 0.92,
    "reward/fresh_answers": 57,
    "reward/novelty": 1.1,
    "reward/segment_correlation": 0.9,
    "predicted_return_mean": 1.0,
}


def raised(changes: list[dict[str, Any]], **config: Any) -> tuple[list[str], Alarms]:
    """What was raised in this order, when each row is of a new version; the rest of a
    row is as it should be.
    """
    alarms = Alarms(small(**config))
    names: list[str] = []
    for version, change in enumerate(changes, start=1):
        row = {"reward/version": version, **GOOD, **change}
        names += alarms.look(row)
        names += alarms.look(row)  # a version is judged once
    return names, alarms


def test_an_ordinary_run_raises_none() -> None:
    assert raised([{}] * 20)[0] == []


BROKEN: dict[str, dict[str, Any]] = {
    "chance": {
        "reward/fresh_accuracy": 0.48,
        "reward/fresh_accuracy_low": 0.36,
        "reward/fresh_accuracy_high": 0.6,
    },
    "novel": {"reward/novelty": 4.0},
    "opposed": {"reward/segment_correlation": -0.5},
}


@pytest.mark.parametrize("name", sorted(BROKEN))
def test_it_is_raised_once_when_it_lasts_and_over_when_it_ends(name: str) -> None:
    names, alarms = raised([{}] * 3 + [BROKEN[name]] * (LASTING + 3))
    assert names == [name]
    assert set(alarms.active) == {name}
    alarms.look({"reward/version": 99, **GOOD})
    assert alarms.active == {}


def test_a_resumed_run_knows_what_was_before() -> None:
    falls = [
        {
            "predicted_return_mean": float(k),
            "reward/fresh_accuracy": 0.5,
            "reward/fresh_accuracy_high": 0.7,
            "reward/fresh_accuracy_low": 0.3,
        }
        for k in range(2 * VERSIONS)
    ]
    rows = [
        {"reward/version": version, **GOOD, **row}
        for version, row in enumerate([{}] * 8 + falls, start=1)
    ]
    resumed = Alarms(small())
    resumed.recall(rows[:12])
    names = [name for row in rows[12:] for name in resumed.look(row)]
    assert "exploited" in names


@pytest.mark.parametrize("name", sorted(BROKEN))
def test_a_version_that_is_wrong_for_a_moment_raises_none(name: str) -> None:
    assert raised(([BROKEN[name]] * (LASTING - 1) + [{}]) * 3)[0] == []


@pytest.mark.parametrize("kind", ["ties", "incomparable"])
def test_answers_that_say_nothing_are_told_in_the_warm_up_already(kind: str) -> None:
    alarms = Alarms(small())
    row = {
        "phase": "warm-up",
        "labels/recent": 40,
        f"labels/recent_{kind}": 38,
        "labels/answered": 40,
        f"labels/{kind}": 38,
    }
    (text,) = alarms.look(row).values()
    assert "38 of the newest 40 answers" in text
    assert "query.segment_length" in text
    assert alarms.look(row) == {}, "once"
    assert Alarms(small()).look({"labels/recent": 10, "labels/recent_ties": 10}) == {}, (
        "too few to say so"
    )


def test_a_policy_that_has_learned_all_there_is_to_learn_leaves_ties_and_no_alarm() -> None:
    solved = {
        "labels/recent": 60,
        "labels/recent_ties": 60,
        "labels/answered": 200,
        "labels/ties": 104,
    }
    assert Alarms(small()).look(solved) == {}


def test_a_predicted_return_that_rises_while_fresh_accuracy_falls_to_chance_is_exploited() -> None:
    sane = [{"predicted_return_mean": 1.0 + 0.1 * k} for k in range(4)]
    cheated = [
        {
            "predicted_return_mean": 2.0 + k,
            "reward/fresh_accuracy": 0.57,
            "reward/fresh_accuracy_low": 0.44,
            "reward/fresh_accuracy_high": 0.69,
        }
        for k in range(VERSIONS)
    ]
    names, alarms = raised(sane + cheated)
    assert names == ["exploited"]
    assert "the predicted return rose from" in alarms.active["exploited"]
    flat = [{**row, "predicted_return_mean": 1.0} for row in cheated]
    assert raised(sane + flat)[0] == [], "a reward that nobody gains by"


def test_the_way_out_is_the_one_that_is_open() -> None:
    def text(**row: Any) -> str:
        (said,) = raised([{**BROKEN["novel"], **row}] * LASTING, **config)[1].active.values()
        return said

    config: dict[str, Any] = {}
    assert "labels.schedule=adaptive" in text()
    assert "labels.budget" in text(**{"labels/asked": 20})
    config = {"labels": {"source": "human", "instruction": "Which is better?"}}
    assert "5 queries wait for an answer" in text(**{"labels/answered": 10})


def test_few_answers_raise_nothing() -> None:
    few = {**BROKEN["chance"], "reward/fresh_answers": 20}
    assert raised([few] * 10)[0] == []


def test_chance_alone_seldom_looks_like_a_rise() -> None:
    rng = np.random.default_rng(0)
    assert sum(rises(rng.normal(size=VERSIONS).tolist()) for _ in range(1000)) < 60
    assert rises([1, 1, 1, 1, 2, 2, 2, 2.1])
    assert not rises([1.0] * 8)
