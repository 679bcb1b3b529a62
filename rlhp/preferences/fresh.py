"""Fresh accuracy: how often the reward ranked a pair right before it had learned from
the pair's answer.

Every query carries what the ensemble predicted when it was asked
(`EventRow.predicted`), and the reward trainer learns from its answer only
afterwards. So each answer judges the reward once, as in prequential evaluation (Dawid
1984), and nothing has to be held out. Unlike held-out accuracy, which is over all
answers so far, it is about what the policy does now: the reward of a policy that went
where nobody was asked about ranks old pairs right and new ones wrong.

Pairs that a selection chose because the members disagree are harder than others. Where
`query.random_share` draws some pairs at random, those alone are counted, so that the
figure is about the policy's segments and not about the selection.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from rlhp.preferences.answers import is_reused
from rlhp.preferences.events import EventRow
from rlhp.preferences.quality import wilson
from rlhp.types import CHOICES, Answer

NEWEST = 60
"""Answers that the newest figure is over: its 95 % interval is then at most 0.25 wide.
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class FreshAccuracy:
    """Predictions beside the answers that came after them."""

    right: float
    """Decisive answers that were predicted; a prediction of one half counts as half
    right, and one in which several candidates are the likeliest in part.
    """
    decisive: int
    ties: int
    incomparable: int

    @property
    def accuracy(self) -> float | None:
        """Share of the decisive answers that were predicted; None without one."""
        return self.right / self.decisive if self.decisive else None

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % interval of the accuracy; 0 to 1 without a decisive answer."""
        return wilson(self.right, self.decisive)


def predicted(rows: Iterable[EventRow]) -> list[EventRow]:
    """The standing answers that a reward version of this run had predicted, in their
    order.

    Where some pairs were drawn at random among chosen ones, the random ones alone.
    """
    known = [
        row
        for row in rows
        if row.purpose == "train" and row.predicted is not None and not is_reused(row)
    ]
    drawn = [row for row in known if row.strategy == "random"]
    return drawn or known


def fresh_accuracy(rows: Sequence[EventRow]) -> FreshAccuracy:
    """Over these answers; one that no version had predicted counts as half right."""
    answers = [row.answer for row in rows]
    decisive = [row for row in rows if row.answer in CHOICES]
    return FreshAccuracy(
        right=sum(_right(row) for row in decisive),
        decisive=len(decisive),
        ties=answers.count(Answer.TIE),
        incomparable=answers.count(Answer.INCOMPARABLE),
    )


def by_version(rows: Sequence[EventRow]) -> dict[int, FreshAccuracy]:
    """Per reward version that made the predictions, oldest version first."""
    groups: dict[int, list[EventRow]] = {}
    for row in rows:
        if row.selected_version is not None:
            groups.setdefault(row.selected_version, []).append(row)
    return {version: fresh_accuracy(groups[version]) for version in sorted(groups)}


def by_age(
    rows: Sequence[EventRow], cut_at: Mapping[str, int]
) -> tuple[FreshAccuracy, FreshAccuracy]:
    """Fresh accuracy of the pairs with young segments, and of those with old ones; the
    median age divides them.

    `cut_at` has the env steps of the run at which a segment was cut. A pair is as old
    as its older segment was when it was asked about.
    """
    aged = sorted(
        (row for row in rows if all(each in cut_at for each in row.candidate_ids)),
        key=lambda row: row.env_steps - min(cut_at[each] for each in row.candidate_ids),
    )
    half = len(aged) // 2
    return fresh_accuracy(aged[:half]), fresh_accuracy(aged[half:])


def _right(row: EventRow) -> float:
    """How far the answer was the likeliest one; that of a chance draw where nothing was
    predicted.
    """
    if row.predicted is None or row.answer is None or row.answer.place is None:
        return 1 / len(row.candidate_ids)
    likeliest = max(row.predicted)
    return (row.predicted[row.answer.place] == likeliest) / row.predicted.count(likeliest)
