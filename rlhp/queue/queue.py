"""The labeling queue: the one door through which queries are asked and answered.

Everything lives in Redis (6.2 or later) under `rlhp:{<run>}:`; every change is one Lua
script (`lua/*.lua`), so it happens as a whole or not at all, on the clock of the
server. What a call did is in its status; `explain` says it in words. Every write is
idempotent by id, so a call whose reply got lost is simply made again. The keys are
listed on top of `lua/prelude.lua`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, Literal, cast

from rlhp.config import addresses
from rlhp.errors import RlhpError
from rlhp.queue import connection, records, runs
from rlhp.queue.accounts import Accounts, Pauses
from rlhp.queue.clips import Clips
from rlhp.queue.connection import QueueUnavailable, ping
from rlhp.queue.log import Readers, set_aside
from rlhp.queue.records import Event, Lease, QueueStats, Undo, explain, text
from rlhp.queue.runs import list_runs
from rlhp.storage.lease import Held, Owner, acquire
from rlhp.types import MOST_CANDIDATES, Answer, comparison_id, digest, parse_answer

if TYPE_CHECKING:
    from rlhp.queue.lookup import Counters, Lookup

__all__ = [
    "Event",
    "Lease",
    "QueryQueue",
    "QueueStats",
    "QueueUnavailable",
    "Undo",
    "explain",
    "list_runs",
    "ping",
]

LEASES_PER_PAGE = 2
"""One shown and one fetched ahead."""


class QueryQueue:
    """The queue of one run. Safe to share between threads, to hand to another process,
    and to keep over a fork.

    Asking:
        payloads = {a: ..., b: ...}
        while queue.put(query=id, candidates=(a, b), body=body, payloads=payloads) == "full":
            wait()
    Answering:
        for lease in queue.lease(labeler="ann", page="ann-1"):
            segments = queue.segments(lease.candidates)
            ticket = {"query": lease.query, "token": lease.token}
            queue.answer(**ticket, labeler="ann", page="ann-1", answer="first")
    Reading:
        events = queue.events(consumer="trainer")
        write(events)
        queue.ack([event.stream_id for event in events])

    Parts of it, which share its connections: `accounts`, who may label; `pauses`;
    `clips`; `lookup`, for pages and admins; `counters`.

    Every method raises QueueUnavailable while Redis is away and may then be called
    again.
    """

    def __init__(
        self,
        url: str,
        *,
        run: str,
        lease_seconds: float = 60.0,
        connect_timeout_seconds: float = 10.0,
        owner: str = "",
    ) -> None:
        """Connects to nothing yet; ValueError for a URL or a name that can be none.

        `owner`: the token of who opened the run, for those who ask and read in its
        name. Every call of theirs raises TakenOver, and does nothing, once somebody
        else has opened the run. Who only labels has none.
        """
        runs.check_name("run", run)
        if lease_seconds <= 0:
            raise RlhpError(
                f"a lease lasts longer than zero seconds, got lease_seconds={lease_seconds}"
            )
        self.url = url
        self.run = run
        self.lease_seconds = lease_seconds
        self.connect_timeout_seconds = connect_timeout_seconds
        self._connect(owner)

    def __getstate__(self) -> dict[str, Any]:
        names = ("url", "run", "lease_seconds", "connect_timeout_seconds", "owner")
        return {name: getattr(self, name) for name in names}

    def __setstate__(self, state: dict[str, Any]) -> None:
        owner = state.pop("owner")
        self.__dict__.update(state)
        self._connect(owner)

    def __enter__(self) -> QueryQueue:
        return self

    def __exit__(self, *_: object) -> None:
        """Disconnect; the run goes on."""
        self.disconnect()

    def disconnect(self) -> None:
        """Close this process's connections, not the run. The next call connects again,
        and reads as a new object.
        """
        self._connection.close()
        self._readers.close()

    @property
    def owner(self) -> str:
        """The token that this object shows; empty where it owns nothing."""
        return self._connection.owner

    def __repr__(self) -> str:
        return f"QueryQueue({addresses.shown(self.url)!r}, run={self.run!r})"

    # Parts, over the connections of this object

    @cached_property
    def lookup(self) -> Lookup:
        """Reads of single queries, and the correction of an answer."""
        from rlhp.queue import lookup  # with pyarrow, which no labeler needs

        return lookup.Lookup(self._connection, run=self.run)

    @cached_property
    def counters(self) -> Counters:
        """The counters, and the way back to them."""
        from rlhp.queue import lookup

        return lookup.Counters(self._connection, run=self.run)

    # The run

    def open(
        self,
        *,
        cap: int,
        config_sha256: str,
        info: Mapping[str, str] | None = None,
        budget: int | None = None,
        max_skips: int = 3,
        resume: bool = False,
        owner: Owner | None = None,
        run_id: str = "",
        take_over: bool = False,
        say: Callable[[str], object] = print,
    ) -> None:
        """Begin the run, or go on with it: counters, queries and answers stay as they
        are.

        The run is this `owner`'s from now on, until `close`; without one, this
        process's. RlhpError where somebody else's it is, as
        `rlhp.storage.lease.acquire` has it, or where it is another run of the same name
        (`run_id`).

        Waits up to `connect_timeout_seconds` for the server. At most `cap` queries are
        open at a time, at most `budget` asked in the whole run. A query is dropped once
        `max_skips` labelers (or all present, if fewer) skipped it. ValueError where the
        keys belong to something else, or to a run of another configuration
        (`resume=True` goes on with it under the new one).
        """
        if cap < 1 or max_skips < 1 or (budget is not None and budget < 0):
            raise ValueError(
                f"cap and max_skips are at least 1, a budget at least 0; got {cap}, {max_skips}, "
                f"{budget}"
            )
        self._connection.wait(self.connect_timeout_seconds)
        shown = owner or Owner.here()
        if self.owner:
            shown = replace(shown, token=self.owner)
        limits = (cap, "" if budget is None else budget, max_skips, int(resume), run_id)
        claim = partial(self._claim, config_sha256, limits, info or {}, shown=shown, resume=resume)
        before, self._connection.owner = self.owner, ""  # `open` says itself whose the run is
        try:
            what = f"run {self.run} at {addresses.shown(self.url)}"
            acquire(claim, what=what, take_over=take_over, wait=resume, say=say)
            before = shown.token
        finally:
            self._connection.owner = before
        runs.warn_about_eviction(self._connection)

    def _claim(
        self,
        config_sha256: str,
        limits: tuple[Any, ...],
        info: Mapping[str, str],
        replaces: str,
        *,
        shown: Owner,
        resume: bool,
    ) -> Held | None:
        """Open the run as `shown`, in place of the owner whose token is `replaces`, if
        any; who has it where it is somebody else's, None where it is ours now.
        """
        pairs = [item for pair in info.items() for item in pair]
        ours = (shown.token, shown.to_json(), replaces)
        found = text(self._script("open", runs.SCHEMA, config_sha256, *limits, *ours, *pairs))
        if found in ("new", "own"):
            return None
        held = runs.held(found)
        if held is None:
            raise RlhpError(
                runs.refusal(found, run=self.run, url=self.url, config_sha256=config_sha256)
            )
        again = resume and held.owner.is_this_process and held.owner.directory == shown.directory
        if not again or replaces:
            return held
        return self._claim(
            config_sha256, limits, info, held.owner.token, shown=shown, resume=resume
        )

    def beat(self) -> bool:
        """The owner is still there: say so more often than its lease is long. Whether
        the run is this owner's.
        """
        return bool(self._script("beat"))

    def close(self, *, state: Literal["draining", "closed"] = "closed") -> None:
        """Tell labelers to finish what they hold (`draining`: nothing new is asked) or
        to leave (`closed`).

        Closed, the run is nobody's any more.
        """
        self._script("close", state)

    def check_owner(self) -> None:
        """TakenOver where somebody else has opened the run since this owner did."""
        self._script("check")

    def forgotten(self) -> set[str]:
        """Queries that were asked here and finished so long ago that nothing else is
        known of them.
        """
        with self._client("list the queries") as client:
            asked = {text(query) for query in client.hvals(self._key("dedup"))}
            start = self._key("q:")
            return asked - {
                text(name).removeprefix(start)
                for name in client.scan_iter(match=f"{start}*", count=1000)
            }

    def recall(self, queries: Sequence[Mapping[str, Any]]) -> int:
        """What the disk knows of queries (`rlhp.queue.lookup`) is known here too; of
        how many something was new.
        """
        texts = [json.dumps(query) for query in queries]
        return sum(
            int(self._script("recall", *texts[at : at + 200])) for at in range(0, len(texts), 200)
        )

    @property
    def state(self) -> records.RunState:
        """What `close` said; `missing` where no such run was opened at this Redis."""
        with self._client("read the state of the run") as client:
            value = client.hget(self._key("meta"), "state")
        return cast(records.RunState, "missing" if value is None else text(value))

    @property
    def run_id(self) -> str:
        """The id of the run that was opened here under this name; empty where none was,
        or it has none.
        """
        with self._client("read the id of the run") as client:
            value = client.hget(self._key("meta"), "id")
        return "" if value is None else text(value)

    def set_info(self, info: Mapping[str, str]) -> None:
        """Small facts about the run for labelers and `status`; the others stay.
        ValueError before `open`.
        """
        pairs = [item for name, value in info.items() for item in (f"info:{name}", value)]
        if pairs and not self._script("set_meta", *pairs):
            raise runs.not_open(self.run, url=self.url)

    def info(self) -> dict[str, str]:
        """What `open` and `set_info` said about the run."""
        with self._client("read the facts of the run") as client:
            meta = {
                text(name): text(value) for name, value in client.hgetall(self._key("meta")).items()
            }
        return {
            name.removeprefix("info:"): value
            for name, value in meta.items()
            if name.startswith("info:")
        }

    def stats(self) -> QueueStats:
        """All counts at one instant."""
        return records.stats_from(self._script("stats"))

    # Asking

    def put(
        self,
        *,
        query: str,
        candidates: Sequence[str],
        body: Mapping[str, Any],
        payloads: Mapping[str, bytes],
        want: int = 1,
        ready: bool = True,
        only: str | None = None,
        hidden: Mapping[str, Any] | None = None,
    ) -> records.PutStatus:
        """Ask about two to four segments, given by id; queries are answered in the order in
        which they were asked.

        `payloads` holds encoded segments by id. They are stored with the query and live
        until half an hour after it is finished, and never shorter than until its last
        event is acked. `want` labelers are asked. With `ready=False` the query waits
        for its clips. `only` addresses it to one labeler: such a query bypasses cap and
        budget and may repeat a pair. `hidden` is for the log alone: no labeler is told.
        A server at its memory limit takes none.
        """
        ids = list(candidates)
        whole = 2 <= len(set(ids)) == len(ids) <= MOST_CANDIDATES
        if not whole or want < 1 or not set(payloads) <= set(ids):
            raise ValueError(
                f"a query shows 2 to {MOST_CANDIDATES} different segments to at least one labeler "
                f"and brings no others along; got candidates={ids}, {want=}, payloads of "
                f"{sorted(payloads)}"
            )
        if only is not None:
            runs.check_name("labeler", only)
        pair = comparison_id(ids) if only is None else digest("pair", only, query)
        whole_body = json.dumps({**body, "candidates": ids})
        pieces = [item for payload in payloads.items() for item in payload]
        try:
            facts = (query, pair, json.dumps(ids), want, only or "", int(ready))
            status = text(
                self._script("put", *facts, whole_body, json.dumps(dict(hidden or {})), *pieces)
            )
        except connection.OutOfMemory:
            return "no memory"
        if status == "missing":
            raise runs.not_open(self.run, url=self.url)
        return cast(records.PutStatus, status)

    def ready(self, *, query: str) -> records.ReadyStatus:
        """All clips of a reserved query are stored: offer it."""
        return cast(records.ReadyStatus, text(self._script("ready", query)))

    def drop(self, *, query: str, reason: str = "") -> records.DropStatus:
        """Take a query back that nobody is answering; a reason goes into the log."""
        about = json.dumps({"reason": reason} if reason else {})
        return cast(records.DropStatus, text(self._script("drop", query, about)))

    def sweep(self) -> int:
        """End what ran out: leases, reservations, queries for labelers absent for a
        day. How many ended.

        Call it now and then: whatever leases or answers notices leases that ran out,
        but not the rest.
        """
        return int(self._script("sweep"))

    # Answering

    def lease(self, *, labeler: str, page: str, n: int = 1) -> list[Lease]:
        """Up to `n` queries (2 at most) for this page, what it holds already included
        and renewed.

        `page` names one open tab or worker and is unique to it. A labeler holds 4 at
        most over all pages. A lease lasts `lease_seconds`; once five answers are known,
        three times the labeler's median answer time, between half and ten times
        `lease_seconds`. Nobody holds a query longer than 15 times `lease_seconds`.
        """
        runs.check_name("labeler", labeler)
        rows = self._script("lease", labeler, page, max(1, min(n, LEASES_PER_PAGE)), self._lease_ms)
        return [records.lease_from(row) for row in rows]

    def segments(self, ids: Sequence[str]) -> dict[str, bytes]:
        """Encoded segments by id; one that is not (or no longer) here is left out."""
        with self._client("fetch segments") as client:
            found = client.mget([self._key(f"seg:{each}") for each in ids]) if ids else []
        return {each: data for each, data in zip(ids, found, strict=True) if data is not None}

    def extend(self, *, page: str) -> int:
        """Heartbeat: a new deadline for all that this page holds. How many these are."""
        return int(self._script("extend", page))

    def release(self, *, page: str) -> int:
        """Give back all that this page holds, without a trace. How many these were."""
        return int(self._script("release", page))

    def answer(
        self,
        *,
        query: str,
        labeler: str,
        page: str,
        token: int,
        answer: Answer | str,
        rev: int = 1,
        meta: Mapping[str, Any] | None = None,
    ) -> records.AnswerStatus:
        """Record an answer, once: `rev` is this labeler's last revision of it plus one.

        ValueError for an answer that no query has, before anything is sent, and for one
        that names a candidate which this query has not.
        """
        runs.check_name("labeler", labeler)
        about = json.dumps(dict(meta or {}))
        said = parse_answer(answer).value
        status = text(self._script("answer", query, labeler, page, token, said, rev, about))
        if status == "beyond":
            raise records.beyond(query, answer)
        return cast(records.AnswerStatus, status)

    def skip(self, *, query: str, labeler: str, page: str, token: int) -> records.SkipStatus:
        """Leave this query to others: this labeler is not offered it again."""
        runs.check_name("labeler", labeler)
        return cast(records.SkipStatus, text(self._script("skip", query, labeler, page, token)))

    def undo(self, *, query: str, labeler: str, page: str, rev: int) -> Undo:
        """Take revision `rev` of an answer back; the query is leased to this page
        again.
        """
        runs.check_name("labeler", labeler)
        status, token = self._script("undo", query, labeler, page, rev, self._lease_ms)
        return Undo(status=text(status), token=int(token) or None)  # type: ignore[arg-type]

    def history(self, *, labeler: str) -> list[tuple[str, int]]:
        """Query and revision of the labeler's last ten answers, newest first."""
        with self._client("read a labeler's history") as client:
            rows = client.lrange(self._key(f"history:{labeler}"), 0, -1)
        return [(query, int(rev)) for query, rev in (text(row).split() for row in rows)]

    # Reading the log

    def events(
        self, *, consumer: str, count: int = 256, block_ms: int | None = None
    ) -> list[Event]:
        """The next events, waiting up to `block_ms` (30 s at most) for one; not safe to
        share between threads.

        A new queue object first gets what this consumer read and never acked, then what
        a consumer not heard of for a minute left behind. One object hands out each
        event once; over crashes it is at least once.
        """
        return self._readers.read(consumer, count=count, block_ms=block_ms)

    def ack(self, stream_ids: Sequence[str]) -> int:
        """These events are on disk. How many were not acked before."""
        acked = self._connection.ack(stream_ids)
        self._readers.forget(stream_ids)
        return acked

    def set_aside(self, reasons: Mapping[str, str]) -> int:
        """Take events out of the log, by stream id, that could not be stored, and say
        why; how many were not yet.
        """
        moved = set_aside(self._connection, reasons)
        self._readers.forget(list(reasons))
        return moved

    def trim(self) -> int:
        """Shorten the log behind the oldest event that is not acked. How many entries
        went.
        """
        return int(self._script("trim"))

    # Plumbing

    def _connect(self, owner: str) -> None:
        timeout = min(5.0, self.connect_timeout_seconds)
        self._lease_ms = max(1, round(self.lease_seconds * 1000))
        self._key = partial(runs.key, self.run)
        self._connection = connection.Connection(
            self.url, prefix=self._key(""), timeout_seconds=timeout, owner=owner
        )
        self._script = self._connection.script
        self._client = self._connection.client
        self._readers = Readers(self.url, run=self.run, connection=self._connection)
        self.accounts = Accounts(self._connection, run=self.run)
        self.pauses = Pauses(self._connection, run=self.run)
        self.clips = Clips(self._connection, run=self.run)
