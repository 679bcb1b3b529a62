"""Checks: queries whose answer is known already, mixed into the work of one labeler at
a set rate.

    labels.source=human: answers on disk -> who is due a check -> a pair
    -> put(only=labeler, hidden={gold: ...})

Nobody knows the truth, so an answer counts as known where it is by far the likeliest,
and the labeler who is checked had no part in it. In order of trust:

    trusted     labelers named in `quality.trusted` answered it, or an admin corrected the
                answer, all alike
    agreed      two or more unsuspected labelers answered it, all alike (`labels.votes`, or
                overlap by accident)
    confirmed   one did, and every ensemble member says the same with P > 0.95, one of them
                without ever having been trained on it. The weakest: what all labelers get wrong
                in the same way, this calls right
    repeat      no answer is known, but the labeler gave one: it is asked again, five or more
                answers later

Half of a new labeler's first answers are checks, up to `quality.probation` of them,
then `quality.gold_rate` of all. Checks are addressed to one labeler, look like any
query, are paid by no budget and never train the reward.
"""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np

from rlhp.config.schema import RewardConfig, RunConfig
from rlhp.preferences.answers import is_corrected, live
from rlhp.preferences.events import EventRow
from rlhp.preferences.quality import Reports
from rlhp.query.selection import log_odds
from rlhp.reward.data import SPARE_SHARE, bag_count, is_held_out
from rlhp.types import CHOICES, Answer, Array, Query, Segment, comparison_id, query_id

LOOK_EVERY_SECONDS = 1.0
MOST_OPEN = 2
"""Checks that wait for one labeler at a time, so that they never come in a row for
long.
"""
FORGET_SECONDS = 900.0
DISTANCE = 5
"""Answers between a query and its repeat."""
SURE = 0.95
CANDIDATES = 32
"""Queries whose answer the ensemble is asked to confirm at a time."""
REPEAT_EVERY = 4
"""One check in so many is a repeat even where gold is at hand."""


class AnswerStore(Protocol):
    """What is on disk of this run."""

    def refresh(self) -> None: ...

    def events(self) -> list[EventRow]: ...

    def segments(self, ids: Iterable[str]) -> list[Segment]: ...


Put = Callable[[Query, str, Mapping[str, Any]], str]
"""Ask this labeler alone, keeping something hidden; the status of the queue."""
Returns = Callable[[Sequence[tuple[Segment, ...]]], Array | None]
"""Predicted returns [M, Q, C] of the members for the candidates of queries, equally many
of each; None before the first reward version.
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Known:
    """An answer that is known, or likely, before it is asked for again."""

    query: str
    candidates: tuple[str, ...]
    answer: Answer
    source: Literal["trusted", "agreed", "likely"]


class Checks:
    """`step()` asks the checks that are due; how many were admitted."""

    def __init__(
        self, config: RunConfig, *, store: AnswerStore, put: Put, returns: Returns
    ) -> None:
        self._quality, self._reward, self._seed = config.quality, config.reward, config.seed
        self._rate = config.gold_rate
        self._store, self._put, self._returns = store, put, returns
        self._reports = Reports(teachers=config.labels.source == "oracle")
        self._rng = np.random.default_rng([config.seed, 8])
        # labeler -> query -> what it compares, since when
        self._open: dict[str, dict[str, tuple[str, float]]] = defaultdict(dict)
        self._looked_at = -math.inf
        self._looked_through, self._asked_last = 0, 0

    def step(self, *, wait_seconds: float = LOOK_EVERY_SECONDS) -> int:
        """At most one for each labeler, and at most once per `wait_seconds`."""
        if self._rate == 0 or time.monotonic() - self._looked_at < wait_seconds:
            return 0
        self._looked_at = time.monotonic()
        self._store.refresh()
        rows = self._store.events()
        if len(rows) == self._looked_through and not self._asked_last:
            return 0  # nobody did anything since, and nothing was left to ask
        standing = live(rows, purpose=None, extra=True)
        suspected = {
            each.name
            for each in self._reports(rows, trusted=self._quality.trusted)
            if each.state != "ok"
        }
        by_labeler: dict[str, list[EventRow]] = defaultdict(list)
        for row in rows:
            if row.labeler is not None:
                by_labeler[row.labeler].append(row)
        done = 0
        for labeler, mine in by_labeler.items():
            if self._due(labeler, mine):
                done += self._ask(labeler, mine, standing=standing, suspected=suspected)
        self._looked_through, self._asked_last = len(rows), done
        return done

    def _due(self, labeler: str, mine: Sequence[EventRow]) -> bool:
        """Whether this labeler answered enough since the last check. A check that was
        skipped is not made up for.
        """
        heard = {row.query_id for row in mine if row.purpose != "train"}
        # a check may lapse without a word; one that did not is the `same`
        fresh = time.monotonic() - FORGET_SECONDS
        waiting = {
            query: at
            for query, at in self._open[labeler].items()
            if query not in heard and at[1] > fresh
        }
        self._open[labeler] = waiting
        worked = len(
            {row.query_id for row in mine if row.purpose == "train" and row.event == "answer"}
        )
        probation = self._quality.probation
        earned = min(worked, probation) + math.floor(self._rate * max(0, worked - probation))
        return len(waiting) < MOST_OPEN and len(heard) + len(waiting) < earned

    def _ask(
        self,
        labeler: str,
        mine: Sequence[EventRow],
        *,
        standing: Sequence[EventRow],
        suspected: set[str],
    ) -> int:
        checked = {comparison_id(row.candidate_ids) for row in mine if row.purpose != "train"}
        checked |= {asked for asked, _ in self._open[labeler].values()}
        repeat = self._repeat(mine, standing, without=checked)
        number = len(checked)
        gold = None
        if repeat is None or number % REPEAT_EVERY != REPEAT_EVERY - 1:
            seen = checked | {comparison_id(row.candidate_ids) for row in mine}
            others = [
                row for row in standing if row.labeler != labeler and row.labeler not in suspected
            ]
            gold = self._gold(
                [
                    k
                    for k in known_answers(others, trusted=self._quality.trusted)
                    if comparison_id(k.candidates) not in seen
                ]
            )
        if gold is not None:
            return self._put_one(labeler, gold.candidates, gold=gold.answer)
        return 0 if repeat is None else self._put_one(labeler, repeat, gold=None)

    def _gold(self, known: Sequence[Known]) -> Known | None:
        """One of the best kind there is."""
        for source in ("trusted", "agreed"):
            found = [each for each in known if each.source == source]
            if found:
                return found[int(self._rng.integers(len(found)))]
        likely = [
            each
            for each in known
            if each.source == "likely" and any_untrained(each.query, self._reward, seed=self._seed)
        ]
        some = [likely[k] for k in self._rng.permutation(len(likely))[:CANDIDATES]]
        return next(self._confirmed(some), None)

    def _confirmed(self, some: Sequence[Known]) -> Iterator[Known]:
        if not some:
            return
        # those of another number of candidates have another turn
        some = [each for each in some if len(each.candidates) == len(some[0].candidates)]
        returns = self._returns([self._segments(each.candidates) for each in some])
        if returns is None:
            return
        for each, odds_MC in zip(some, log_odds(returns).swapaxes(0, 1), strict=True):
            if np.all(odds_MC[:, each.answer.place] > math.log(SURE / (1 - SURE))):
                yield each

    def _repeat(
        self, mine: Sequence[EventRow], standing: Sequence[EventRow], *, without: set[str]
    ) -> tuple[str, ...] | None:
        """Candidates of which this labeler chose one long enough ago, and was not asked
        again yet.
        """
        labeler = mine[0].labeler
        own = [row for row in standing if row.labeler == labeler and row.purpose == "train"][
            :-DISTANCE
        ]
        decided = [row.candidate_ids for row in own if row.answer in CHOICES]
        decided = [ids for ids in decided if comparison_id(ids) not in without]
        return decided[int(self._rng.integers(len(decided)))] if decided else None

    def _put_one(self, labeler: str, ids: tuple[str, ...], *, gold: Answer | None) -> int:
        purpose = "repeat" if gold is None else "gold"
        segments = self._segments(ids)
        id_ = query_id(run=segments[0].run, purpose=purpose, candidates=ids, salt=labeler)
        # the other way round half of the time, or who always says `first` is consistent
        if int(id_[0], 16) % 2:
            segments = segments[::-1]
            if gold is not None and gold.place is not None:
                gold = CHOICES[len(ids) - 1 - gold.place]
        query = Query(id=id_, candidates=segments, purpose=purpose, strategy="check")
        status = self._put(query, labeler, {} if gold is None else {"gold": gold.value})
        if status in ("ok", "same"):  # the same: asked before a restart, and open still
            self._open[labeler][id_] = comparison_id(ids), time.monotonic()
        return int(status == "ok")

    def _segments(self, ids: tuple[str, ...]) -> tuple[Segment, ...]:
        return tuple(self._store.segments(ids))


def known_answers(rows: Iterable[EventRow], *, trusted: Iterable[str] = ()) -> list[Known]:
    """What these standing answers make known: per query, where all who answered it said
    the same and chose a side.
    """
    trusted = frozenset(trusted)
    by_query: dict[str, list[EventRow]] = defaultdict(list)
    for row in rows:
        if row.purpose == "train":
            by_query[row.query_id].append(row)
    found = []
    for query, votes in by_query.items():
        trustees = [row for row in votes if row.labeler in trusted or is_corrected(row)]
        heard = trustees or votes
        answers = {row.answer for row in heard}
        (answer, *more) = answers
        if more or answer not in CHOICES:
            continue
        assert answer is not None
        source: Literal["trusted", "agreed", "likely"]
        source = "trusted" if trustees else "agreed" if len(votes) > 1 else "likely"
        found.append(
            Known(query=query, candidates=heard[0].candidate_ids, answer=answer, source=source)
        )
    return found


def any_untrained(query: str, config: RewardConfig, *, seed: int) -> bool:
    """Whether some member of the ensemble never trains on the answer to this query."""
    share = config.heldout_share or (0.0 if config.bootstrap else SPARE_SHARE)
    if is_held_out(query, share=share):
        return True
    return config.bootstrap and any(
        bag_count(query, member=m, seed=seed) == 0 for m in range(config.members)
    )
