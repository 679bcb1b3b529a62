"""Several labelers on one query: which answer counts.

All answers are stored. The fit sees one per query: what most labelers said, or a tie where no answer is ahead of all
others. `incomparable` is no vote, unless nobody said anything else. A query counts from its first answer on, and a
later one may change what it says. Labelers who seem to guess have less than a vote, or none (`rlhp.reward.quality`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import repeat

from rlhp.reward.events import EventRow
from rlhp.reward.live import is_reused
from rlhp.types import Answer


def settle(rows: Iterable[EventRow], *, weights: Mapping[str, float] | None = None) -> list[EventRow]:
    """One row per query of `live` answers, in the order of its first answer and in that labeler's name.

    `weights` has the labelers whose vote is not a whole one; those with none are left out.
    """
    weights = weights or {}
    return [
        answers[0] if len(answers) == 1 else replace(answers[0], answer=_agreed(answers, weights))
        for answers in _by_query(rows, weights).values()
    ]


def doubts(rows: Iterable[EventRow], *, weights: Mapping[str, float]) -> dict[str, float]:
    """How much a query counts in the fit, where that is less than 1: the votes of those who answered it, added up."""
    totals = {
        query: sum(weights.get(row.labeler or "", 1.0) for row in answers)
        for query, answers in _by_query(rows, weights).items()
    }
    return {query: total for query, total in totals.items() if total < 1}


def _by_query(rows: Iterable[EventRow], weights: Mapping[str, float]) -> dict[str, list[EventRow]]:
    by_query: dict[str, list[EventRow]] = {}
    for row in rows:
        if weights.get(row.labeler or "", 1.0) > 0:
            by_query.setdefault(row.query_id, []).append(row)
    return by_query


def _agreed(rows: Sequence[EventRow], weights: Mapping[str, float]) -> Answer:
    return majority((row.answer for row in rows), each=(weights.get(row.labeler or "", 1.0) for row in rows))


def majority(answers: Iterable[Answer | None], *, each: Iterable[float] = repeat(1.0)) -> Answer:
    """What most of them say: a tie where several are equally many, `incomparable` where nobody compared.

    `each` is what their votes are worth.
    """
    votes: dict[Answer, float] = {}
    for answer, worth in zip(answers, each, strict=False):
        if answer is not None and answer is not Answer.INCOMPARABLE:
            votes[answer] = votes.get(answer, 0.0) + worth
    if not votes:
        return Answer.INCOMPARABLE
    most = max(votes.values())
    ahead = [answer for answer, count in votes.items() if count == most]
    return ahead[0] if len(ahead) == 1 else Answer.TIE


def answered(rows: Iterable[EventRow]) -> int:
    """Queries of this run's own that settled rows answer: what was copied from another run cost no budget."""
    return sum(not is_reused(row) for row in rows)
