"""The desk at which labelers sit: one run's queue, clips and tokens, in the words of
the page.

The page says left and right, the queue first and second. The order on the screen is a
permutation of the candidates by a hash of run, query and labeler: nothing to remember,
the same after a restart and on every server of the run, and another draw for another
labeler. It is stored with the answer.

Everything that was answered so far: the dataset on disk, and behind it what Redis still
holds.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import permutations
from typing import TYPE_CHECKING, get_args

from rlhp.errors import RlhpError
from rlhp.labeling.page.messages import (
    Answered,
    Choice,
    Given,
    LeaseOut,
    Leases,
    OnScreen,
    Outcome,
    Progress,
    Run,
    SkipOutcome,
    Skipped,
    Undone,
    UndoOutcome,
)
from rlhp.labeling.page.progress import facts_of, progress_of, waiting_for
from rlhp.monitor.answer_rate import AnswerRate
from rlhp.monitor.diagnosis import Facts
from rlhp.preferences.answers import Key
from rlhp.preferences.events import EventRow, confidence_of, storable
from rlhp.preferences.quality import LabelerReport, Reports
from rlhp.queue.accounts import Labeler
from rlhp.queue.clips import SIDES
from rlhp.queue.lookup import Lookup
from rlhp.queue.queue import LEASES_PER_PAGE, Lease, QueryQueue, explain
from rlhp.storage.rundir import RunDir
from rlhp.types import CHOICES, MOST_CANDIDATES, Answer, digest

if TYPE_CHECKING:
    from rlhp.preferences.dataset import PreferenceDataset


class AnswerLog:
    """The events of one run; without a run directory only those that Redis still holds."""

    def __init__(self, lookup: Lookup, rundir: RunDir | None) -> None:
        self._lookup, self._rundir = lookup, rundir
        self._dataset: PreferenceDataset | None = None
        self._rows: dict[Key, EventRow] = {}
        self._reports = Reports()
        self._lock = threading.Lock()

    def rows(self) -> list[EventRow]:
        """Every event, each once, oldest first."""
        fresh, _ = storable(self._lookup.unread())  # first: what leaves Redis is on disk
        with self._lock:
            for row in (*self._stored(), *fresh):
                self._rows.setdefault(row.key, row)
            return list(self._rows.values())

    def reports(self, *, trusted: Iterable[str]) -> list[LabelerReport]:
        """On everybody who did any of that."""
        rows = self.rows()
        with self._lock:
            return self._reports(rows, trusted=trusted)

    def _stored(self) -> list[EventRow]:
        if self._rundir is None or not (self._rundir.preferences / "dataset.json").exists():
            return []
        # a second of imports that labelers need not wait for
        from rlhp.preferences.dataset import PreferenceDataset

        if self._dataset is None:
            self._dataset = PreferenceDataset.open(self._rundir.preferences)
        self._dataset.refresh()
        return self._dataset.events()


UNDO_DEPTH = 10
STRENGTH = {"slight": 0.5, "clear": 1.0}
"""How sure the labeler was, 0 to 1, which `confidence_of` takes."""
ON_SCREEN = get_args(OnScreen)
ORDERS = {count: list(permutations(range(count))) for count in range(2, MOST_CANDIDATES + 1)}


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Which run a server serves."""

    url: str
    run: str
    lease_seconds: float = 60.0
    rundir: RunDir | None = None
    """Where metrics, videos and the whole log of answers are; None at a Redis alone."""


class Desk:
    """Everything behind the routes; safe to share between threads. QueueUnavailable
    while Redis is away.
    """

    def __init__(self, place: Place) -> None:
        self.place = place
        self.queue = QueryQueue(place.url, run=place.run, lease_seconds=place.lease_seconds)
        self.log = AnswerLog(self.queue.lookup, place.rundir)
        self._rate = AnswerRate()

    def close(self) -> None:
        """Disconnect."""
        self.queue.disconnect()

    def who(self, token: str | None) -> Labeler | None:
        """Whose token this is; nobody's for none, wherever the request came from."""
        return None if token is None else self.queue.accounts.find(token)

    def run(self, me: Labeler) -> Run:
        """The run, and how its page behaves."""
        facts = self.queue.info()
        return Run(
            run=self.place.run,
            env=facts.get("env", ""),
            instruction=facts.get("instruction", ""),
            state=self.queue.state,
            labeler=me.name,
            admin=me.admin,
            fps=float(facts.get("fps", "30")),
            strength=facts.get("strength") == "yes",
            undo_depth=UNDO_DEPTH,
            history=[
                Given(query=query, rev=rev) for query, rev in self.queue.history(labeler=me.name)
            ],
            # A quick labeler's leases last half the configured time: three beats fit
            # into that.
            heartbeat_seconds=self.place.lease_seconds / 6,
        )

    def progress(self, me: Labeler) -> Progress:
        """How far the run and this labeler are."""
        facts = self._facts()
        return progress_of(facts, labeler=me.name, per_minute=self._rate(facts.answered))

    def lease(self, me: Labeler, *, page: str) -> Leases:
        """What this page holds, filled up to two; or why there is nothing."""
        leases: list[Lease] = []
        # a query that was asked of teachers has no clips to show
        if self.queue.info().get("source") != "oracle":
            leases = self.queue.lease(labeler=me.name, page=_page(me, page), n=LEASES_PER_PAGE)
        facts = self._facts()
        waiting = None
        if not leases:
            paused = self.queue.pauses.reason(me.name)
            waiting = waiting_for(replace(facts, turned_away=True, paused=paused))
        return Leases(
            leases=[
                lease_out(
                    lease.query,
                    lease.token,
                    lease.deadline_ms,
                    rev=lease.rev,
                    candidates=len(lease.candidates),
                )
                for lease in leases
            ],
            waiting=waiting,
            progress=progress_of(facts, labeler=me.name, per_minute=self._rate(facts.answered)),
        )

    def _facts(self) -> Facts:
        return facts_of(self.queue.stats(), self.queue.info(), gone=self._gone())

    def _gone(self) -> bool:
        """Whether the process of the run is known to be gone."""
        if self.place.rundir is None:
            return False
        try:
            return self.place.rundir.info().died
        except RlhpError:  # a directory that cannot be read keeps nobody from labeling
            return False

    def extend(self, me: Labeler, *, page: str) -> int:
        """Heartbeat of a page; how many queries it holds."""
        return self.queue.extend(page=_page(me, page))

    def release(self, me: Labeler, *, page: str) -> int:
        """The page closed; how many queries go back."""
        return self.queue.release(page=_page(me, page))

    def answer(self, me: Labeler, said: Answered) -> Outcome:
        """Record an answer once, however often it is sent. RlhpError for a candidate that
        the query has not.
        """
        order = self.order(me, said.query)
        answer = answer_of(said.choice, order=order)
        confidence = None
        if said.strength is not None and len(order) == 2:
            confidence = confidence_of(answer, STRENGTH[said.strength])
        meta = {
            "kind": said.kind,
            "shown_order": order,
            "latency_ms": said.latency_ms,
            "replays": said.replays,
            "confidence": confidence,
            "note": said.note or None,
        }
        status = self.queue.answer(
            query=said.query,
            labeler=me.name,
            page=_page(me, said.page),
            token=said.token,
            answer=answer,
            rev=said.rev,
            meta={name: value for name, value in meta.items() if value is not None},
        )
        return Outcome(status=status, message=explain(status), progress=self.progress(me))

    def skip(self, me: Labeler, said: Skipped) -> SkipOutcome:
        """Leave a query to others."""
        status = self.queue.skip(
            query=said.query, labeler=me.name, page=_page(me, said.page), token=said.token
        )
        return SkipOutcome(status=status, message=explain(status))

    def undo(self, me: Labeler, said: Undone) -> UndoOutcome:
        """Take back the answer that is named, or this labeler's newest."""
        query, rev = said.query, said.rev
        if query is None or rev is None:
            history = self.queue.history(labeler=me.name)
            if not history:
                return UndoOutcome(status="no", message=explain("no"), lease=None, choice=None)
            query, rev = history[0]
        done = self.queue.undo(query=query, labeler=me.name, page=_page(me, said.page), rev=rev)
        if done.token is None:
            return UndoOutcome(
                status=done.status, message=explain(done.status), lease=None, choice=None
            )
        lookup, order = self.queue.lookup, self.order(me, query)
        given, deadline = lookup.given(query, labeler=me.name, rev=rev), lookup.deadline_ms(query)
        return UndoOutcome(
            status=done.status,
            message=explain(done.status),
            lease=lease_out(query, done.token, deadline, rev=rev + 1, candidates=len(order)),
            choice=None if given is None else choice_of(given, order=order),
        )

    def clip(self, me: Labeler, *, query: str, side: OnScreen) -> bytes | None:
        """The video of one candidate of a query that this labeler holds or held; None
        for any other.
        """
        if not self.queue.lookup.was_leased(query, labeler=me.name):
            return None
        order, at = self.order(me, query), ON_SCREEN.index(side)
        if at >= len(order):
            return None
        return self.queue.clips.fetch(query=query, side=SIDES[order[at]])

    def order(self, me: Labeler, query: str) -> tuple[int, ...]:
        """Places of the candidates as this labeler sees them from left to right."""
        orders = ORDERS[self.queue.lookup.candidates(query) or 2]
        drawn = int(digest("left", self.place.run, query, me.name)[::-1], 16)
        return orders[drawn % len(orders)]


def lease_out(query: str, token: int, deadline_ms: int, *, rev: int, candidates: int) -> LeaseOut:
    """A lease as the page gets it: with the addresses of its clips, and nothing of how
    it was chosen.
    """
    clips = [f"/api/clips/{query}/{where}" for where in ON_SCREEN[:candidates]]
    return LeaseOut(
        query=query,
        token=token,
        rev=rev,
        left=clips[0],
        right=clips[1],
        candidates=clips,
        deadline_ms=deadline_ms,
    )


def answer_of(choice: Choice, *, order: tuple[int, ...]) -> Answer:
    """What a choice on the screen means; RlhpError for one that is not there."""
    if choice not in ON_SCREEN:
        return Answer(choice)
    at = ON_SCREEN.index(choice)
    if at >= len(order):
        raise RlhpError(
            f"the query shows {len(order)} candidates, so its answer is one of "
            f"{', '.join(ON_SCREEN[: len(order)])}, tie and incomparable; got {choice}"
        )
    return CHOICES[order[at]]


def choice_of(answer: Answer, *, order: tuple[int, ...]) -> Choice:
    """The way back."""
    if answer.place is None:
        return "tie" if answer is Answer.TIE else "incomparable"
    where: OnScreen = ON_SCREEN[order.index(answer.place)]
    return where


def _page(me: Labeler, page: str) -> str:
    """The queue's name of a page: nobody can name somebody else's."""
    return f"{me.name}/{page}"
