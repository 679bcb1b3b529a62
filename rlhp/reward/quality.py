"""How good each labeler is, from the events of a run alone: no clock, no queue.

What makes a labeler suspicious is in `rlhp.reward.suspicion`, what is counted in `rlhp.reward.tally`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from rlhp.reward.events import EventRow
from rlhp.reward.live import Key, is_corrected, live
from rlhp.reward.suspicion import State, binomial_p, evidence_of, share, verdict, weight_of, wilson
from rlhp.reward.tally import DECISIVE, Agreement, Tally, majority
from rlhp.types import Answer

__all__ = ["DECISIVE", "LabelerReport", "Reports", "majority", "report", "weights"]


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
    """With the majority of the other labelers, of `shared` queries where there is one."""
    shared: int
    predicted_right: int
    """As the ensemble predicted before the pair was asked: weak evidence, never held against anybody."""
    predicted_asked: int
    left: int
    """Decisive answers for the clip on the left, of `decisive`."""
    decisive: int
    side_p: float
    """Of so uneven a share of left, or a more uneven one, without a bias (exact two-sided binomial test)."""
    undecided: int
    """Answers `tie` or `incomparable`."""
    median_seconds: float | None
    fast: int
    """Answers given within half a second, of `timed`, by the clock of the queue's server.

    What people say of their time counts where that knows nothing, as of imported answers.
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
        """Share of left among the answers that chose a side: 0.5 is none, 1 always left."""
        return share(self.left, self.decisive)


class Reports:
    """The reports on everybody, kept up to date: a call costs what is new since the one before.

    reports = Reports()
    reports(dataset.events())  # one per labeler, by name
    """

    def __init__(self, *, gold: Mapping[str, Answer] | None = None, teachers: bool = False) -> None:
        """`gold` adds known answers by query to those that come with the events.

        Everybody is timed, whatever they say they are, unless the run has `teachers` answer.
        """
        self._gold, self._teachers = dict(gold or {}), teachers
        self._newest: EventRow | None = None
        self._others = Agreement()
        self._forget()

    def __call__(self, events: Sequence[EventRow], *, trusted: Iterable[str] = ()) -> list[LabelerReport]:
        """One report per labeler of these events: those of the call before and what came since, or else all anew.

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
        """The longest that its labeler can have looked: since the lease, and since the answer before.

        Both by the server's clock. A page fetches ahead, so a lease alone may be older than the look; what a labeler
        says of its time and of itself counts for nothing. Corrections are an admin's, and are left out.
        """
        if self._teachers or row.answered_at is None or row.labeler is None or is_corrected(row):
            return
        since = [moment for moment in (row.shown_at, self._answered_at.get(row.labeler)) if moment is not None]
        self._answered_at[row.labeler] = row.answered_at
        if since and (seconds := (row.answered_at - max(since)).total_seconds()) >= 0:  # unless the clock was set back
            self._seconds[row.key] = seconds

    def _count(self, query: str, by: int) -> None:
        """Put in what stands of a query, or take it out."""
        standing = self._standing.get(query, [])
        for row in standing:
            assert row.labeler is not None
            if not is_corrected(row):
                seconds = self._seconds.get(row.key)
                self._tallies[row.labeler].count(row, by, known=self._known.get(query), seconds=seconds)
        self._everybody.count(standing, by)
        if self._others.without:
            self._others.count(standing, by)

    def _reports(self, agreement: Agreement, *, trusted: frozenset[str]) -> list[LabelerReport]:
        return [_one(name, tally, agreement, trusted=name in trusted) for name, tally in sorted(self._tallies.items())]


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
    undecided = tally.answers - left.whole
    state, reason = verdict(
        evidence, side_p=side_p, left=(left.part, left.whole), fast=(fast.part, fast.whole), undecided=undecided
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
