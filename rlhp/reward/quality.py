"""How good each labeler is, from the events of a run alone: pure functions, no clock, no queue.

What makes a labeler suspicious is in `rlhp.reward.suspicion`.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from statistics import median

from rlhp.reward.events import EventRow
from rlhp.reward.live import Key, is_corrected, live
from rlhp.reward.suspicion import FAST_SECONDS, State, binomial_p, evidence_of, share, verdict, weight_of, wilson
from rlhp.types import Answer

DECISIVE = (Answer.FIRST, Answer.SECOND)


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


def report(
    events: Iterable[EventRow],
    *,
    gold: Mapping[str, Answer] | None = None,
    trusted: Iterable[str] = (),
    teachers: bool = False,
) -> list[LabelerReport]:
    """One report per labeler of these events, by name.

    `gold` adds known answers by query to those that came with the events. Those named in `trusted` are always ok.
    Everybody is timed, whatever they say they are, unless the run has `teachers` answer.
    """
    rows = list(events)
    known = {row.query_id: row.gold_answer for row in rows if row.gold_answer is not None} | dict(gold or {})
    standing = live(rows, purpose=None, extra=True)
    seconds = {} if teachers else seconds_taken(rows)
    first_look = _reports(rows, standing, known=known, seconds=seconds, paused=frozenset(), trusted=frozenset(trusted))
    # A paused labeler's opinion is no majority to measure others by.
    paused = frozenset(each.name for each in first_look if each.state == "paused")
    if not paused:
        return first_look
    return _reports(rows, standing, known=known, seconds=seconds, paused=paused, trusted=frozenset(trusted))


def seconds_taken(rows: Iterable[EventRow]) -> dict[Key, float]:
    """By answer, the longest that its labeler can have looked: since the lease, and since the answer before.

    Both by the server's clock. A page fetches ahead, so a lease alone may be older than the look; what a labeler says
    of its time and of itself counts for nothing. Corrections are an admin's, and are left out.
    """
    taken: dict[Key, float] = {}
    before: dict[str | None, datetime] = {}
    for row in rows:
        if row.event != "answer" or row.answered_at is None or is_corrected(row):
            continue
        since = [moment for moment in (row.shown_at, before.get(row.labeler)) if moment is not None]
        before[row.labeler] = row.answered_at
        if since and (seconds := (row.answered_at - max(since)).total_seconds()) >= 0:  # unless the clock was set back
            taken[row.key] = seconds
    return taken


def weights(reports: Iterable[LabelerReport]) -> dict[str, float]:
    """Labelers whose answers do not count in full, and how much they count."""
    return {each.name: each.weight for each in reports if each.weight < 1}


def majority(answers: Iterable[Answer | None]) -> tuple[Answer, int] | None:
    """What more than half of the decisive answers say, and how many say it; None where they are split."""
    votes = Counter(answer for answer in answers if answer in DECISIVE)
    if not votes:
        return None
    answer, count = votes.most_common(1)[0]
    assert answer is not None
    return (answer, count) if 2 * count > votes.total() else None


def _reports(
    rows: Sequence[EventRow],
    standing: Sequence[EventRow],
    *,
    known: Mapping[str, Answer | None],
    seconds: Mapping[Key, float],
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
            name, answers, others[name], by_query=by_query, known=known, seconds=seconds, paused=paused, trusted=trusted
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
    seconds: Mapping[Key, float],
    paused: frozenset[str],
    trusted: frozenset[str],
) -> LabelerReport:
    gold = [row.answer == known[row.query_id] for row in answers if known.get(row.query_id) in DECISIVE]
    repeats = _repeats(answers)
    agreed, outvoted = _shared(name, answers, by_query=by_query, without=paused)
    predicted = [
        (row.answer is Answer.FIRST) == (row.predicted_first > 0.5)
        for row in answers
        if row.answer in DECISIVE and row.purpose == "train" and row.predicted_first not in (None, 0.5)
    ]
    sides = [(row.answer is Answer.FIRST) == (row.shown_left != "second") for row in answers if row.answer in DECISIVE]
    timed, told = _timed(answers, seconds)
    how = Counter(row.how for row in answers)
    evidence = evidence_of("gold", gold) + evidence_of("repeat", repeats) + evidence_of("shared", outvoted)
    fast, undecided = sum(each < FAST_SECONDS for each in timed), len(answers) - len(sides)
    side_p = binomial_p(sum(sides), len(sides))
    state, reason = verdict(evidence, side_p=side_p, sides=sides, fast=(fast, len(timed)), undecided=undecided)
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
        median_seconds=median(told) if told else None,
        fast=fast,
        timed=len(timed),
        evidence=evidence,
        weight=weight_of(state, evidence),
        state=state,
        reason=reason,
    )


def _timed(answers: Sequence[EventRow], seconds: Mapping[Key, float]) -> tuple[list[float], list[float]]:
    """Seconds that count against a labeler, and those that are told of one: what people say where no server knows."""
    claimed = {row.key: row.latency_ms / 1000 for row in answers if row.latency_ms is not None}
    people = {row.key for row in answers if row.labeler_kind == "human"}
    told = {row.key: seconds.get(row.key, claimed.get(row.key)) for row in answers}
    known = [(key, taken) for key, taken in told.items() if taken is not None]
    return [taken for key, taken in known if key in seconds or key in people], [taken for _, taken in known]


def _repeats(answers: Sequence[EventRow]) -> list[bool]:
    """For every repeat of an own earlier decisive answer, whether it is given again; pairs may come in either order."""
    own = [row for row in answers if row.purpose == "train" and row.answer in DECISIVE]
    before: set[tuple[str, str, Answer | None]] = {(row.first_id, row.second_id, row.answer) for row in own}
    before |= {(second, first, _turned(answer)) for first, second, answer in before}
    pairs = {(first, second) for first, second, _ in before}
    asked = [row for row in answers if row.purpose == "repeat" and (row.first_id, row.second_id) in pairs]
    return [(row.first_id, row.second_id, row.answer) in before for row in asked]


def _shared(
    name: str, answers: Sequence[EventRow], *, by_query: Mapping[str, Mapping[str, EventRow]], without: frozenset[str]
) -> tuple[list[bool], list[bool]]:
    """Agreement with any majority of the others, and with majorities of two or more, which alone are evidence:
    where two disagree, nobody knows which of them is wrong."""
    agreed, outvoted = [], []
    for row in answers:
        rest = [other.answer for who, other in by_query[row.query_id].items() if who != name and who not in without]
        most = majority(rest)
        if most is not None and row.answer in DECISIVE:
            agreed.append(row.answer == most[0])
            if most[1] >= 2:
                outvoted.append(row.answer == most[0])
    return agreed, outvoted


def _turned(answer: Answer | None) -> Answer | None:
    return {Answer.FIRST: Answer.SECOND, Answer.SECOND: Answer.FIRST}.get(answer, answer) if answer else None
