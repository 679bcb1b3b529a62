"""The table of events in a preference dataset: what happened to each query, one row per
event.

For readers who know pairs alone, `first_id`, `second_id`, `p_first`, `strength`,
`predicted_first` and `shown_left` say of the first two candidates what other columns
say of all. Parts that were written when all queries were pairs have nothing else.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from itertools import permutations
from typing import Any, Literal, Protocol, get_args

import pyarrow as pa

from rlhp.errors import UNREADABLE, one_line
from rlhp.preferences.schema import TIME, WORD
from rlhp.types import MOST_CANDIDATES, Answer, answers_to, parse_answer, target

Event = Literal["answer", "retract", "skip", "drop"]
How = Literal["ok", "late", "extra"]
LabelerKind = Literal["human", "teacher", "script"]
Purpose = Literal["train", "gold", "repeat", "heldout"]
Side = Literal["first", "second"]
EVEN = 5
"""The middle of the scale of confidence, from 1 to 9."""


class QueueEvent(Protocol):
    """An entry of the answer stream, as the queue delivers it."""

    @property
    def stream_id(self) -> str: ...
    @property
    def event(self) -> Event: ...
    @property
    def query(self) -> str: ...
    @property
    def candidates(self) -> tuple[str, ...]: ...
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
        """What the labeler said beside the answer: kind, confidence, shown_order,
        latency_ms, replays.
        """

    @property
    def body(self) -> Mapping[str, Any]:
        """The query's body: purpose, strategy, score, reward_version, env_steps."""

    @property
    def hidden(self) -> Mapping[str, Any]:
        """What no labeler is told: gold, the known answer, and predicted."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EventRow:
    """One thing that happened to one query: somebody answered, took an answer back or
    skipped, or it was dropped.
    """

    query_id: str
    candidate_ids: tuple[str, ...]
    """Of the segments, in the order that the answer goes by."""
    event: Event
    answer: Answer | None = None
    """Only for `answer` events."""
    confidence: int | None = None
    """How sure the labeler was of a pair, where the page asks for it: from 1, the first
    is surely better, over 5, they are alike, to 9, the second is. It trains nothing.
    """
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
    """Reward version whose members scored the candidates."""
    predicted: tuple[float, ...] | None = None
    """The members' mean P(each candidate preferred) when the query was asked; None
    before the first reward version.
    """
    env_steps: int = 0
    made_at: datetime | None = None
    shown_at: datetime | None = None
    """When the labeler got the query. As all three by the clock of the queue's server.
    """
    answered_at: datetime | None = None
    latency_ms: int | None = None
    """How long the labeler took, in its own words."""
    shown_order: tuple[int, ...] | None = None
    """Places of the candidates, from 0, as they stood on the screen from left to right.
    """
    replays: int = 0
    stream_id: str | None = None
    note: str | None = None

    def __post_init__(self) -> None:
        count = len(self.candidate_ids)
        if not 2 <= count <= MOST_CANDIDATES or len(set(self.candidate_ids)) < count:
            raise ValueError(
                f"query {self.query_id} shows 2 to {MOST_CANDIDATES} different candidates, got "
                f"{', '.join(self.candidate_ids)}"
            )
        answers = answers_to(count)
        for name, allowed in {**_CHOICES, "gold_answer": (*answers, None)}.items():
            value = getattr(self, name)
            if value not in allowed:
                raise ValueError(
                    f"query {self.query_id}: {name} is one of {_words(allowed)}; got {value!r}"
                )
        if self.event == "answer" and self.answer is not None and self.answer not in answers:
            raise ValueError(
                f"query {self.query_id}: an answer is one of {_words(answers)} where {count} "
                f"candidates are shown; got {self.answer}"
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
        self._check_facts(count)

    def _check_facts(self, count: int) -> None:
        if self.confidence is not None and (count > 2 or not 1 <= self.confidence <= 9):
            raise ValueError(
                f"query {self.query_id}: confidence in the answer to a pair is 1 to 9, got "
                f"{self.confidence} for {count} candidates"
            )
        if self.predicted is not None and len(self.predicted) != count:
            raise ValueError(
                f"query {self.query_id}: predicted has one probability per candidate, got "
                f"{len(self.predicted)} for {count}"
            )
        if self.shown_order is not None and sorted(self.shown_order) != list(range(count)):
            raise ValueError(
                f"query {self.query_id}: shown_order has each place of {count} candidates once, "
                f"got {self.shown_order}"
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
        ids = event.candidates
        known, note = _placed(event.meta, answer=event.answer, candidates=len(ids))
        body, gold = event.body, event.hidden.get("gold")
        return cls(
            query_id=event.query,
            candidate_ids=ids,
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
            predicted=_predicted(event.hidden),
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
    def first_id(self) -> str:
        """Of the first candidate."""
        return self.candidate_ids[0]

    @property
    def second_id(self) -> str:
        """Of the second candidate."""
        return self.candidate_ids[1]

    @property
    def p_first(self) -> float | None:
        """P(first preferred), None where the answer has no target."""
        if self.answer is None:
            return None
        found = target(self.answer, candidates=len(self.candidate_ids))
        return None if found is None else found[0]

    @property
    def predicted_first(self) -> float | None:
        """What had been predicted of it."""
        return None if self.predicted is None else self.predicted[0]

    @property
    def strength(self) -> float | None:
        """How sure the labeler was, 0 to 1."""
        return None if self.confidence is None else abs(self.confidence - EVEN) / (EVEN - 1)

    @property
    def shown_left(self) -> Side | None:
        """Which candidate of a pair was on the left of the screen."""
        if self.shown_order is None or len(self.shown_order) > 2:
            return None
        return "first" if self.shown_order[0] == 0 else "second"


def confidence_of(answer: Answer | None, strength: float) -> int | None:
    """The confidence of an answer to a pair that is held with a strength of 0 to 1; None
    for one that prefers neither.
    """
    if answer not in (Answer.FIRST, Answer.SECOND):
        return None
    away = max(1, round((EVEN - 1) * strength))
    return EVEN - away if answer is Answer.FIRST else EVEN + away


def order_of(left: str) -> tuple[int, ...]:
    """The order of a pair on the screen, of which this one was on the left."""
    return (0, 1) if left == "first" else (1, 0)


_CHOICES: dict[str, tuple[Any, ...]] = {
    "event": get_args(Event),
    "how": get_args(How),
    "purpose": get_args(Purpose),
    "labeler_kind": (*get_args(LabelerKind), None),
}


def _words(allowed: tuple[Any, ...]) -> str:
    return ", ".join(str(value) for value in allowed if value is not None)


EVENT_SCHEMA = pa.schema(
    [
        pa.field("query_id", pa.string(), nullable=False),
        pa.field("first_id", pa.string(), nullable=False),
        pa.field("second_id", pa.string(), nullable=False),
        pa.field("candidate_ids", pa.list_(pa.string())),
        pa.field("event", WORD, nullable=False),
        pa.field("answer", WORD),
        pa.field("p_first", pa.float32()),
        pa.field("strength", pa.float32()),
        pa.field("confidence", pa.int8()),
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
        pa.field("predicted", pa.list_(pa.float32())),
        pa.field("env_steps", pa.int64(), nullable=False),
        pa.field("made_at", TIME),
        pa.field("shown_at", TIME),
        pa.field("answered_at", TIME),
        pa.field("latency_ms", pa.int32()),
        pa.field("shown_left", WORD),
        pa.field("shown_order", pa.list_(pa.int8())),
        pa.field("replays", pa.int16(), nullable=False),
        pa.field("stream_id", pa.string()),
        pa.field("note", pa.string()),
    ]
)


_OF_PAIRS = ("first_id", "second_id", "p_first", "strength", "predicted_first", "shown_left")


def event_table(rows: Sequence[EventRow]) -> pa.Table:
    """These events as a table; ValueError, or what pyarrow raises, for one that cannot
    be stored.
    """
    table = pa.Table.from_pylist(
        [asdict(row) | {name: getattr(row, name) for name in _OF_PAIRS} for row in rows],
        EVENT_SCHEMA,
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
    for row in table.to_pylist():
        for name in ("answer", "gold_answer"):
            row[name] = None if row[name] is None else Answer(row[name])
        if row["candidate_ids"] is None:
            row |= _of_pair(row)
        for name in ("candidate_ids", "predicted", "shown_order"):
            row[name] = None if row[name] is None else tuple(row[name])
        yield EventRow(**{name: row[name] for name in names})


def _of_pair(row: Mapping[str, Any]) -> dict[str, Any]:
    """What a row says that was written when all queries were pairs."""
    strength, left = row["strength"], row["shown_left"]
    return {
        "candidate_ids": (row["first_id"], row["second_id"]),
        "confidence": None if strength is None else confidence_of(row["answer"], strength),
        "predicted": _predicted(row),
        "shown_order": None if left is None else order_of(left),
    }


def _predicted(facts: Mapping[str, Any]) -> tuple[float, ...] | None:
    if (found := facts.get("predicted")) is not None:
        return tuple(found)
    first = facts.get("predicted_first")  # as queries have it that were put as pairs
    return None if first is None else (first, 1 - first)


def _moment(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC)


def _count(value: object, *, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= most


_META: dict[str, tuple[str, Callable[[Any, int], bool]]] = {
    "kind": ("labeler_kind", lambda value, _: value in get_args(LabelerKind)),
    "confidence": ("confidence", lambda value, c: c == 2 and value != 0 and _count(value, most=9)),
    "shown_order": (
        "shown_order",
        lambda value, c: value in [list(order) for order in permutations(range(c))],
    ),
    "latency_ms": ("latency_ms", lambda value, _: _count(value, most=2**31 - 1)),
    "replays": ("replays", lambda value, _: _count(value, most=2**15 - 1)),
}


def _placed(
    meta: Mapping[str, Any], *, answer: Answer | None, candidates: int
) -> tuple[dict[str, Any], str | None]:
    """What of `meta` has a column, and the rest as JSON: a labeler's slip must not stop
    the stream.
    """
    known: dict[str, Any] = {}
    rest: dict[str, Any] = {}
    for name, value in _as_now(meta, answer=answer).items():
        if name in _META and _META[name][1](value, candidates):
            known[_META[name][0]] = tuple(value) if isinstance(value, list) else value
        else:
            rest[name] = value
    return known, json.dumps(rest, default=str) if rest else None


def _as_now(meta: Mapping[str, Any], *, answer: Answer | None) -> dict[str, Any]:
    """The same, where it was said when all queries were pairs."""
    meta = dict(meta)
    strength = meta.get("strength")
    if isinstance(strength, int | float) and 0 <= strength <= 1:
        del meta["strength"]
        if (confidence := confidence_of(answer, strength)) is not None:
            meta["confidence"] = confidence
    if meta.get("shown_left") in get_args(Side):
        meta["shown_order"] = list(order_of(meta.pop("shown_left")))
    return meta
