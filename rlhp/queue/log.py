"""The reading end of the answer log: at least once, in order, nothing forgotten.

A reader takes, in this turn: what it was given earlier and never acked (it crashed
between reading and writing to disk), what a reader of another name left behind, and
then what is new. It reads by script, so that one whose run was taken over is handed
nothing. An entry that is no event is set aside (`lua/set_aside.lua`), and what came
after it is handed out.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping, Sequence
from typing import Any

from rlhp.errors import UNREADABLE, one_line
from rlhp.queue import runs
from rlhp.queue.connection import Connection, NoSuchGroup, QueueUnavailable
from rlhp.queue.records import Event, event_from

GROUP = "reward"
READ_SECONDS = 10.0
"""A server that takes longer to hand out some hundred entries is away."""
ASIDE_ENTRIES, ASIDE_BYTES = 1000, 16 << 20
"""Most that is kept of entries which made no row."""
LONGEST_REASON = 300
POLL_SECONDS = 0.05
BLOCK_MS = 30_000
"""Longest wait for an event."""
DEAD_AFTER_SECONDS = 60.0
"""A reader that left an event un-acked for this long is taken for dead, and its events
for ours.
"""

_log = logging.getLogger(__name__)


class Readers:
    """The readers of one queue object, by consumer; each process has its own, over a
    fork too.
    """

    def __init__(self, url: str, *, run: str, connection: Connection) -> None:
        """`connection` acks, sets aside, and knows the owner that a reader reads for."""
        self._url, self._run, self._connection = url, run, connection
        self._readers: dict[tuple[int, str], Reader] = {}

    def read(self, consumer: str, *, count: int, block_ms: int | None) -> list[Event]:
        """As `QueryQueue.events`."""
        reader = self._reader(consumer)
        deadline = time.monotonic() + min(block_ms or 0, BLOCK_MS) / 1000
        try:
            while True:
                found = reader.read(count=count)
                left = deadline - time.monotonic()
                if found or left <= 0:
                    return found
                time.sleep(min(POLL_SECONDS, left))
        except QueueUnavailable:
            reader.lost_reply()
            raise
        except NoSuchGroup:
            raise runs.not_open(self._run, url=self._url) from None

    def forget(self, stream_ids: Sequence[str]) -> None:
        """These are acked."""
        for reader in self._readers.values():
            reader.forget(stream_ids)

    def close(self) -> None:
        """Close the sockets of this process; who reads again begins as a new reader of
        that name.
        """
        mine = [key for key in self._readers if key[0] == os.getpid()]
        for key in mine:
            self._readers.pop(key).close()

    def _reader(self, consumer: str) -> Reader:
        mine = os.getpid(), consumer
        if mine not in self._readers:
            prefix = runs.key(self._run, "")
            # Without retries: what is handed out twice because a reply got lost must be
            # looked for again.
            reading = Connection(self._url, prefix=prefix, timeout_seconds=READ_SECONDS, retries=0)
            self._readers[mine] = Reader(
                reading, self._connection, run=self._run, consumer=consumer
            )
        self._readers[mine].show(self._connection.owner)
        return self._readers[mine]


class Reader:
    """One consumer of the group, over a connection of its own."""

    def __init__(self, reading: Connection, acking: Connection, *, run: str, consumer: str) -> None:
        self._reading = reading
        self._acking = acking
        self._doing = f"read the answer log of run {run}"
        self._stream = runs.key(run, "answers")
        self._consumer = consumer
        self._own: str | None = "0"  # cursor over our own un-acked events; None once through
        self._claim = "0-0"
        self._claimed_at: float | None = None
        self._in_flight: set[str] = set()
        self._warned: set[str] = set()

    def show(self, owner: str) -> None:
        """Read in the name of this owner of the run."""
        self._reading.owner = owner

    def read(self, *, count: int) -> list[Event]:
        """The next events, oldest source first; empty when there is none."""
        while self._own is not None:
            rows = self._group_read(self._own, count)
            self._own = _id(rows[-1][0]) if rows else None
            if events := self._events(rows):
                return events
        if self._claimed_at is None or time.monotonic() - self._claimed_at > DEAD_AFTER_SECONDS / 2:
            if events := self._claim_dead(count):
                return events
            self._claimed_at = time.monotonic()
        while rows := self._group_read(">", count):  # again where all of them were odd
            if events := self._events(rows):
                return events
        return []

    def lost_reply(self) -> None:
        """After a failed read: what the server handed over meanwhile is ours already,
        so look there again.
        """
        self._own = "0"

    def forget(self, stream_ids: Sequence[str]) -> None:
        """These are acked."""
        self._in_flight.difference_update(stream_ids)

    def close(self) -> None:
        """Close the socket."""
        self._reading.close()

    def _group_read(self, cursor: str, count: int) -> list[Any]:
        return list(self._reading.script("read", self._consumer, cursor, count, doing=self._doing))

    def _claim_dead(self, count: int) -> list[Event]:
        while True:
            idle_ms = int(DEAD_AFTER_SECONDS * 1000)
            reply = self._reading.script(
                "inherit", self._consumer, idle_ms, self._claim, count, doing=self._doing
            )
            self._claim = _id(reply[0])
            events = self._events(reply[1])
            # Redis 7 names what was trimmed
            deleted = [_id(each) for each in reply[2]] if len(reply) > 2 else []
            if deleted:
                self._trimmed(deleted)
            if events or self._claim == "0-0":
                return events

    def _events(self, rows: Sequence[Any]) -> list[Event]:
        """Parsed rows, without those that this reader already handed out.

        An entry trimmed before it was acked comes back without fields from XREADGROUP
        and as None from XAUTOCLAIM of Redis 6.2.
        """
        events, odd = [], {}
        for row in rows:
            stream_id, pairs = row or (None, None)
            if stream_id is None:
                self._warn("trimmed", "an event was trimmed before it was acked")
            elif not pairs:
                self._trimmed([_id(stream_id)])
            elif _id(stream_id) not in self._in_flight:
                try:
                    event = event_from(
                        _id(stream_id), dict(zip(pairs[::2], pairs[1::2], strict=True))
                    )
                except UNREADABLE as error:
                    odd[_id(stream_id)] = one_line(error)
                else:
                    self._in_flight.add(event.stream_id)
                    events.append(event)
        set_aside(self._acking, odd)
        return events

    def _trimmed(self, stream_ids: list[str]) -> None:
        self._warn("trimmed", f"events {', '.join(stream_ids)} were trimmed before they were acked")
        self._acking.ack(stream_ids)

    def _warn(self, kind: str, text: str) -> None:
        if kind not in self._warned:
            self._warned.add(kind)
            _log.warning("%s: %s (said once)", self._stream, text)


def set_aside(connection: Connection, reasons: Mapping[str, str]) -> int:
    """Take entries out of the log that make no row: kept whole under `aside`, acked,
    counted, and warned of one by one.

    How many these were. The newest thousand are kept, 16 MB of them at most.
    """
    for stream_id, why in reasons.items():
        _log.warning(
            "entry %s of the answer log makes no row and is set aside: %s",
            stream_id,
            why[:LONGEST_REASON],
        )
    pairs = [
        item for stream_id, why in reasons.items() for item in (stream_id, why[:LONGEST_REASON])
    ]
    limits = ASIDE_ENTRIES, ASIDE_BYTES
    pieces = (pairs[at : at + 200] for at in range(0, len(pairs), 200))
    return sum(int(connection.script("set_aside", *limits, *piece)) for piece in pieces)


def _id(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
