"""The reports on labelers as they are meant: all figures anew from all events. Slow,
and the truth for the fast way.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from statistics import median

from rlhp.preferences.answers import is_corrected, live
from rlhp.preferences.events import EventRow
from rlhp.preferences.quality import (
    FAST_SECONDS,
    LabelerReport,
    evidence_of,
    majority,
    verdict,
    weight_of,
    wilson,
)
from rlhp.types import CHOICES, Answer


def slow_report(events: Iterable[EventRow], *, trusted: Iterable[str] = ()) -> list[LabelerReport]:
    """One report per labeler of these events, by name."""
    rows = list(events)
    known = {row.query_id: row.gold_answer for row in rows if row.gold_answer is not None}
    standing = live(rows, purpose=None, extra=True)
    first_look = _reports(
        rows, standing, known=known, paused=frozenset(), trusted=frozenset(trusted)
    )
    # A paused labeler's opinion is no majority to measure others by.
    paused = frozenset(each.name for each in first_look if each.state == "paused")
    if not paused:
        return first_look
    return _reports(rows, standing, known=known, paused=paused, trusted=frozenset(trusted))


def _reports(
    rows: Sequence[EventRow],
    standing: Sequence[EventRow],
    *,
    known: Mapping[str, Answer | None],
    paused: frozenset[str],
    trusted: frozenset[str],
) -> list[LabelerReport]:
    by_query: dict[str, dict[str, EventRow]] = defaultdict(dict)
    mine: dict[str, list[EventRow]] = {row.labeler: [] for row in rows if row.labeler is not None}
    for row in standing:
        assert row.labeler is not None
        by_query[row.query_id][row.labeler] = row
        if not is_corrected(row):
            mine[row.labeler].append(row)
    others: dict[str, Counter[str]] = defaultdict(Counter)
    for row in rows:
        others[row.labeler or ""][row.event] += 1
    return [
        _one(
            name,
            answers,
            others[name],
            by_query=by_query,
            known=known,
            paused=paused,
            trusted=trusted,
        )
        for name, answers in sorted(mine.items())
    ]


def _one(
    name: str,
    answers: Sequence[EventRow],
    events: Counter[str],
    *,
    by_query: Mapping[str, Mapping[str, EventRow]],
    known: Mapping[str, Answer | None],
    paused: frozenset[str],
    trusted: frozenset[str],
) -> LabelerReport:
    gold = [
        row.answer == known[row.query_id] for row in answers if known.get(row.query_id) in CHOICES
    ]
    repeats = _repeats(answers)
    agreed, outvoted = _shared(name, answers, by_query=by_query, without=paused)
    predicted = [
        (row.answer is Answer.FIRST) == (row.predicted_first > 0.5)
        for row in answers
        if row.answer in CHOICES
        and row.purpose == "train"
        and row.predicted_first not in (None, 0.5)
    ]
    sides = [
        (row.answer is Answer.FIRST) == (row.shown_left != "second")
        for row in answers
        if row.answer in CHOICES
    ]
    seconds = [row.latency_ms / 1000 for row in answers if row.latency_ms is not None]
    timed = [
        row.latency_ms / 1000
        for row in answers
        if row.latency_ms is not None and row.labeler_kind == "human"
    ]
    how = Counter(row.how for row in answers)
    evidence = sum(
        evidence_of(kind, sum(right), of=len(right))
        for kind, right in (("gold", gold), ("repeat", repeats), ("shared", outvoted))
    )
    fast, undecided = sum(each < FAST_SECONDS for each in timed), len(answers) - len(sides)
    side_p = _exact_p(sum(sides), len(sides))
    state, reason = verdict(
        evidence,
        side_p=side_p,
        left=(sum(sides), len(sides)),
        fast=(fast, len(timed)),
        undecided=undecided,
    )
    if name in trusted:
        state, reason = "ok", ""
    low, high = wilson(sum(gold), len(gold))
    return LabelerReport(
        name=name,
        kind=answers[-1].labeler_kind if answers else None,
        ok=how["ok"],
        late=how["late"],
        extra=how["extra"],
        skipped=events["skip"],
        retracted=events["retract"],
        gold_right=sum(gold),
        gold_asked=len(gold),
        gold_low=low,
        gold_high=high,
        repeats_same=sum(repeats),
        repeats_asked=len(repeats),
        agreed=sum(agreed),
        shared=len(agreed),
        predicted_right=sum(predicted),
        predicted_asked=len(predicted),
        left=sum(sides),
        decisive=len(sides),
        side_p=side_p,
        undecided=undecided,
        median_seconds=median(seconds) if seconds else None,
        fast=fast,
        timed=len(timed),
        evidence=evidence,
        weight=weight_of(state, evidence),
        state=state,
        reason=reason,
    )


def _repeats(answers: Sequence[EventRow]) -> list[bool]:
    """For every repeat of an own earlier decisive answer, whether it is given again;
    pairs may come in either order.
    """
    own = [row for row in answers if row.purpose == "train" and row.answer in CHOICES]
    before: set[tuple[str, str, Answer | None]] = {
        (row.first_id, row.second_id, row.answer) for row in own
    }
    before |= {(second, first, _turned(answer)) for first, second, answer in before}
    pairs = {(first, second) for first, second, _ in before}
    asked = [
        row for row in answers if row.purpose == "repeat" and (row.first_id, row.second_id) in pairs
    ]
    return [(row.first_id, row.second_id, row.answer) in before for row in asked]


def _shared(
    name: str,
    answers: Sequence[EventRow],
    *,
    by_query: Mapping[str, Mapping[str, EventRow]],
    without: frozenset[str],
) -> tuple[list[bool], list[bool]]:
    """Agreement with any majority of the others, and with majorities of two or more,
    which alone are evidence: where two disagree, nobody knows which of them is wrong.
    """
    agreed, outvoted = [], []
    for row in answers:
        rest = [
            other.answer
            for who, other in by_query[row.query_id].items()
            if who != name and who not in without
        ]
        most = majority(rest)
        if most is not None and row.answer in CHOICES:
            agreed.append(row.answer == most[0])
            if most[1] >= 2:
                outvoted.append(row.answer == most[0])
    return agreed, outvoted


def _turned(answer: Answer | None) -> Answer | None:
    return (
        {Answer.FIRST: Answer.SECOND, Answer.SECOND: Answer.FIRST}.get(answer, answer)
        if answer
        else None
    )


def _exact_p(count: int, whole: int) -> float:
    tail = min(count, whole - count)
    if 2 * tail >= whole - 1:
        return 1.0
    return min(1.0, 2 * sum(math.comb(whole, k) for k in range(tail + 1)) / (1 << whole))
