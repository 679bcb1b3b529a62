"""What the answers of one labeler add up to.

An answer is taken out again as it was put in, so that figures follow a log of any length for what is new in it.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from rlhp.reward.events import EventRow
from rlhp.reward.live import is_corrected
from rlhp.reward.suspicion import FAST_SECONDS
from rlhp.types import Answer

DECISIVE = (Answer.FIRST, Answer.SECOND)
Pair = tuple[str, str]


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
    fast: Share = field(default_factory=Share)
    seconds: list[float] = field(default_factory=list)
    """Sorted."""
    by_query: dict[str, EventRow | None] = field(default_factory=dict)
    """The answer that stands per query, in the order of first answers; None where none stands."""
    _said: dict[Pair, Counter[Answer]] = field(default_factory=lambda: defaultdict(Counter))
    _said_again: dict[Pair, Counter[Answer]] = field(default_factory=lambda: defaultdict(Counter))

    def count(self, row: EventRow, by: int, *, known: Answer | None, seconds: float | None) -> None:
        """Put an answer in, or with `by=-1` take it out. `seconds`: how long it took, where the server knows."""
        self.by_query[row.query_id] = row if by > 0 else None
        self.answers += by
        self.how[row.how] += by
        if known in DECISIVE:
            self.gold.count(row.answer == known, by)
        if row.answer in DECISIVE:
            self.left.count((row.answer is Answer.FIRST) == (row.shown_left != "second"), by)
            if row.purpose == "train" and row.predicted_first is not None and row.predicted_first != 0.5:
                self.predicted.count((row.answer is Answer.FIRST) == (row.predicted_first > 0.5), by)
        self._count_repeat(row, by)
        self._count_seconds(row, by, seconds)

    @property
    def kind(self) -> str | None:
        """What the labeler said last that it is."""
        return next((row.labeler_kind for row in reversed(self.by_query.values()) if row is not None), None)

    @property
    def median_seconds(self) -> float | None:
        """The median over all answers whose time is known."""
        if not self.seconds:
            return None
        middle = len(self.seconds) // 2
        return self.seconds[middle] if len(self.seconds) % 2 else sum(self.seconds[middle - 1 : middle + 1]) / 2

    def _count_repeat(self, row: EventRow, by: int) -> None:
        """Count whether a repeat of an own decisive answer is given again. Its pair may come in either order."""
        if row.answer is None or not (row.purpose == "repeat" or (row.purpose == "train" and row.answer in DECISIVE)):
            return
        pair, answer = _sorted(row, row.answer)
        said, again = self._said[pair], self._said_again[pair]
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
    """Agreement with the majority of the others, but for those who are no majority to measure anybody by."""

    without: frozenset[str] = frozenset()
    agreed: dict[str, Share] = field(default_factory=lambda: defaultdict(Share))
    """Agreement of a labeler with any majority of the others."""
    outvoted: dict[str, Share] = field(default_factory=lambda: defaultdict(Share))
    """Agreement with majorities of two or more. These alone are evidence: of two who disagree, either may be wrong."""

    def count(self, standing: Sequence[EventRow], by: int) -> None:
        """Put the answers to one query in, or with `by=-1` take them out."""
        if len(standing) < 2:
            return
        for row in standing:
            if row.answer not in DECISIVE or is_corrected(row):
                continue
            others = (other for other in standing if other.labeler != row.labeler and other.labeler not in self.without)
            most = majority(other.answer for other in others)
            if most is not None and row.labeler is not None:
                self.agreed[row.labeler].count(row.answer == most[0], by)
                if most[1] >= 2:
                    self.outvoted[row.labeler].count(row.answer == most[0], by)


def majority(answers: Iterable[Answer | None]) -> tuple[Answer, int] | None:
    """What more than half of the decisive answers say, and how many say it; None where they are split."""
    votes = Counter(answer for answer in answers if answer in DECISIVE)
    if not votes:
        return None
    answer, count = votes.most_common(1)[0]
    assert answer is not None
    return (answer, count) if 2 * count > votes.total() else None


def _same(said: Counter[Answer], again: Counter[Answer]) -> Share:
    if not said.total():
        return Share()
    return Share(sum(count for answer, count in again.items() if said[answer] > 0), again.total())


def _sorted(row: EventRow, answer: Answer) -> tuple[Pair, Answer]:
    """The pair in one order, whichever it was shown in, and the answer to it."""
    if row.first_id <= row.second_id:
        return (row.first_id, row.second_id), answer
    turned = {Answer.FIRST: Answer.SECOND, Answer.SECOND: Answer.FIRST}.get(answer, answer)
    return (row.second_id, row.first_id), turned
