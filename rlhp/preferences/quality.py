"""How good each labeler is, from the events of a run alone: no clock, no queue.

A labeler is suspected by the odds of two stories about the same answers: *guessing*
(right half of the time) and *careful* (right as often as `CAREFUL` says). The evidence
is the logarithm of those odds, added up answer by answer (the sequential probability
ratio test, Wald 1945). Two properties follow: it may be looked at after every answer,
and somebody at least as good as `CAREFUL` ever reaches odds of 100 to 1 with
probability 0.01 at most (Ville 1939).

    evidence >= ln(7.5)   watch    the answers count less: weight = P(careful) at even odds before,
                                   0.1 to 0.5
    evidence >= ln(100)   paused   no further queries, and none of the answers count: weight 0
    side                  a share of left (or right) of 65 % with p < 0.001 is watched, 85 %
                          with p < 1e-5 paused
    clock, ties           half of the answers within half a second, or nine of ten without a
                          preference: watch

What the answers of one labeler add up to is counted as the log grows: an answer is
taken out again as it was put in, so that a log of any length costs what is new in it.
"""

from __future__ import annotations

import json
import math
from bisect import bisect_left, insort
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime
from functools import lru_cache
from statistics import NormalDist
from typing import Literal

from rlhp.preferences.answers import Key, is_corrected, live
from rlhp.preferences.events import EventRow
from rlhp.types import CHOICES, Answer

INFO = "labelers"
"""Under which of the run's facts the reports are."""
HEADINGS = (
    "labeler",
    "answers",
    "known right",
    "same again",
    "agreement",
    "left",
    "seconds",
    "weight",
    "state",
)

State = Literal["ok", "watch", "paused"]
CAREFUL = {"gold": 0.9, "repeat": 0.75, "shared": 0.75}
"""How often a careful labeler gives the known answer, repeats an own one, and agrees
with at least two others. The last two are lower because most pairs that are asked about
are hard to tell apart.
"""
WATCH, PAUSE = math.log(7.5), math.log(100)
LIGHTEST, HEAVIEST = 0.1, 0.5
"""Bounds of a watched labeler's weight."""
FAST_SECONDS = 0.5
FEWEST = 20
"""Answers before clock and ties are held against anybody."""


def evidence_of(kind: str, right: int, *, of: int) -> float:
    """ln of the odds for guessing that so many right answers are worth; positive where
    too many are wrong.
    """
    careful = CAREFUL[kind]
    return right * math.log(0.5 / careful) + (of - right) * math.log(0.5 / (1 - careful))


def verdict(
    evidence: float, *, side_p: float, left: tuple[int, int], fast: tuple[int, int], undecided: int
) -> tuple[State, str]:
    """The state that these figures mean, and why. `left` and `fast`: how many answers,
    out of how many.
    """
    chosen, sides = left
    bias = abs(chosen / sides - 0.5) if sides else 0.0
    one_side = f"{max(chosen, sides - chosen)} of {sides} answers were for the same side"
    guessing = (
        f"checks and shared answers look like guessing, {math.exp(min(evidence, 50)):,.0f} to 1"
    )
    if evidence >= PAUSE:
        return "paused", guessing
    if bias >= 0.35 and side_p < 1e-5:
        return "paused", one_side
    if evidence >= WATCH:
        return "watch", guessing
    if bias >= 0.15 and side_p < 1e-3:
        return "watch", one_side
    if fast[1] >= FEWEST and 2 * fast[0] >= fast[1]:
        return "watch", f"{fast[0]} of {fast[1]} answers took less than {FAST_SECONDS} s"
    total = sides + undecided
    if total >= FEWEST and undecided >= 0.9 * total:
        return "watch", f"{undecided} of {total} answers say tie or cannot tell"
    return "ok", ""


def weight_of(state: State, evidence: float) -> float:
    """How much an answer counts in the fit, 0 to 1."""
    if state == "watch":
        return min(HEAVIEST, max(LIGHTEST, 1 / (1 + math.exp(evidence))))
    return 0.0 if state == "paused" else 1.0


def share(part: int, whole: int) -> float | None:
    """`part` of `whole`, None of nothing."""
    return part / whole if whole else None


def wilson(right: float, asked: int, *, level: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a share; (0, 1) where nothing was asked."""
    if asked == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf((1 + level) / 2)
    p, spread = right / asked, z * z / asked
    middle = (p + spread / 2) / (1 + spread)
    half = math.sqrt(p * (1 - p) * spread + spread * spread / 4) / (1 + spread)
    return max(0.0, middle - half), min(1.0, middle + half)


@lru_cache(maxsize=4096)
def binomial_p(count: int, whole: int) -> float:
    """P of a fair coin falling at least as unevenly as `count` heads of `whole`,
    two-sided, to ten digits.

    The likeliest count of the tail, and each next one as a fraction of the one before:
    the exact sum is one of integers that have a bit for every coin.
    """
    tail = min(count, whole - count)
    if 2 * tail >= whole - 1:
        return 1.0
    log_ways = math.lgamma(whole + 1) - math.lgamma(tail + 1) - math.lgamma(whole - tail + 1)
    fraction = total = 1.0
    for k in range(tail, 0, -1):
        fraction *= k / (whole - k + 1)
        total += fraction
        if fraction < 1e-17 * total:
            break
    return min(1.0, 2 * math.exp(log_ways - whole * math.log(2)) * total)


Compared = tuple[str, ...]
"""Candidates, sorted, so that they are the same in whatever order they were shown."""


@dataclass(slots=True)
class Share:
    """So many of so many."""

    part: int = 0
    whole: int = 0

    def count(self, yes: bool, by: int) -> None:
        """One more, or with `by=-1` one less."""
        self.part += by * yes
        self.whole += by


@dataclass(slots=True)
class Tally:
    """One labeler's answers that stand and are its own."""

    events: Counter[str] = field(default_factory=Counter)
    """The number of events of each kind, whether they stand or not."""
    how: Counter[str] = field(default_factory=Counter)
    answers: int = 0
    gold: Share = field(default_factory=Share)
    repeats: Share = field(default_factory=Share)
    predicted: Share = field(default_factory=Share)
    left: Share = field(default_factory=Share)
    """Of pairs alone: chance says a half of no other."""
    decided: int = 0
    fast: Share = field(default_factory=Share)
    seconds: list[float] = field(default_factory=list)
    """Sorted."""
    by_query: dict[str, EventRow | None] = field(default_factory=dict)
    """The answer that stands per query, in the order of first answers; None where none
    stands.
    """
    _said: dict[Compared, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    _said_again: dict[Compared, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))

    def count(self, row: EventRow, by: int, *, known: Answer | None, seconds: float | None) -> None:
        """Put an answer in, or with `by=-1` take it out. `seconds`: how long it took,
        where the server knows.
        """
        self.by_query[row.query_id] = row if by > 0 else None
        self.answers += by
        self.how[row.how] += by
        if known in CHOICES:
            self.gold.count(row.answer == known, by)
        if row.answer is not None and row.answer.place is not None:
            self.decided += by
            if len(row.candidate_ids) == 2:
                self.left.count((row.answer is Answer.FIRST) == (row.shown_left != "second"), by)
            if row.purpose == "train" and row.predicted is not None:
                likeliest = max(row.predicted)
                if row.predicted.count(likeliest) == 1:
                    self.predicted.count(row.predicted[row.answer.place] == likeliest, by)
        self._count_repeat(row, by)
        self._count_seconds(row, by, seconds)

    @property
    def kind(self) -> str | None:
        """What the labeler said last that it is."""
        return next(
            (row.labeler_kind for row in reversed(self.by_query.values()) if row is not None), None
        )

    @property
    def median_seconds(self) -> float | None:
        """The median over all answers whose time is known."""
        if not self.seconds:
            return None
        middle = len(self.seconds) // 2
        return (
            self.seconds[middle]
            if len(self.seconds) % 2
            else sum(self.seconds[middle - 1 : middle + 1]) / 2
        )

    def _count_repeat(self, row: EventRow, by: int) -> None:
        """Count whether a repeat of an own decisive answer is given again. Its candidates
        may come in any order.
        """
        if row.answer is None or not (
            row.purpose == "repeat" or (row.purpose == "train" and row.answer in CHOICES)
        ):
            return
        compared, place = tuple(sorted(row.candidate_ids)), row.answer.place
        answer = row.answer.value if place is None else row.candidate_ids[place]
        said, again = self._said[compared], self._said_again[compared]
        before = _same(said, again)
        (said if row.purpose == "train" else again)[answer] += by
        after = _same(said, again)
        self.repeats.part += after.part - before.part
        self.repeats.whole += after.whole - before.whole

    def _count_seconds(self, row: EventRow, by: int, seconds: float | None) -> None:
        claimed = None if row.latency_ms is None else row.latency_ms / 1000
        timed = claimed if seconds is None and row.labeler_kind == "human" else seconds
        if timed is not None:
            self.fast.count(timed < FAST_SECONDS, by)
        shown = claimed if seconds is None else seconds
        if shown is not None and by > 0:
            insort(self.seconds, shown)
        elif shown is not None:
            del self.seconds[bisect_left(self.seconds, shown)]


@dataclass(slots=True)
class Agreement:
    """Agreement with the majority of the others, but for those who are no majority to
    measure anybody by.
    """

    without: frozenset[str] = frozenset()
    agreed: dict[str, Share] = field(default_factory=lambda: defaultdict(Share))
    """Agreement of a labeler with any majority of the others."""
    outvoted: dict[str, Share] = field(default_factory=lambda: defaultdict(Share))
    """Agreement with majorities of two or more. These alone are evidence: of two who
    disagree, either may be wrong.
    """

    def count(self, standing: Sequence[EventRow], by: int) -> None:
        """Put the answers to one query in, or with `by=-1` take them out."""
        if len(standing) < 2:
            return
        for row in standing:
            if row.answer not in CHOICES or is_corrected(row):
                continue
            others = (
                other
                for other in standing
                if other.labeler != row.labeler and other.labeler not in self.without
            )
            most = majority(other.answer for other in others)
            if most is not None and row.labeler is not None:
                self.agreed[row.labeler].count(row.answer == most[0], by)
                if most[1] >= 2:
                    self.outvoted[row.labeler].count(row.answer == most[0], by)


def majority(answers: Iterable[Answer | None]) -> tuple[Answer, int] | None:
    """What more than half of the decisive answers say, and how many say it; None where
    they are split.
    """
    votes = Counter(answer for answer in answers if answer in CHOICES)
    if not votes:
        return None
    answer, count = votes.most_common(1)[0]
    assert answer is not None
    return (answer, count) if 2 * count > votes.total() else None


def _same(said: Counter[str], again: Counter[str]) -> Share:
    if not said.total():
        return Share()
    return Share(sum(count for answer, count in again.items() if said[answer] > 0), again.total())


__all__ = ["LabelerReport", "Reports", "majority", "report", "weights"]


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelerReport:
    """What is known about one labeler. Shares are None where nothing was counted."""

    name: str
    kind: str | None
    ok: int
    late: int
    extra: int
    skipped: int
    retracted: int
    gold_right: int
    gold_asked: int
    gold_low: float
    """Wilson's 95 % interval of the share right; 0 to 1 where none was asked."""
    gold_high: float
    repeats_same: int
    repeats_asked: int
    agreed: int
    """With the majority of the other labelers, of `shared` queries where there is one.
    """
    shared: int
    predicted_right: int
    """As the ensemble predicted before the pair was asked: weak evidence, never held
    against anybody.
    """
    predicted_asked: int
    left: int
    """Decisive answers for the clip on the left, of `decisive`."""
    decisive: int
    side_p: float
    """Of so uneven a share of left, or a more uneven one, without a bias (exact
    two-sided binomial test).
    """
    undecided: int
    """Answers `tie` or `incomparable`."""
    median_seconds: float | None
    fast: int
    """Answers given within half a second, of `timed`, by the clock of the queue's
    server.

    What people say of their time counts where that knows nothing, as of imported
    answers.
    """
    timed: int
    evidence: float
    """ln of the odds for guessing."""
    weight: float
    state: State
    reason: str
    """Why the state is not ok, in words; empty where it is."""

    @property
    def answers(self) -> int:
        """Answers that stand, those to checks included."""
        return self.ok + self.late + self.extra

    @property
    def agreement(self) -> float | None:
        """Share of shared queries answered like the majority of the others."""
        return share(self.agreed, self.shared)

    @property
    def side_bias(self) -> float | None:
        """Share of left among the answers that chose a side: 0.5 is none, 1 always
        left.
        """
        return share(self.left, self.decisive)


class Reports:
    """The reports on everybody, kept up to date: a call costs what is new since the one
    before.

    reports = Reports()
    reports(dataset.events())  # one per labeler, by name
    """

    def __init__(self, *, gold: Mapping[str, Answer] | None = None, teachers: bool = False) -> None:
        """`gold` adds known answers by query to those that come with the events.

        Everybody is timed, whatever they say they are, unless the run has `teachers`
        answer.
        """
        self._gold, self._teachers = dict(gold or {}), teachers
        self._newest: EventRow | None = None
        self._others = Agreement()
        self._forget()

    def __call__(
        self, events: Sequence[EventRow], *, trusted: Iterable[str] = ()
    ) -> list[LabelerReport]:
        """One report per labeler of these events: those of the call before and what
        came since, or else all anew.

        Those named in `trusted` are always ok.
        """
        if self._seen > len(events) or (self._seen and events[self._seen - 1] is not self._newest):
            self._forget()
        self._take_in(events[self._seen :])
        trusted = frozenset(trusted)
        first_look = self._reports(self._everybody, trusted=trusted)
        # A paused labeler's opinion is no majority to measure others by.
        paused = frozenset(each.name for each in first_look if each.state == "paused")
        if not paused:
            return first_look
        if self._others.without != paused:
            self._others = Agreement(paused)
            for standing in self._standing.values():
                self._others.count(standing, 1)
        return self._reports(self._others, trusted=trusted)

    def _forget(self) -> None:
        self._seen, self._newest = 0, None
        self._known: dict[str, Answer | None] = dict(self._gold)
        self._rows: dict[str, list[EventRow]] = defaultdict(list)
        self._standing: dict[str, list[EventRow]] = {}
        self._tallies: dict[str, Tally] = defaultdict(Tally)
        self._everybody, self._others = Agreement(), Agreement()
        self._seconds: dict[Key, float] = {}
        self._answered_at: dict[str, datetime] = {}

    def _take_in(self, rows: Sequence[EventRow]) -> None:
        by_query: dict[str, list[EventRow]] = defaultdict(list)
        for row in rows:
            self._seen, self._newest = self._seen + 1, row
            by_query[row.query_id].append(row)
            if row.labeler is None:
                continue
            tally = self._tallies[row.labeler]
            tally.events[row.event] += 1
            if row.event == "answer":
                tally.by_query.setdefault(row.query_id, None)
                self._time(row)
        for query, new in by_query.items():
            self._count(query, -1)
            self._rows[query] += new
            self._standing[query] = live(self._rows[query], purpose=None, extra=True)
            for row in new:
                if row.gold_answer is not None and query not in self._gold:
                    self._known[query] = row.gold_answer
            self._count(query, 1)

    def _time(self, row: EventRow) -> None:
        """The longest that its labeler can have looked: since the lease, and since the
        answer before.

        Both by the server's clock. A page fetches ahead, so a lease alone may be older
        than the look; what a labeler says of its time and of itself counts for nothing.
        Corrections are an admin's, and are left out.
        """
        if self._teachers or row.answered_at is None or row.labeler is None or is_corrected(row):
            return
        since = [
            moment
            for moment in (row.shown_at, self._answered_at.get(row.labeler))
            if moment is not None
        ]
        self._answered_at[row.labeler] = row.answered_at
        # unless the clock was set back
        if since and (seconds := (row.answered_at - max(since)).total_seconds()) >= 0:
            self._seconds[row.key] = seconds

    def _count(self, query: str, by: int) -> None:
        """Put in what stands of a query, or take it out."""
        standing = self._standing.get(query, [])
        for row in standing:
            assert row.labeler is not None
            if not is_corrected(row):
                seconds = self._seconds.get(row.key)
                self._tallies[row.labeler].count(
                    row, by, known=self._known.get(query), seconds=seconds
                )
        self._everybody.count(standing, by)
        if self._others.without:
            self._others.count(standing, by)

    def _reports(self, agreement: Agreement, *, trusted: frozenset[str]) -> list[LabelerReport]:
        return [
            _one(name, tally, agreement, trusted=name in trusted)
            for name, tally in sorted(self._tallies.items())
        ]


def report(
    events: Iterable[EventRow],
    *,
    gold: Mapping[str, Answer] | None = None,
    trusted: Iterable[str] = (),
    teachers: bool = False,
) -> list[LabelerReport]:
    """One report per labeler of these events, by name, as of `Reports`."""
    return Reports(gold=gold, teachers=teachers)(list(events), trusted=trusted)


def weights(reports: Iterable[LabelerReport]) -> dict[str, float]:
    """Labelers whose answers do not count in full, and how much they count."""
    return {each.name: each.weight for each in reports if each.weight < 1}


def _one(name: str, tally: Tally, agreement: Agreement, *, trusted: bool) -> LabelerReport:
    gold, repeats, left, fast = tally.gold, tally.repeats, tally.left, tally.fast
    agreed, outvoted = agreement.agreed[name], agreement.outvoted[name]
    shares = {"gold": gold, "repeat": repeats, "shared": outvoted}
    evidence = sum(evidence_of(kind, each.part, of=each.whole) for kind, each in shares.items())
    side_p = binomial_p(left.part, left.whole)
    undecided = tally.answers - tally.decided
    state, reason = verdict(
        evidence,
        side_p=side_p,
        left=(left.part, left.whole),
        fast=(fast.part, fast.whole),
        undecided=undecided,
    )
    if trusted:
        state, reason = "ok", ""
    low, high = wilson(gold.part, gold.whole)
    return LabelerReport(
        name=name,
        kind=tally.kind,
        ok=tally.how["ok"],
        late=tally.how["late"],
        extra=tally.how["extra"],
        skipped=tally.events["skip"],
        retracted=tally.events["retract"],
        gold_right=gold.part,
        gold_asked=gold.whole,
        gold_low=low,
        gold_high=high,
        repeats_same=repeats.part,
        repeats_asked=repeats.whole,
        agreed=agreed.part,
        shared=agreed.whole,
        predicted_right=tally.predicted.part,
        predicted_asked=tally.predicted.whole,
        left=left.part,
        decisive=left.whole,
        side_p=side_p,
        undecided=undecided,
        median_seconds=tally.median_seconds,
        fast=fast.part,
        timed=fast.whole,
        evidence=evidence,
        weight=weight_of(state, evidence),
        state=state,
        reason=reason,
    )


def published(info: Mapping[str, str]) -> list[LabelerReport]:
    """The newest reports among the facts of a run; none where nobody is watched, or
    where they are of another rlhp.
    """
    known = {field.name for field in fields(LabelerReport)}
    found = json.loads(info.get(INFO, "[]"))
    return [LabelerReport(**facts) for facts in found if set(facts) == known]


def table(reports: Sequence[LabelerReport]) -> list[str]:
    """Lines of a table for people, headings first; empty without labelers."""
    if not reports:
        return []
    rows = [HEADINGS, *(_row(each) for each in reports)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    return lines + [f"{each.name}: {each.reason}." for each in reports if each.reason]


def _row(each: LabelerReport) -> tuple[str, ...]:
    gold = "-"
    if each.gold_asked:
        gold = f"{each.gold_right}/{each.gold_asked} ({each.gold_low:.0%} to {each.gold_high:.0%})"
    return (
        each.name,
        str(each.answers),
        gold,
        f"{each.repeats_same}/{each.repeats_asked}" if each.repeats_asked else "-",
        _percent(each.agreement),
        _percent(share(each.left, each.decisive)),
        "-" if each.median_seconds is None else f"{each.median_seconds:.1f}",
        f"{each.weight:.2f}",
        each.state,
    )


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.0%}"
