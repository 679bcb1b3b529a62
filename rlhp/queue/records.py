"""What the queue hands out: leases, events, statistics, and a line for every status a
call can return.

The JSON body of a query in the queue, and the way back to a `Query`.

The segments travel beside it as bytes, so a body stays small and says only which
ones to fetch.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from rlhp.errors import RlhpError
from rlhp.types import MOST_CANDIDATES, Answer, Query, Segment, TeacherContext, parse_answer

RunState = Literal["open", "draining", "closed", "missing"]
PutStatus = Literal["ok", "same", "dup", "full", "spent", "no memory"]
ReadyStatus = Literal["ok", "same", "noclip", "gone"]
AnswerStatus = Literal["ok", "late", "extra", "same", "conflict", "denied", "gone"]
SkipStatus = Literal["ok", "same", "denied", "gone"]
UndoStatus = Literal["ok", "same", "no"]
DropStatus = Literal["ok", "same", "leased", "gone"]
EventKind = Literal["answer", "retract", "skip", "drop"]

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,79}")
"""Of a run or a labeler, so that it can be part of a key."""
LONGEST_ID = 300
MOST_MS = 4_102_444_800_000
"""The year 2100: times in the log lie before it."""

_MEANING: dict[str, str] = {
    "ok": "done",
    "same": "already done by an earlier call: nothing changed",
    "dup": "these candidates were already asked about in this run",
    "full": "the queue is full: wait until somebody answers, or drop a query that matters less",
    "no memory": "the server is at its memory limit and asks nothing more: raise its maxmemory",
    "spent": "the label budget is spent: no further query is asked",
    "late": "the lease had run out, but nobody had answered yet: the answer counts",
    "extra": "somebody else had answered: the answer is stored, but not counted",
    "conflict": (
        "this labeler's answer to the query already stands: undo it, then answer with the "
        "next revision"
    ),
    "denied": "the lease belongs to another labeler: lease the query first",
    "gone": "the query is unknown here or no longer open: lease another one",
    "leased": "somebody is answering the query right now, so it stays",
    "noclip": "a clip of the query is missing: store all of its clips first",
    "no": (
        "there is no such answer to undo, an admin has corrected it, or its segments are gone "
        "by now"
    ),
}


def explain(status: str) -> str:
    """One line for people about a status of the queue; ValueError for a word that is
    none.
    """
    if status not in _MEANING:
        raise ValueError(f"a queue status is one of {', '.join(_MEANING)}; got {status!r}")
    return _MEANING[status]


def beyond(query: str, answer: str) -> RlhpError:
    """For an answer that names a candidate which the query has not."""
    return RlhpError(
        f"query {query} shows fewer candidates than the answer {answer} needs; name one of those "
        "that are shown, or answer tie or incomparable"
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Lease:
    """One query, lent to one page until a deadline."""

    query: str
    token: int
    """Rises with every lease of the query; an answer must show it."""
    body: Mapping[str, Any]
    """As it was put, with the ids of the segments under `candidates`."""
    deadline_ms: int
    """Unix milliseconds on the clock of the Redis server; compare with nothing else."""
    rev: int
    """The revision that an answer must show: 1, and one more for every answer of this
    labeler's that was undone.
    """

    @property
    def candidates(self) -> tuple[str, ...]:
        """Ids of the segments, in the order that an answer goes by."""
        return named_in(self.body)


@dataclass(frozen=True, kw_only=True, slots=True)
class Undo:
    """What came of an undo."""

    status: UndoStatus
    token: int | None
    """To answer the same query again with; None where there was nothing to undo."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Event:
    """One entry of the answer log. A row of it is unique by (query, labeler, rev,
    event).
    """

    stream_id: str
    """`<unix ms of the server>-<number>`: the order of everything that happened."""
    event: EventKind
    query: str
    labeler: str
    """Empty for a drop."""
    page: str
    answer: Answer | None
    """None for everything but an answer."""
    rev: int
    """Revision of this labeler's answer to this query, from 1; 0 for skip and drop."""
    how: Literal["ok", "late", "extra"] | None
    """`extra` is never counted or trained on. A retract repeats that of the answer it
    takes back.
    """
    token: int
    meta: Mapping[str, Any]
    """As given with the answer: kind, latency_ms, shown_left and the like."""
    body: Mapping[str, Any]
    """Of the query."""
    candidates: tuple[str, ...]
    """Ids of the segments, in the order that the answer goes by."""
    made_ms: int
    """Unix milliseconds on the server's clock when the query was put."""
    hidden: Mapping[str, Any] = field(default_factory=dict)
    """What was put with the query and told to no labeler."""
    leased_ms: int | None = None
    """The same when the labeler got the query under `token`; None where the log does
    not say.
    """
    recorded_ms: int | None = None
    """The same when it happened, as the log says beside the stream id, which anybody's
    client can make up.
    """

    @property
    def at_ms(self) -> int:
        """Unix milliseconds on the server's clock when it happened."""
        return (
            int(self.stream_id.partition("-")[0]) if self.recorded_ms is None else self.recorded_ms
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelerStats:
    """One labeler's work."""

    ok: int = 0
    late: int = 0
    extra: int = 0
    skipped: int = 0
    undone: int = 0
    mean_answer_seconds: float = 0.0
    """From lease to answer."""
    idle_seconds: float = 0.0
    """Since the queue last heard of it."""

    @property
    def answers(self) -> int:
        """Answers ever given, counted or not, undone or not."""
        return self.ok + self.late + self.extra


@dataclass(frozen=True, kw_only=True, slots=True)
class QueueStats:
    """The queue at one instant."""

    state: RunState
    pending: int
    leased: int
    reserved: int
    done: int
    dropped: int
    admitted: int
    """Queries ever admitted; never falls."""
    asked: int
    """Admitted, less those that left without an answer: what a label budget counts.
    answered <= asked.
    """
    answered: int
    """Queries with at least one answer that counts."""
    oldest_age_seconds: float
    """Of the oldest open query; 0 when none is open."""
    unacked: int
    """Events read, but not known to be on disk."""
    backlog: int
    """Events not acked yet, read or not."""
    expired: int
    """Leases that ran out."""
    lapsed: int
    """Reservations given up."""
    set_aside: int
    """Entries of the log that made no row."""
    checks: int
    """Queries addressed to one labeler that were answered or wait: no budget pays for
    them, and of all counts only pending, leased, reserved, expired and those of events
    and labelers know them.
    """
    labelers: Mapping[str, LabelerStats] = field(default_factory=dict)

    @property
    def open(self) -> int:
        """Queries that still want an answer."""
        return self.pending + self.leased + self.reserved


def text(value: Any) -> str:
    """Redis hands out bytes."""
    return value.decode() if isinstance(value, bytes) else str(value)


def _flat(pairs: Iterable[Any]) -> dict[str, int]:
    items = [text(item) for item in pairs]
    return {name: int(value) for name, value in zip(items[::2], items[1::2], strict=True)}


def lease_from(row: list[bytes]) -> Lease:
    """From one row of the `lease` script."""
    query, token, body, deadline, rev = row
    return Lease(
        query=query.decode(),
        token=int(token),
        body=json.loads(body),
        deadline_ms=int(deadline),
        rev=int(rev),
    )


def event_from(stream_id: str, entry: Mapping[bytes, bytes]) -> Event:
    """From one stream entry; one of `rlhp.errors.UNREADABLE` where it is none of ours."""
    fields = {text(name): text(value) for name, value in entry.items()}
    kind, how = fields["ev"], fields["how"]
    if kind not in ("answer", "retract", "skip", "drop") or how not in ("ok", "late", "extra", ""):
        raise ValueError(
            f"an event is answer, retract, skip or drop, got {kind!r} with how={how!r}"
        )
    if kind != "drop" and not NAME.fullmatch(fields["by"]):
        raise ValueError(f"no labeler can have the name {fields['by'][:50]!r}")
    listed = "candidates" in fields
    ids = named_in({"candidates": json.loads(fields["candidates"])} if listed else fields)
    if any(len(each) > LONGEST_ID for each in (fields["id"], *ids)):
        raise ValueError(f"an id has {LONGEST_ID} characters at most")
    if not fields["id"] or not 2 <= len(ids) <= MOST_CANDIDATES or len(set(ids)) < len(ids):
        raise ValueError(
            f"query {fields['id']!r} is about 2 to {MOST_CANDIDATES} different segments, got "
            f"{', '.join(ids)[:50]!r}"
        )
    return Event(
        stream_id=stream_id,
        event=kind,  # type: ignore[arg-type]  # narrowed by the check above, which mypy does not follow
        query=fields["id"],
        labeler=fields["by"],
        page=fields["page"],
        answer=parse_answer(fields["ans"], candidates=len(ids)) if kind == "answer" else None,
        rev=int(fields["rev"]),
        how=how or None,  # type: ignore[arg-type]
        token=int(fields["tok"]),
        meta=_mapping(fields, "meta"),
        body=_mapping(fields, "body"),
        candidates=ids,
        made_ms=_moment_ms(fields["made"]),
        hidden=_mapping(fields, "hidden"),
        leased_ms=_moment_ms(fields["leased"]) if fields.get("leased") else None,
        recorded_ms=_moment_ms(fields["at"]) if fields.get("at") else None,
    )


def _mapping(fields: Mapping[str, str], name: str) -> dict[str, Any]:
    found = json.loads(fields.get(name, "{}"))
    if not isinstance(found, dict):
        raise ValueError(f"{name} is a JSON object, got {fields[name][:50]!r}")
    return found


def _moment_ms(value: str) -> int:
    if not 0 <= int(value) < MOST_MS:
        raise ValueError(f"a time lies between 1970 and 2100, got {value[:50]} ms")
    return int(value)


def stats_from(reply: list[Any]) -> QueueStats:
    """From the reply of the `stats` script."""
    state, now, pending, leased, reserved, oldest, unacked, unread, pairs, labelers = reply
    counts = _flat(pairs)
    admitted, dropped, lapsed = (counts.get(name, 0) for name in ("admitted", "dropped", "lapsed"))
    return QueueStats(
        state=text(state),  # type: ignore[arg-type]
        pending=pending,
        leased=leased,
        reserved=reserved,
        done=counts.get("done", 0),
        dropped=dropped,
        admitted=admitted,
        asked=admitted - dropped - lapsed,
        answered=counts.get("answered", 0),
        oldest_age_seconds=(now - int(oldest)) / 1000 if int(oldest) else 0.0,
        unacked=unacked,
        backlog=unacked + unread,
        expired=counts.get("expired", 0),
        lapsed=lapsed,
        set_aside=counts.get("set_aside", 0),
        checks=sum(by * counts.get(f"addressed_{name}", 0) for name, by in _CHECKS.items()),
        labelers={text(name): _labeler(_flat(facts), now) for name, facts in labelers},
    )


_CHECKS = {"admitted": 1, "dropped": -1, "lapsed": -1}


def _labeler(facts: Mapping[str, int], now_ms: int) -> LabelerStats:
    names = ("ok", "late", "extra", "skipped", "undone")
    answers = sum(facts.get(name, 0) for name in names[:3])
    return LabelerStats(
        **{name: facts.get(name, 0) for name in names},
        mean_answer_seconds=facts.get("answer_ms", 0) / 1000 / max(answers, 1),
        idle_seconds=max(0, now_ms - facts.get("last_seen", now_ms)) / 1000,
    )


SCHEMA = 2
"""Version of the body, which lists its candidates; 1 was of pairs, `first` and
`second`, and is read. Another one is refused rather than guessed at.
"""


class BodyError(ValueError):
    """A body, or the segments with it, that do not make a query."""


def body_of(query: Query) -> dict[str, Any]:
    """Plain data for the queue: everything of `query` but its segments, which it names
    by id.
    """
    return {
        "schema": SCHEMA,
        "query": query.id,
        "candidates": [each.id for each in query.candidates],
        "purpose": query.purpose,
        "strategy": query.strategy,
        "score": query.score,
        "reward_version": query.reward_version,
        "env_steps": query.env_steps,
        "context": None if query.context is None else asdict(query.context),
    }


def segment_ids(body: Mapping[str, Any]) -> tuple[str, ...]:
    """Ids of the candidates, in order; BodyError where the body is of another schema or
    names none.
    """
    if body.get("schema") not in (1, SCHEMA):
        raise BodyError(
            f"a query's body has schema {SCHEMA}, got {body.get('schema')!r}; run the same rlhp "
            "version on both sides"
        )
    try:
        return named_in(body)
    except ValueError as error:
        raise BodyError(f"a query's body names its candidates: {error}") from None


def named_in(facts: Mapping[str, Any]) -> tuple[str, ...]:
    """Ids of the candidates, listed as `candidates` or, when all queries were pairs, as
    `first` and `second`; ValueError where there are none.
    """
    ids = facts.get("candidates", [facts.get("first"), facts.get("second")])
    if not isinstance(ids, list) or not all(isinstance(each, str) for each in ids):
        raise ValueError(f"candidates are a list of segment ids, got {ids!r}")
    return tuple(ids)


def query_from(body: Mapping[str, Any], segments: Mapping[str, Segment]) -> Query:
    """The query `body` describes; BodyError where the body or a segment is not what it
    should be.
    """
    ids = segment_ids(body)
    for id_ in ids:
        if id_ not in segments or segments[id_].id != id_:
            raise BodyError(
                f"segment {id_} of query {body.get('query')!r} is missing or is another one"
            )
    try:
        return Query(
            id=body["query"],
            candidates=tuple(segments[id_] for id_ in ids),
            purpose=body["purpose"],
            strategy=body["strategy"],
            score=body["score"],
            reward_version=body["reward_version"],
            env_steps=body["env_steps"],
            context=None if body["context"] is None else TeacherContext(**body["context"]),
        )
    except KeyError as error:
        raise BodyError(f"the body of query {body.get('query')!r} lacks {error}") from None
    except (TypeError, ValueError) as error:
        raise BodyError(
            f"the body of query {body.get('query')!r} makes no query: {error}"
        ) from error
