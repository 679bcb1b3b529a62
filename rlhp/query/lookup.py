"""What a page and its admin must know about queries beyond their own leases: reads, and the one correction.

Kept beside the queue: labelers in code need none of it.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, cast

from rlhp.errors import UNREADABLE
from rlhp.query.connection import Connection
from rlhp.query.recall import recollection
from rlhp.query.records import Event, event_from, text
from rlhp.query.runs import check_name, key
from rlhp.reward.events import EventRow, storable
from rlhp.types import Answer, parse_answer

CorrectStatus = Literal["ok", "same", "no", "gone"]
_log = logging.getLogger(__name__)


class Lookup:
    """One run's queries, looked at. Every method raises QueueUnavailable while Redis is away."""

    def __init__(self, url: str, *, run: str) -> None:
        check_name("run", run)
        self._run = run
        self._connection = Connection(url, prefix=key(run, ""), timeout_seconds=5)

    def close(self) -> None:
        """Close this process's connections."""
        self._connection.close()

    def was_leased(self, query: str, *, labeler: str) -> bool:
        """Whether this labeler ever held the query: then, and only then, its clips are theirs to see."""
        with self._connection.client("look at a query") as client:
            fields = client.hgetall(key(self._run, f"q:{query}"))
        return any(name.startswith(b"t:") and text(holder) == labeler for name, holder in fields.items())

    def body(self, query: str) -> dict[str, Any] | None:
        """The body of a query; None where it is unknown (by now)."""
        with self._connection.client("look at a query") as client:
            found = client.hget(key(self._run, f"q:{query}"), "body")
        return None if found is None else cast("dict[str, Any]", json.loads(found))

    def given(self, query: str, *, labeler: str, rev: int) -> Answer | None:
        """What a labeler's revision `rev` said; None where there is none (by now)."""
        with self._connection.client("look at an answer") as client:
            found = client.hget(key(self._run, f"q:{query}"), f"ans:{labeler}:{rev}")
        return None if found is None else parse_answer(text(found))

    def deadline_ms(self, query: str) -> int:
        """When the present lease of the query runs out, by the server's clock; 0 where nobody holds it."""
        with self._connection.client("look at a lease") as client:
            found = client.zscore(key(self._run, "leased"), query)
        return int(found or 0)

    def unread(self, *, most: int = 10_000) -> list[Event]:
        """The newest entries that the log still holds, oldest first, read by the reward trainer or not."""
        with self._connection.client("look at the answer log") as client:
            rows = client.xrevrange(key(self._run, "answers"), count=most)
        events = (self._parsed(text(stream_id), fields) for stream_id, fields in reversed(rows))
        return [event for event in events if event is not None]

    def correct(
        self,
        query: str,
        *,
        labeler: str,
        answer: Answer | str,
        meta: Mapping[str, Any],
        log: Callable[[], Iterable[EventRow]] | None = None,
    ) -> CorrectStatus:
        """Put another answer in the place of this labeler's: `no` where none of theirs stands.

        The log gets a retract and the next revision, so nothing is overwritten; `meta` says who did it. A query that
        Redis has forgotten is looked up in `log`, all events so far; without it, in what the queue still holds of them.
        """
        check_name("labeler", labeler)
        facts = (query, labeler, parse_answer(answer).value, json.dumps(dict(meta)))
        status = text(self._connection.script("correct", *facts))
        if status == "gone":
            rows = storable(self.unread())[0] if log is None else log()
            known = recollection([row for row in rows if row.query_id == query], again=True)
            if known:
                self._connection.script("recall", *map(json.dumps, known))
                status = text(self._connection.script("correct", *facts))
        return cast(CorrectStatus, status)

    def _parsed(self, stream_id: str, fields: Mapping[bytes, bytes]) -> Event | None:
        try:
            return event_from(stream_id, fields)
        except UNREADABLE as error:
            _log.warning("event %s is damaged and not shown: %r", stream_id, error)
            return None
