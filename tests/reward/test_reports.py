"""Reports kept up to date are those that all events give anew, to the last bit, at
whatever pace events arrive.
"""

from __future__ import annotations

import time
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from rlhp.preferences.events import EventRow
from rlhp.preferences.quality import LabelerReport, Reports, report
from rlhp.types import answers_to
from tests.preferences.slow_quality import slow_report

START = datetime(2026, 1, 1, tzinfo=UTC)
ANSWERS = answers_to(2)
NAMES = ("ann", "bob", "cat", "dan")
CORRECTED = '{"corrected_by": "eve"}'


def history(seed: int, count: int, *, clock: bool = False) -> list[EventRow]:
    """Whatever can happen, at random: votes, checks, repeats, late and extra answers,
    undo, skips, corrections.
    """
    rng = np.random.default_rng(seed)
    rows: list[EventRow] = []
    revisions: dict[tuple[str, str], int] = {}
    pairs: dict[str, tuple[str, str]] = {}
    for number in range(count):
        query, name = f"q{rng.integers(1 + count // 4)}", NAMES[rng.integers(len(NAMES))]
        first, second = (f"s{segment}" for segment in rng.permutation(12)[:2])
        first, second = pairs.setdefault(query, (first, second))
        rev = revisions.get((query, name), 0)
        known = {"query_id": query, "candidate_ids": (first, second), "labeler": name}
        kind = rng.choice(["answer", "retract", "skip", "drop"], p=[0.75, 0.13, 0.07, 0.05])
        if kind == "retract" and rev:
            rows.append(EventRow(**known, event="retract", rev=rev))  # type: ignore[arg-type]
        elif kind == "skip":
            rows.append(EventRow(**known, event="skip", rev=-number))  # type: ignore[arg-type]
        elif kind == "drop":
            rows.append(EventRow(**known | {"labeler": None}, event="drop", rev=number))  # type: ignore[arg-type]
        else:
            revisions[query, name] = rev + 1
            at = START + timedelta(milliseconds=int(rng.integers(4000)) + 2000 * number)
            said = 0 if name == "dan" else int(rng.integers(len(ANSWERS)))
            rows.append(
                EventRow(
                    **known,  # type: ignore[arg-type]
                    event="answer",
                    rev=rev + 1,
                    answer=ANSWERS[said],
                    how=str(rng.choice(["ok", "late", "extra"], p=[0.7, 0.2, 0.1])),  # type: ignore[arg-type]
                    purpose=str(rng.choice(["train", "gold", "repeat"], p=[0.5, 0.3, 0.2])),  # type: ignore[arg-type]
                    gold_answer=ANSWERS[int(rng.integers(2))] if rng.random() < 0.3 else None,
                    labeler_kind="human" if rng.random() < 0.8 else "script",
                    predicted=(p := float(rng.choice([0.2, 0.5, 0.9])), 1 - p)
                    if rng.random() < 0.7
                    else None,
                    shown_order=(0, 1) if rng.random() < 0.5 else (1, 0),
                    latency_ms=int(rng.integers(3000)) if rng.random() < 0.9 else None,
                    note=CORRECTED if rng.random() < 0.05 else None,
                    answered_at=at if clock else None,
                    shown_at=at - timedelta(milliseconds=int(rng.integers(3000)))
                    if clock
                    else None,
                )
            )
    return rows


def close(found: list[LabelerReport], meant: list[LabelerReport]) -> bool:
    """The same, but for the last digits of the one figure that is no longer summed up
    in integers.
    """
    assert [each.side_p for each in found] == pytest.approx(
        [each.side_p for each in meant], rel=1e-10
    )
    return [replace(each, side_p=0.0) for each in found] == [
        replace(each, side_p=0.0) for each in meant
    ]


@pytest.mark.parametrize("seed", range(6))
def test_reports_that_follow_a_log_are_those_of_the_whole_log(seed: int) -> None:
    rows, rng = history(seed, 400), np.random.default_rng(seed)
    reports, at, states = Reports(), 0, set()
    while at < len(rows):
        at += int(rng.integers(1, 40))
        trusted = ("cat",) if rng.random() < 0.5 else ()
        found = reports(rows[:at], trusted=trusted)
        assert close(found, slow_report(rows[:at], trusted=trusted))
        states |= {each.state for each in found}
    assert "paused" in states, "so the others are measured without somebody, and again with"


def test_the_clock_of_the_server_is_followed_too() -> None:
    rows = history(7, 300, clock=True)
    reports = Reports()
    for at in range(25, 301, 25):
        assert [asdict(each) for each in reports(rows[:at])] == [
            asdict(each) for each in report(rows[:at])
        ]
    teachers = report(rows, teachers=True)
    assert {each.timed for each in teachers} != {each.timed for each in report(rows)}


def test_another_log_is_begun_anew() -> None:
    reports, one, two = Reports(), history(1, 100), history(2, 100)
    for rows in (one, two, one[:40], one, two[:1], []):
        assert reports(rows) == report(rows)


def test_a_report_on_a_long_log_costs_what_is_new() -> None:
    rows = history(3, 6000)
    reports = Reports()

    def cost(upto: int) -> float:
        before = time.process_time()
        reports(rows[:upto])
        return time.process_time() - before

    whole = cost(5900)
    assert sum(cost(upto) for upto in range(5901, 5921)) < whole / 2, (
        "twenty of them cost less than half of the first"
    )
