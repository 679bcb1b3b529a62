"""The labelling queue: the one door through which queries are asked and answered.

Everything lives in Redis (6.2 or later) under `rlhp:{<run>}:`; every change is one Lua script (`lua/*.lua`), so
it happens as a whole or not at all, on the clock of the server. What a call did is in its status; `explain` says
it in words. Every write is idempotent by id, so a call whose reply got lost is simply made again.

    meta                HASH    schema, config sha256, cap, budget, state open/draining/closed, info:<name>
    q:<query>           HASH    state, priority, body, fencing token, present holder, what each labeler did
    pending             ZSET    -priority -> `<put number>:<query>`: equal priorities first come, first served
    pending@<labeler>   ZSET    the same for queries addressed to one labeler, served first
    reserved            ZSET    deadline -> query: admitted, clips not there yet
    leased              ZSET    deadline -> query
    held:<page>         ZSET    what a page holds;  holds:<labeler>  SET  over all its pages
    open, finished      ZSET    when made -> query; when finished -> query, until its payloads are forgotten
    seen:<labeler>      SET     answered or skipped: never offered again
    dedup               HASH    pair of segments -> query, for as long as the run exists
    seg:<segment>       STRING  encoded segment, shared by queries (`segrefs` counts them)
    clip:<query>:<side> STRING  encoded video
    answers             STREAM  the log, read by the group `reward`
    counts, labelers, labeler:<name>, times:<name>, history:<name>, addressees
"""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal, cast

from rlhp.query.connection import (
    Connection,
    NoSuchGroup,
    OutOfMemory,
    QueueUnavailable,
    make_client,
    ping,
    reaching,
    redact,
)
from rlhp.query.reader import Reader
from rlhp.query.records import (
    AnswerStatus,
    DropStatus,
    Event,
    Lease,
    PutStatus,
    QueueStats,
    ReadyStatus,
    RunState,
    SkipStatus,
    Undo,
    explain,
    lease_from,
    stats_from,
    text,
)
from rlhp.types import Answer, digest, pair_id, parse_answer

__all__ = ["Event", "Lease", "QueryQueue", "QueueStats", "QueueUnavailable", "Undo", "explain", "list_runs", "ping"]

SCHEMA = "1"
"""Version of keys and scripts; a run of another version is refused."""
LEASES_PER_PAGE = 2
"""One shown and one fetched ahead."""
CLIP_RESERVE_SECONDS = 600
"""How long a query may wait for its clips before its place goes to another."""
ABSENT_SECONDS = 86_400
"""Queries addressed to a labeler not seen for a day are dropped."""
BLOCK_MS = 30_000
"""Longest wait of `events`."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,79}")
_log = logging.getLogger(__name__)


class QueryQueue:
    """The queue of one run. Safe to share between threads, to hand to another process, and to keep over a fork.

    Asking:      if queue.put(query=id, first=a, second=b, body=body, payloads={a: ..., b: ...}) == "full": wait()
    Answering:   for lease in queue.lease(labeler="ann", page="ann-1"):
                     segments = queue.segments(lease.segments)
                     queue.answer(query=lease.query, labeler="ann", page="ann-1", token=lease.token, answer="first")
    Reading:     events = queue.events(consumer="trainer")
                 write(events); queue.ack([event.stream_id for event in events])

    Every method raises QueueUnavailable while Redis is away and may then be called again.
    """

    def __init__(
        self, url: str, *, run: str, lease_seconds: float = 60.0, connect_timeout_seconds: float = 10.0
    ) -> None:
        """Connects to nothing yet; ValueError for a URL or a name that can be none."""
        _check_name("run", run)
        if lease_seconds <= 0:
            raise ValueError(f"a lease lasts longer than zero seconds, got lease_seconds={lease_seconds}")
        self.url = url
        self.run = run
        self.lease_seconds = lease_seconds
        self.connect_timeout_seconds = connect_timeout_seconds
        self._reader: Reader | None = None
        self._reader_of = (0, "")
        self._connect()

    def __getstate__(self) -> dict[str, Any]:
        return {
            "url": self.url,
            "run": self.run,
            "lease_seconds": self.lease_seconds,
            "connect_timeout_seconds": self.connect_timeout_seconds,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._connect()

    def __repr__(self) -> str:
        return f"QueryQueue({redact(self.url)!r}, run={self.run!r})"

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
    ) -> None:
        """Begin the run, or go on with it: counters, queries and answers stay as they are.

        Waits up to `connect_timeout_seconds` for the server. At most `cap` queries are open at a time, at most
        `budget` asked in the whole run. A query is dropped once `max_skips` labelers (or all present, if fewer)
        skipped it. ValueError where the keys belong to something else, or to a run of another configuration
        (`resume=True` goes on with it under the new one).
        """
        if cap < 1 or max_skips < 1 or (budget is not None and budget < 0):
            raise ValueError(f"cap and max_skips are at least 1, a budget at least 0; got {cap}, {max_skips}, {budget}")
        self._connection.wait(self.connect_timeout_seconds)
        pairs = [item for pair in (info or {}).items() for item in pair]
        budget_text = "" if budget is None else budget
        found = text(self._script("open", SCHEMA, config_sha256, cap, budget_text, max_skips, int(resume), *pairs))
        if found not in ("new", "own"):
            raise ValueError(self._refusal(found, config_sha256))
        self._warn_about_eviction()

    def close(self, *, state: Literal["draining", "closed"] = "closed") -> None:
        """Tell labelers to finish what they hold (`draining`: nothing new is asked) or to leave (`closed`)."""
        self._script("set_meta", "state", state)

    @property
    def state(self) -> RunState:
        """What `close` said; `missing` where no such run was opened at this Redis."""
        with self._client("read the state of the run") as client:
            value = client.hget(self._key("meta"), "state")
        return cast(RunState, "missing" if value is None else text(value))

    def set_info(self, info: Mapping[str, str]) -> None:
        """Small facts about the run for labelers and `status`; the others stay. ValueError before `open`."""
        pairs = [item for name, value in info.items() for item in (f"info:{name}", value)]
        if pairs and not self._script("set_meta", *pairs):
            raise ValueError(self._not_open())

    def info(self) -> dict[str, str]:
        """What `open` and `set_info` said about the run."""
        with self._client("read the facts of the run") as client:
            meta = {text(name): text(value) for name, value in client.hgetall(self._key("meta")).items()}
        return {name.removeprefix("info:"): value for name, value in meta.items() if name.startswith("info:")}

    def stats(self) -> QueueStats:
        """All counts at one instant."""
        return stats_from(self._script("stats"))

    # Asking

    def put(
        self,
        *,
        query: str,
        first: str,
        second: str,
        body: Mapping[str, Any],
        payloads: Mapping[str, bytes],
        priority: float = 0.0,
        want: int = 1,
        ready: bool = True,
        only: str | None = None,
    ) -> PutStatus:
        """Ask about two segments, given by id; higher priorities are answered first.

        `payloads` holds encoded segments by id. They are stored with the query and live until half an hour
        after it is finished, and never shorter than until its last event is acked. `want` labelers are asked.
        With `ready=False` the query waits for its clips. `only` addresses it to one labeler: such a query
        bypasses the cap and may repeat a pair. A server at its memory limit counts as full.
        """
        if first == second or want < 1 or not set(payloads) <= {first, second}:
            raise ValueError(
                f"a query shows two different segments to at least one labeler and brings no others along; "
                f"got first={first}, second={second}, want={want}, payloads of {sorted(payloads)}"
            )
        if only is not None:
            _check_name("labeler", only)
        pair = pair_id((first, second)) if only is None else digest("pair", only, query)
        whole_body = json.dumps({**body, "first": first, "second": second})
        pieces = [item for pair_ in payloads.items() for item in pair_]
        reserve_ms = CLIP_RESERVE_SECONDS * 1000
        try:
            status = text(
                self._script(
                    "put",
                    query,
                    pair,
                    first,
                    second,
                    priority,
                    want,
                    only or "",
                    int(ready),
                    reserve_ms,
                    whole_body,
                    *pieces,
                )
            )
        except OutOfMemory:
            return "full"
        if status == "missing":
            raise ValueError(self._not_open())
        return cast(PutStatus, status)

    def store_clip(self, *, query: str, side: Literal["first", "second"], data: bytes) -> None:
        """Keep the video of one side, for ten minutes until `ready` makes it stay."""
        with self._client("store a clip") as client:
            client.set(self._key(f"clip:{query}:{side}"), data, ex=CLIP_RESERVE_SECONDS)

    def clip(self, *, query: str, side: Literal["first", "second"]) -> bytes | None:
        """The video of one side; None where there is none."""
        with self._client("fetch a clip") as client:
            return cast("bytes | None", client.get(self._key(f"clip:{query}:{side}")))

    def ready(self, *, query: str) -> ReadyStatus:
        """Both clips of a reserved query are stored: offer it."""
        return cast(ReadyStatus, text(self._script("ready", query)))

    def drop(self, *, query: str) -> DropStatus:
        """Take a query back that nobody is answering."""
        return cast(DropStatus, text(self._script("drop", query)))

    def reprioritise(self, scores: Mapping[str, float]) -> int:
        """New priorities by query; how many were still pending and have theirs now."""
        pairs = [item for pair in scores.items() for item in pair]
        return sum(int(self._script("reprioritise", *pairs[at : at + 1000])) for at in range(0, len(pairs), 1000))

    def sweep(self) -> int:
        """End what ran out: leases, reservations, queries addressed to the absent. How many ended.

        Leases that ran out are also noticed by every call that leases or answers; call this now and then for
        the rest, and for payloads no longer needed.
        """
        return int(self._script("sweep", ABSENT_SECONDS * 1000))

    # Answering

    def lease(self, *, labeler: str, page: str, n: int = 1) -> list[Lease]:
        """Up to `n` queries (2 at most) for this page, what it holds already included and renewed.

        `page` names one open tab or worker and is unique to it. A labeler holds 4 at most over all pages. A lease
        lasts `lease_seconds`; once five answers are known, three times the labeler's median answer time, between
        half and ten times `lease_seconds`. Nobody holds a query longer than 15 times `lease_seconds`.
        """
        _check_name("labeler", labeler)
        rows = self._script("lease", labeler, page, max(1, min(n, LEASES_PER_PAGE)), self._lease_ms)
        return [lease_from(row) for row in rows]

    def segments(self, ids: Sequence[str]) -> dict[str, bytes]:
        """Encoded segments by id; one that is not (or no longer) here is left out."""
        if not ids:
            return {}
        with self._client("fetch segments") as client:
            found = client.mget([self._key(f"seg:{each}") for each in ids])
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
    ) -> AnswerStatus:
        """Record an answer, once: `rev` is this labeler's last revision of it plus one.

        ValueError for an answer that is none of the four, before anything is sent.
        """
        _check_name("labeler", labeler)
        about = json.dumps(dict(meta or {}))
        status = self._script("answer", query, labeler, page, token, parse_answer(answer).value, rev, about)
        return cast(AnswerStatus, text(status))

    def skip(self, *, query: str, labeler: str, page: str, token: int) -> SkipStatus:
        """Leave this query to others: this labeler is not offered it again."""
        _check_name("labeler", labeler)
        return cast(SkipStatus, text(self._script("skip", query, labeler, page, token)))

    def undo(self, *, query: str, labeler: str, page: str, rev: int) -> Undo:
        """Take revision `rev` of an answer back; the query is leased to this page again."""
        _check_name("labeler", labeler)
        status, token = self._script("undo", query, labeler, page, rev, self._lease_ms)
        return Undo(status=text(status), token=int(token) or None)  # type: ignore[arg-type]

    def history(self, *, labeler: str) -> list[tuple[str, int]]:
        """Query and revision of the labeler's last ten answers, newest first."""
        with self._client("read a labeler's history") as client:
            rows = client.lrange(self._key(f"history:{labeler}"), 0, -1)
        return [(query, int(rev)) for query, rev in (text(row).split() for row in rows)]

    # Reading the log

    def events(self, *, consumer: str, count: int = 256, block_ms: int | None = None) -> list[Event]:
        """The next events, waiting up to `block_ms` (30 s at most) for one; not safe to share between threads.

        A new queue object first gets what this consumer read and never acked, then what a consumer not heard of
        for a minute left behind. One object hands out each event once; over crashes it is at least once.
        """
        if self._reader is None or self._reader_of != (os.getpid(), consumer):
            client = make_client(self.url, timeout_seconds=BLOCK_MS / 1000 + 10)
            self._reader = Reader(client, stream=self._key("answers"), consumer=consumer, ack=self._ack)
            self._reader_of = (os.getpid(), consumer)
        try:
            with self._client("read the answer log"):
                return self._reader.read(count=count, block_ms=min(block_ms, BLOCK_MS) if block_ms else None)
        except QueueUnavailable:
            self._reader.lost_reply()
            raise
        except NoSuchGroup:
            raise ValueError(self._not_open()) from None

    def ack(self, stream_ids: Sequence[str]) -> int:
        """These events are on disk. How many were not acked before."""
        acked = self._ack(stream_ids)
        if self._reader is not None:
            self._reader.forget(stream_ids)
        return acked

    def trim(self) -> int:
        """Shorten the log behind the oldest event that is not acked. How many entries went."""
        return int(self._script("trim"))

    # Plumbing

    @property
    def _lease_ms(self) -> int:
        return max(1, round(self.lease_seconds * 1000))

    def _ack(self, stream_ids: Sequence[str]) -> int:
        return sum(int(self._script("ack", *stream_ids[at : at + 500])) for at in range(0, len(stream_ids), 500))

    def _key(self, name: str) -> str:
        return f"rlhp:{{{self.run}}}:{name}"  # the braces are Redis' hash tag: one slot per run

    def _connect(self) -> None:
        timeout = min(5.0, self.connect_timeout_seconds)
        self._connection = Connection(self.url, prefix=self._key(""), timeout_seconds=timeout)
        self._script = self._connection.script
        self._client = self._connection.client
        self._reader = None
        self._reader_of = (0, "")

    def _warn_about_eviction(self) -> None:
        with self._client("read the server's memory policy") as client:
            policy = client.info("memory").get("maxmemory_policy", "noeviction")
        if policy != "noeviction":
            _log.warning(
                "Redis at %s may throw queries and answers away (maxmemory-policy %s); set it to noeviction",
                redact(self.url),
                policy,
            )

    def _not_open(self) -> str:
        return f"run {self.run} was never opened at {redact(self.url)}; start the run first, or check its name"

    def _refusal(self, found: str, config_sha256: str) -> str:
        kind, _, value = found.partition(":")
        where = f"{self._key('meta')} at {redact(self.url)}"
        if kind == "schema":
            return f"{where} has schema {value or 'none'}, this rlhp needs {SCHEMA}; use the rlhp that made it"
        if kind == "config":
            return (
                f"{where} belongs to a run of another configuration (sha256 {value[:12]}, this one "
                f"{config_sha256[:12]}); choose another run name, or resume that run"
            )
        return f"{where} was not made by rlhp; choose another run name or another Redis database"


def list_runs(url: str) -> list[str]:
    """Names of the runs at a Redis, sorted, closed ones included."""
    with reaching(url, "list runs"), make_client(url, timeout_seconds=5) as client:
        names = [text(key)[6:-6] for key in client.scan_iter(match="rlhp:{*}:meta", count=1000)]
        return sorted(name for name in names if client.hget(f"rlhp:{{{name}}}:meta", "kind") == b"rlhp-queue")


def _check_name(kind: str, name: str) -> None:
    if not _NAME.fullmatch(name):
        raise ValueError(
            f"the name of a {kind} is 1 to 80 letters, digits or . _ @ + -, the first a letter or digit; got {name!r}"
        )
