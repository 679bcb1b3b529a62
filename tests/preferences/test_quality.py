"""Reports on labelers: spammers are found within thirty answers, careful people are
left alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from rlhp.preferences.events import EventRow
from rlhp.preferences.quality import (
    PAUSE,
    WATCH,
    LabelerReport,
    binomial_p,
    majority,
    report,
    weights,
    wilson,
)
from rlhp.types import Answer, answers_to

FIRST, SECOND = Answer.FIRST, Answer.SECOND
RUNS = 400
WITHIN = 30
Say = Callable[[Answer, int], Answer]
"""What a simulated labeler presses, given the better segment and the number of the
answer.
"""


def row(query: str, said: Answer, *, by: str = "ann", **changes: object) -> EventRow:
    """One answer."""
    known: dict[str, object] = {
        "query_id": query,
        "candidate_ids": (f"{query}-a", f"{query}-b"),
        "event": "answer",
        "answer": said,
        "labeler": by,
        "labeler_kind": "human",
        "rev": 1,
        "shown_order": (0, 1),
        "latency_ms": 2500,
    }
    return EventRow(**(known | changes))  # type: ignore[arg-type]


def only(rows: list[EventRow], name: str = "ann", **more: object) -> LabelerReport:
    """The report on one of them."""
    return {each.name: each for each in report(rows, **more)}[name]  # type: ignore[arg-type]


def work(say: Say, *, seed: int, answers: int = WITHIN, checked: int = 15) -> list[EventRow]:
    """What a new labeler leaves: every second one of the first answers is a check with
    a known answer.
    """
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(answers):
        better = FIRST if rng.random() < 0.5 else SECOND
        gold = (
            {"purpose": "gold", "gold_answer": better}
            if number % 2 and number < 2 * checked
            else {}
        )
        order = (0, 1) if rng.random() < 0.5 else (1, 0)
        rows.append(row(f"q{number}", say(better, seed * 1000 + number), shown_order=order, **gold))
    return rows


def coin(better: Answer, number: int) -> Answer:
    return FIRST if np.random.default_rng([number, 1]).random() < 0.5 else SECOND


def any_key(better: Answer, number: int) -> Answer:
    return answers_to(2)[int(np.random.default_rng([number, 2]).integers(4))]


def nine_of_ten(better: Answer, number: int) -> Answer:
    wrong = np.random.default_rng([number, 3]).random() < 0.1
    return better if not wrong else SECOND if better is FIRST else FIRST


def ever(rows: list[EventRow], *states: str) -> bool:
    """Whether the labeler is in one of these states after any of the answers."""
    return any(only(rows[:count]).state in states for count in range(1, len(rows) + 1))


@pytest.mark.parametrize(("spammer", "least"), [(coin, 0.9), (any_key, 0.99)])
def test_a_spammer_is_found_within_thirty_answers(spammer: Say, least: float) -> None:
    found = sum(ever(work(spammer, seed=seed), "watch", "paused") for seed in range(RUNS))
    assert found / RUNS >= least


def test_who_always_presses_left_is_paused_within_thirty_answers() -> None:
    for seed in range(RUNS):
        rows = work(lambda better, number: FIRST, seed=seed)
        left = [
            row(
                each.query_id,
                FIRST if each.shown_left == "first" else SECOND,
                shown_order=each.shown_order,
            )
            for each in rows
        ]
        found = only(left)
        assert (found.state, found.left, found.decisive) == ("paused", WITHIN, WITHIN)
        assert found.reason == "30 of 30 answers were for the same side"


def test_one_mistake_in_ten_pauses_hardly_anybody_however_long_they_work() -> None:
    paused = watched = 0
    for seed in range(RUNS):
        rows = work(nine_of_ten, seed=seed, answers=200, checked=60)
        ends = [only(rows[:count]).state for count in (10, 14, 20, 26, 30, 50, 80, 120, 200)]
        paused += "paused" in ends
        watched += ends[-1] == "watch"
    assert paused / RUNS <= 0.01  # Ville's bound
    assert watched / RUNS <= 0.01  # who was watched early is cleared by further answers


def test_the_evidence_is_a_sum_over_checks_repeats_and_majorities() -> None:
    rows = [row("g", SECOND, purpose="gold", gold_answer=FIRST)]
    assert only(rows).evidence == pytest.approx(np.log(0.5 / 0.1))
    assert only([row("g", FIRST, purpose="gold", gold_answer=FIRST)]).evidence == pytest.approx(
        np.log(0.5 / 0.9)
    )
    rows += [row(f"h{n}", SECOND, purpose="gold", gold_answer=FIRST) for n in range(2)]
    found = only(rows)
    assert (found.gold_right, found.gold_asked, found.state) == (0, 3, "paused")
    assert found.evidence == pytest.approx(3 * np.log(5))
    assert found.reason == "checks and shared answers look like guessing, 125 to 1"
    assert (found.weight, weights([found])) == (0.0, {"ann": 0.0})
    assert WATCH < 2 * np.log(5) < PAUSE
    assert only(rows[:2]).state == "watch"
    assert 0.1 <= only(rows[:2]).weight <= 0.5
    assert only(rows, trusted=["ann"]).state == "ok"


def test_a_known_answer_may_be_given_beside_the_events_and_ties_are_none() -> None:
    rows = [row("q", SECOND), row("r", Answer.TIE)]
    assert only(rows).gold_asked == 0
    found = only(rows, gold={"q": SECOND, "r": FIRST})
    assert (found.gold_right, found.gold_asked) == (1, 2)
    assert only(rows, gold={"q": Answer.TIE}).gold_asked == 0


def test_a_repeat_is_the_same_answer_also_when_the_pair_is_turned() -> None:
    rows = [row("q", FIRST), row("r", SECOND), row("s", Answer.TIE)]
    turned: dict[str, Any] = {"candidate_ids": ("q-b", "q-a"), "purpose": "repeat"}
    assert (lambda it: (it.repeats_same, it.repeats_asked))(
        only([*rows, row("q2", SECOND, **turned)])
    ) == (1, 1)
    assert (lambda it: (it.repeats_same, it.repeats_asked))(
        only([*rows, row("q2", FIRST, **turned)])
    ) == (0, 1)
    assert only([*rows, row("q2", Answer.TIE, **turned)]).repeats_same == 0
    elsewhere = row("x", FIRST, purpose="repeat")
    assert only([*rows, elsewhere]).repeats_asked == 0


def test_agreement_is_with_the_majority_of_the_others_and_weighs_only_where_two_of_them_agree() -> (
    None
):
    pair = [row("q", FIRST, by="ann"), row("q", SECOND, by="bob")]
    assert (only(pair).agreement, only(pair).evidence) == (0.0, 0.0)
    third = [*pair, row("q", SECOND, by="cat", how="extra")]
    assert (only(third).agreement, only(third, "bob").agreement) == (0.0, None)
    assert only(third).evidence == pytest.approx(np.log(0.5 / 0.25))
    assert only(third, "cat").extra == 1


def test_a_correction_is_nobody_s_own_answer() -> None:
    rows = [
        row(f"q{n}", SECOND, purpose="gold", gold_answer=FIRST, note='{"corrected_by": "boss"}')
        for n in range(5)
    ]
    assert (only(rows).gold_asked, only(rows).state) == (0, "ok")
    assert only([row("q", FIRST, note="a note of my own")]).answers == 1


def test_answers_of_a_paused_labeler_measure_nobody() -> None:
    bad = [
        row(f"g{n}", SECOND, by=who, purpose="gold", gold_answer=FIRST)
        for n in range(4)
        for who in ("bob", "cat")
    ]
    alone = {"ann": FIRST, "bob": SECOND, "cat": SECOND}
    shared = [row(f"q{n}", said, by=who) for n in range(9) for who, said in alone.items()]
    assert only(shared).state == "paused"
    assert (only(shared + bad).state, only(shared + bad).shared) == ("ok", 0)
    assert only(shared + bad, "bob").state == "paused"


def test_a_hasty_or_undecided_labeler_is_watched() -> None:
    better = [row(f"q{n}", FIRST if n % 2 else SECOND, latency_ms=200) for n in range(20)]
    assert (only(better).state, only(better[:19]).state) == ("watch", "ok")
    assert only(better).reason == "20 of 20 answers took less than 0.5 s"
    assert only(better).median_seconds == 0.2
    ties = [row(f"q{n}", Answer.TIE) for n in range(20)]
    assert only(ties).reason == "20 of 20 answers say tie or cannot tell"


START = datetime(2026, 1, 1, tzinfo=UTC)


def timed(every_ms: int, *, held_ms: int | None = None, **said: Any) -> list[EventRow]:
    """Twenty-one answers at this pace by the queue's clock, each of a query held for so
    long.
    """
    rows = []
    for n in range(21):
        at = START + timedelta(milliseconds=every_ms * n)
        shown = None if held_ms is None else at - timedelta(milliseconds=held_ms)
        rows.append(
            row(f"q{n}", FIRST if n % 2 else SECOND, answered_at=at, shown_at=shown, **said)
        )
    return rows


@pytest.mark.parametrize("kind", ["human", "script", "teacher", None])
@pytest.mark.parametrize("claimed", [None, 40, 9000])
def test_pace_is_judged_by_the_queue_s_clock_whatever_a_labeler_says(
    kind: str | None, claimed: int | None
) -> None:
    said: dict[str, Any] = {"labeler_kind": kind, "latency_ms": claimed}
    assert only(timed(40, **said)).state == "watch"
    assert only(timed(3000, held_ms=40, **said)).state == "watch", (
        "got and answered at once, after a pause"
    )
    assert only(timed(40, held_ms=60_000, **said)).state == "watch", (
        "held for a minute, answered one after the other"
    )
    careful = only(timed(3000, held_ms=4000, **said))
    assert (careful.state, careful.fast, careful.median_seconds) == ("ok", 0, 3.0)
    teacher = timed(40, held_ms=30, **said | {"labeler_kind": "teacher"})
    assert only(teacher, teachers=True).state == "ok", "where the run has teachers answer"


def test_a_clock_that_was_set_back_and_an_admin_s_corrections_time_nobody() -> None:
    back = [
        replace(each, answered_at=START - timedelta(hours=n)) for n, each in enumerate(timed(0))
    ]
    assert only(back).timed == 21, "by what they say themselves, where the server knows nothing"
    rows = timed(3000, held_ms=2900)
    later = START + timedelta(days=1)
    rows += [
        replace(each, rev=2, note='{"corrected_by": "eve"}', answered_at=later) for each in rows
    ]
    assert only(rows).fast == 0


def test_the_ensemble_is_weak_evidence_and_holds_nothing_against_anybody() -> None:
    rows = [
        row(f"q{n}", FIRST if n % 2 else SECOND, predicted=(0.1, 0.9) if n % 2 else (0.9, 0.1))
        for n in range(20)
    ]
    found = only([*rows, row("even", FIRST, predicted=(0.5, 0.5)), row("early", FIRST)])
    assert (found.predicted_right, found.predicted_asked, found.state, found.evidence) == (
        0,
        20,
        "ok",
        0.0,
    )


def test_events_are_counted_by_kind() -> None:
    rows = [
        row("a", FIRST),
        row("b", FIRST, how="late"),
        row("c", FIRST),
        row("c", FIRST, event="retract", answer=None),
        row("d", FIRST, event="skip", answer=None, rev=0),
        row("e", FIRST, event="drop", answer=None, labeler=None),
    ]
    found = only(rows)
    assert (found.ok, found.late, found.extra, found.skipped, found.retracted, found.answers) == (
        1,
        1,
        0,
        1,
        1,
        2,
    )
    assert report([]) == []
    assert report([row("d", FIRST, event="skip", answer=None, rev=0)])[0].median_seconds is None


def test_wilson_is_the_interval_of_the_textbook() -> None:
    assert wilson(8, 10) == pytest.approx((0.4902, 0.9433), abs=1e-4)
    assert wilson(0, 0) == (0.0, 1.0)
    assert wilson(0, 10)[0] == 0.0
    assert wilson(10, 10)[1] == 1.0
    assert all(wilson(small, 20)[0] <= wilson(big, 20)[0] for small, big in pairwise(range(21)))


def test_the_side_test_is_that_of_a_fair_coin() -> None:
    assert binomial_p(0, 10) == pytest.approx(2 / 1024)
    assert binomial_p(10, 10) == binomial_p(0, 10)
    assert binomial_p(5, 10) == binomial_p(5, 11) == binomial_p(0, 0) == 1.0
    scipy_stats = pytest.importorskip("scipy.stats")
    for count, whole in ((3, 11), (40, 100), (499, 1000)):
        assert binomial_p(count, whole) == pytest.approx(scipy_stats.binomtest(count, whole).pvalue)


def test_a_majority_is_more_than_half_of_the_decisive_answers() -> None:
    assert majority([FIRST, SECOND, FIRST, Answer.TIE]) == (FIRST, 2)
    assert majority([FIRST, SECOND]) is None
    assert majority([Answer.TIE, None]) is None
