"""The table of events in a preference dataset: what happened to each query, one row per
event.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from typing import Any, Literal, Protocol, get_args

import pyarrow as pa

from rlhp.errors import UNREADABLE, one_line
from rlhp.preferences.schema import TIME, WORD
from rlhp.types import TARGET, Answer, parse_answer

Event = Literal["answer", "retract", "skip", "drop"]
How = Literal["ok", "late", "extra"]
LabelerKind = Literal["human", "teacher", "script"]
Purpose = Literal["train", "gold", "repeat", "heldout"]
Side = Literal["first", "second"]


class QueueEvent(Protocol):
    """An entry of the answer stream, as the queue delivers it."""

    @property
    def stream_id(self) -> str: ...
    @property
    def event(self) -> Event: ...
    @property
    def query(self) -> str: ...
    @property
    def first(self) -> str: ...
    @property
    def second(self) -> str: ...
    @property
    def labeler(self) -> str | None: ...
    @property
    def answer(self) -> Answer | None: ...
    @property
    def rev(self) -> int: ...
    @property
    def how(self) -> How | None: ...
    @property
    def at_ms(self) -> int: ...
    @property
    def leased_ms(self) -> int | None: ...
    @property
    def made_ms(self) -> int: ...
    @property
    def meta(self) -> Mapping[str, Any]:
        """What the labeler said beside the answer: kind, strength, shown_left,
        latency_ms, replays.
        """

    @property
    def body(self) -> Mapping[str, Any]:
        """The query's body: purpose, strategy, score, reward_version, env_steps."""

    @property
    def hidden(self) -> Mapping[str, Any]:
        """What no labeler is told: gold, the known answer, and predicted_first."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EventRow:
    """One thing that happened to one query: somebody answered, took an answer back or
    skipped, or it was dropped.
    """

    query_id: str
    first_id: str
    second_id: str
    event: Event
    answer: Answer | None = None
    """Only for `answer` events."""
    strength: float | None = None
    """How sure the labeler was, 0 to 1, where the page asks for it."""
    labeler: str | None = None
    """None only for `drop`, which the queue does."""
    labeler_kind: LabelerKind | None = None
    rev: int = 0
    """Counts a labeler's answers to one query; a `retract` carries the rev it takes
    back.
    """
    how: How = "ok"
    """`late`: after the lease ran out, counted. `extra`: after the query was finished,
    kept but never trained on.
    """
    purpose: Purpose = "train"
    gold_answer: Answer | None = None
    """The known answer of a check; no labeler is told."""
    strategy: str = "random"
    score: float = 0.0
    selected_version: int | None = None
    """Reward version whose members scored the pair."""
    predicted_first: float | None = None
    """The members' mean P(first preferred) when the pair was asked; None before the
    first reward version.
    """
    env_steps: int = 0
    made_at: datetime | None = None
    shown_at: datetime | None = None
    """When the labeler got the query. As all three by the clock of the queue's server.
    """
    answered_at: datetime | None = None
    latency_ms: int | None = None
    """How long the labeler took, in its own words."""
    shown_left: Side | None = None
    """Which segment was on the left of the screen."""
    replays: int = 0
    stream_id: str | None = None
    note: str | None = None

    def __post_init__(self) -> None:
        for name, allowed in _CHOICES.items():
            value = getattr(self, name)
            if value not in allowed:
                raise ValueError(
                    f"query {self.query_id}: {name} is one of {_words(allowed)}; got {value!r}"
                )
        if (self.answer is not None) != (self.event == "answer"):
            raise ValueError(
                f"query {self.query_id}: an `answer` event and only that carries an answer; "
                f"got event={self.event}, answer={self.answer}"
            )
        if (self.labeler is None) != (self.event == "drop"):
            raise ValueError(
                f"query {self.query_id}: a labeler answers, retracts or skips, and nobody drops; "
                f"got event={self.event}, labeler={self.labeler!r}"
            )
        for name in ("made_at", "shown_at", "answered_at"):
            moment = getattr(self, name)
            if moment is not None and moment.tzinfo is None:
                raise ValueError(
                    f"query {self.query_id}: {name} needs a time zone, got {moment}; use "
                    "datetime.now(UTC)"
                )

    @classmethod
    def of_event(cls, event: QueueEvent) -> EventRow:
        """The row of an entry of the answer stream; what it cannot place of a labeler's
        own words is the note.
        """
        known, note = _placed(event.meta)
        body, gold = event.body, event.hidden.get("gold")
        return cls(
            query_id=event.query,
            first_id=event.first,
            second_id=event.second,
            event=event.event,
            answer=event.answer,
            labeler=event.labeler or None,
            rev=event.rev,
            how=event.how or "ok",
            purpose=body.get("purpose", "train"),
            gold_answer=None if gold is None else parse_answer(gold),
            strategy=body.get("strategy", "random"),
            score=body.get("score", 0.0),
            selected_version=body.get("reward_version"),
            predicted_first=event.hidden.get("predicted_first"),
            env_steps=body.get("env_steps", 0),
            made_at=_moment(event.made_ms),
            shown_at=None if event.leased_ms is None else _moment(event.leased_ms),
            answered_at=_moment(event.at_ms),
            stream_id=event.stream_id,
            note=note,
            **known,
        )

    @property
    def key(self) -> tuple[str, str | None, int, str]:
        """What makes the row unique: the same event delivered twice counts once."""
        return (self.query_id, self.labeler, self.rev, self.event)

    @property
    def p_first(self) -> float | None:
        """P(first preferred), None where the answer has no target."""
        return TARGET.get(self.answer) if self.answer is not None else None


_CHOICES: dict[str, tuple[Any, ...]] = {
    "event": get_args(Event),
    "how": get_args(How),
    "purpose": get_args(Purpose),
    "labeler_kind": (*get_args(LabelerKind), None),
    "shown_left": (*get_args(Side), None),
}


def _words(allowed: tuple[Any, ...]) -> str:
    return ", ".join(str(value) for value in allowed if value is not None)


EVENT_SCHEMA = pa.schema(
    [
        pa.field("query_id", pa.string(), nullable=False),
        pa.field("first_id", pa.string(), nullable=False),
        pa.field("second_id", pa.string(), nullable=False),
        pa.field("event", WORD, nullable=False),
        pa.field("answer", WORD),
        pa.field("p_first", pa.float32()),
        pa.field("strength", pa.float32()),
        pa.field("labeler", pa.string()),
        pa.field("labeler_kind", WORD),
        pa.field("rev", pa.int16(), nullable=False),
        pa.field("how", WORD, nullable=False),
        pa.field("purpose", WORD, nullable=False),
        pa.field("gold_answer", WORD),
        pa.field("strategy", WORD, nullable=False),
        pa.field("score", pa.float32(), nullable=False),
        pa.field("selected_version", pa.int64()),
        pa.field("predicted_first", pa.float32()),
        pa.field("env_steps", pa.int64(), nullable=False),
        pa.field("made_at", TIME),
        pa.field("shown_at", TIME),
        pa.field("answered_at", TIME),
        pa.field("latency_ms", pa.int32()),
        pa.field("shown_left", WORD),
        pa.field("replays", pa.int16(), nullable=False),
        pa.field("stream_id", pa.string()),
        pa.field("note", pa.string()),
    ]
)


def event_table(rows: Sequence[EventRow]) -> pa.Table:
    """These events as a table; ValueError, or what pyarrow raises, for one that cannot
    be stored.
    """
    table = pa.Table.from_pylist(
        [asdict(row) | {"p_first": row.p_first} for row in rows], EVENT_SCHEMA
    )
    for field in EVENT_SCHEMA:  # which pyarrow looks at only where it writes
        if not field.nullable and table[field.name].null_count:
            raise ValueError(f"every event has {field.name}, got none")
    return table


def storable(events: Iterable[QueueEvent]) -> tuple[list[EventRow], dict[str, str]]:
    """The rows of these entries of the answer stream, and by stream id why another one
    makes none.
    """
    rows: list[EventRow] = []
    odd: dict[str, str] = {}
    for event in events:
        try:
            row = EventRow.of_event(event)
            event_table([row])
        except UNREADABLE as error:
            odd[event.stream_id] = one_line(error)
        else:
            rows.append(row)
    return rows, odd


def event_rows(table: pa.Table) -> Iterator[EventRow]:
    """The events of a table; ValueError for a row that could not have been written."""
    names = [field.name for field in fields(EventRow)]
    for row in table.select(names).to_pylist():
        for name in ("answer", "gold_answer"):
            row[name] = None if row[name] is None else Answer(row[name])
        yield EventRow(**row)


def _moment(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC)


def _count(value: object, *, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= most


_META: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "kind": ("labeler_kind", lambda value: value in get_args(LabelerKind)),
    "strength": ("strength", lambda value: isinstance(value, int | float) and 0 <= value <= 1),
    "shown_left": ("shown_left", lambda value: value in get_args(Side)),
    "latency_ms": ("latency_ms", lambda value: _count(value, most=2**31 - 1)),
    "replays": ("replays", lambda value: _count(value, most=2**15 - 1)),
}


def _placed(meta: Mapping[str, Any]) -> tuple[dict[str, Any], str | None]:
    """What of `meta` has a column, and the rest as JSON: a labeler's slip must not stop
    the stream.
    """
    known = {
        _META[name][0]: value
        for name, value in meta.items()
        if name in _META and _META[name][1](value)
    }
    rest = {
        name: value
        for name, value in meta.items()
        if name not in _META or _META[name][0] not in known
    }
    return known, json.dumps(rest, default=str) if rest else None
