"""What a page and its admin must know about queries beyond their own leases: reads, and
the one correction.

Kept beside the queue: labelers in code need none of it.

What the disk knows of queries, told to a queue that does not: it is older than the
disk, or forgets by its rules.

recollection(dataset.events()) -> QueryQueue.recall -> nobody is asked again what is
answered on disk

The queue as it was when nothing was open: for a serial run that goes on from a
checkpoint.
"""

from __future__ import annotations

import json
import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, cast

from rlhp.errors import UNREADABLE
from rlhp.preferences.answers import is_corrected, is_reused, live
from rlhp.preferences.events import EventRow, storable
from rlhp.queue.connection import Connection
from rlhp.queue.log import GROUP
from rlhp.queue.records import Event, beyond, event_from, text
from rlhp.queue.runs import check_name, key
from rlhp.types import Answer, comparison_id, digest, parse_answer


def recollection(rows: Iterable[EventRow], *, again: bool = False) -> list[dict[str, Any]]:
    """One entry for `lua/recall.lua` per query of this run that anything is known of.

    With `again` a query that the queue has forgotten is known to it again, as a
    finished one.
    """
    by_query: dict[str, list[EventRow]] = defaultdict(list)
    for row in rows:
        if not is_reused(row):  # another run's queries
            by_query[row.query_id].append(row)
    return [_query(mine, again=again) for mine in by_query.values()]


def _query(rows: Sequence[EventRow], *, again: bool) -> dict[str, Any]:
    one = rows[0]
    labelers = dict.fromkeys(row.labeler for row in rows if row.labeler is not None)
    # A check is addressed to the one labeler who answered it, and not a pair that is
    # asked once.
    only = next(iter(labelers), "") if one.purpose != "train" else ""
    pair = digest("pair", only, one.query_id) if only else comparison_id(one.candidate_ids)
    standing = {row.labeler: row for row in live(rows, purpose=None, extra=True)}
    body = {
        "purpose": one.purpose,
        "strategy": one.strategy,
        "score": one.score,
        "reward_version": one.selected_version,
        "env_steps": one.env_steps,
        "candidates": list(one.candidate_ids),
    }
    hidden = {"gold": one.gold_answer, "predicted": one.predicted}
    return {
        "id": one.query_id,
        "pair": pair,
        "only": only,
        "candidates": json.dumps(one.candidate_ids),
        "body": json.dumps(body),
        "hidden": json.dumps({name: value for name, value in hidden.items() if value is not None}),
        "made": str(round(one.made_at.timestamp() * 1000)) if one.made_at is not None else "0",
        "answered": any(row.how != "extra" for row in standing.values()),
        "dropped": any(row.event == "drop" for row in rows),
        "again": again,
        "by": [_labeler(name, rows, standing.get(name)) for name in labelers],
    }


def _labeler(name: str, rows: Sequence[EventRow], stands: EventRow | None) -> dict[str, Any]:
    mine = [row for row in rows if row.labeler == name]
    answers = {str(row.rev): row.answer for row in mine if row.event == "answer"}
    newest = max(
        (row for row in mine if row.event == "answer"), key=lambda row: row.rev, default=None
    )
    rev = 0 if newest is None else newest.rev
    return {
        "labeler": name,
        "rev": rev,
        "answers": answers,
        "live": stands is not None and stands.rev == rev,
        "how": "ok" if newest is None else newest.how,
        "corrected": stands is not None and is_corrected(stands),
        "skipped": any(row.event == "skip" for row in mine),
    }


CorrectStatus = Literal["ok", "same", "no", "gone"]
_log = logging.getLogger(__name__)


class Lookup:
    """One run's queries, looked at. Every method raises QueueUnavailable while Redis is
    away.
    """

    def __init__(self, connection: Connection, *, run: str) -> None:
        self._connection, self._run = connection, run

    def was_leased(self, query: str, *, labeler: str) -> bool:
        """Whether this labeler ever held the query: then, and only then, its clips are
        theirs to see.
        """
        with self._connection.client("look at a query") as client:
            fields = client.hgetall(key(self._run, f"q:{query}"))
        return any(
            name.startswith(b"t:") and text(holder) == labeler for name, holder in fields.items()
        )

    def candidates(self, query: str) -> int:
        """How many a query has; 0 where it is unknown (by now)."""
        with self._connection.client("look at a query") as client:
            names = ("candidates", "first", "second")
            found, *pair = client.hmget(key(self._run, f"q:{query}"), names)
        return len(json.loads(found)) if found is not None else 0 if None in pair else 2

    def given(self, query: str, *, labeler: str, rev: int) -> Answer | None:
        """What a labeler's revision `rev` said; None where there is none (by now)."""
        with self._connection.client("look at an answer") as client:
            found = client.hget(key(self._run, f"q:{query}"), f"ans:{labeler}:{rev}")
        return None if found is None else parse_answer(text(found))

    def deadline_ms(self, query: str) -> int:
        """When the present lease of the query runs out, by the server's clock; 0 where
        nobody holds it.
        """
        with self._connection.client("look at a lease") as client:
            found = client.zscore(key(self._run, "leased"), query)
        return int(found or 0)

    def unread(self, *, most: int = 10_000) -> list[Event]:
        """The newest entries that the log still holds, oldest first, read by the reward
        trainer or not.
        """
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
        """Put another answer in the place of this labeler's: `no` where none of theirs
        stands.

        The log gets a retract and the next revision, so nothing is overwritten; `meta`
        says who did it. A query that Redis has forgotten is looked up in `log`, all
        events so far; without it, in what the queue still holds of them.
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
        if status == "beyond":
            raise beyond(query, answer)
        return cast(CorrectStatus, status)

    def _parsed(self, stream_id: str, fields: Mapping[bytes, bytes]) -> Event | None:
        try:
            return event_from(stream_id, fields)
        except UNREADABLE as error:
            _log.warning("event %s is damaged and not shown: %r", stream_id, error)
            return None


class Counters:
    """The counters of one run's queue, and the way back to them.

    Whatever a query was is in the dataset once it is settled; a queue without open
    queries is its counters alone. Every method raises QueueUnavailable while Redis is
    away and may then be called again. A rewind is for the `owner`.
    """

    def __init__(self, connection: Connection, *, run: str) -> None:
        self._connection = connection
        self._key = key(run, "")

    def all(self) -> dict[str, int]:
        """All counts as the scripts keep them."""
        with self._connection.client("read the counters") as client:
            return {
                text(name): int(value)
                for name, value in client.hgetall(f"{self._key}counts").items()
            }

    def rewind(self, counters: Mapping[str, int]) -> None:
        """Forget every query, and count from here. What the log still holds must be on
        disk.

        What the disk knows of the queries before (`QueryQueue.recall`) is told to it
        after that, then `count` again.
        """
        self._connection.script("check")
        with self._connection.client("rewind the queue") as client:
            kept = {f"{self._key}meta".encode(), f"{self._key}paused".encode()}
            names = [
                name
                for name in client.scan_iter(match=f"{self._key}*", count=1000)
                if name not in kept
            ]
            with client.pipeline(transaction=True) as pipe:
                for at in range(0, len(names), 1000):
                    pipe.delete(*names[at : at + 1000])
                self._set(pipe, counters)
                pipe.xgroup_create(f"{self._key}answers", GROUP, id="0", mkstream=True)
                pipe.execute()

    def count(self, counters: Mapping[str, int]) -> None:
        """Count from here."""
        self._connection.script("check")
        with (
            self._connection.client("set the counters") as client,
            client.pipeline(transaction=True) as pipe,
        ):
            self._set(pipe, counters)
            pipe.execute()

    def _set(self, pipe: Any, counters: Mapping[str, int]) -> None:
        pipe.delete(f"{self._key}counts")
        if counters:
            pipe.hset(f"{self._key}counts", mapping=dict(counters))
