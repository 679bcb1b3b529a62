"""The reading end of the answer log: at least once, in order, nothing forgotten.

A reader takes, in this turn: what it was given earlier and never acked (it crashed between reading and
writing to disk), what a reader of another name left behind, and then what is new.
"""

from __future__ import annotations

import logging
import os
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rlhp.query import runs
from rlhp.query.connection import NoSuchGroup, QueueUnavailable, make_client, reaching
from rlhp.query.records import Event, event_from

GROUP = "reward"
BLOCK_MS = 30_000
"""Longest wait for an event."""
DEAD_AFTER_SECONDS = 60.0
"""A reader that left an event un-acked for this long is taken for dead, and its events for ours."""

_log = logging.getLogger(__name__)


class Readers:
    """The readers of one queue object, by consumer; each process has its own, over a fork too."""

    def __init__(self, url: str, *, run: str, ack: Callable[[Sequence[str]], int]) -> None:
        self._url, self._run, self._ack = url, run, ack
        self._readers: dict[tuple[int, str], Reader] = {}

    def read(self, consumer: str, *, count: int, block_ms: int | None) -> list[Event]:
        """As `QueryQueue.events`."""
        reader = self._reader(consumer)
        try:
            with reaching(self._url, f"read the answer log of run {self._run}"):
                return reader.read(count=count, block_ms=min(block_ms, BLOCK_MS) if block_ms else None)
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
        """Close the sockets of this process; who reads again begins as a new reader of that name."""
        mine = [key for key in self._readers if key[0] == os.getpid()]
        for key in mine:
            self._readers.pop(key).close()

    def _reader(self, consumer: str) -> Reader:
        mine = os.getpid(), consumer
        if mine not in self._readers:
            client = make_client(self._url, timeout_seconds=BLOCK_MS / 1000 + 10)  # may wait as long as it blocks
            stream = runs.key(self._run, "answers")
            self._readers[mine] = Reader(client, stream=stream, consumer=consumer, ack=self._ack)
        return self._readers[mine]


class Reader:
    """One consumer of the group, over a client of redis-py that is its own from now on."""

    def __init__(self, client: Any, *, stream: str, consumer: str, ack: Callable[[Sequence[str]], int]) -> None:
        self._client = client
        self._ack = ack
        self._stream = stream
        self._consumer = consumer
        self._own: str | None = "0"  # cursor over our own un-acked events; None once through
        self._claim = "0-0"
        self._claimed_at: float | None = None
        self._in_flight: set[str] = set()
        self._warned: set[str] = set()
        weakref.finalize(self, client.close)

    def read(self, *, count: int, block_ms: int | None) -> list[Event]:
        """The next events, oldest source first; empty when there is none (after `block_ms`, if given)."""
        while self._own is not None:
            rows = self._group_read(self._own, count, None)
            self._own = _id(rows[-1][0]) if rows else None
            if events := self._events(rows):
                return events
        if self._claimed_at is None or time.monotonic() - self._claimed_at > DEAD_AFTER_SECONDS / 2:
            if events := self._claim_dead(count):
                return events
            self._claimed_at = time.monotonic()
        return self._events(self._group_read(">", count, block_ms))

    def lost_reply(self) -> None:
        """After a failed read: what the server handed over meanwhile is ours already, so look there again."""
        self._own = "0"

    def forget(self, stream_ids: Sequence[str]) -> None:
        """These are acked."""
        self._in_flight.difference_update(stream_ids)

    def close(self) -> None:
        """Close the socket."""
        self._client.close()

    def _group_read(self, cursor: str, count: int, block_ms: int | None) -> list[Any]:
        reply = self._client.xreadgroup(GROUP, self._consumer, {self._stream: cursor}, count=count, block=block_ms)
        return list(reply[0][1]) if reply else []

    def _claim_dead(self, count: int) -> list[Event]:
        while True:
            reply = self._client.xautoclaim(
                self._stream, GROUP, self._consumer, int(DEAD_AFTER_SECONDS * 1000), self._claim, count=count
            )
            self._claim = _id(reply[0])
            events = self._events(reply[1])
            deleted = [_id(each) for each in reply[2]] if len(reply) > 2 else []  # Redis 7 names what was trimmed
            if deleted:
                self._trimmed(deleted)
            if events or self._claim == "0-0":
                return events

    def _events(self, rows: Sequence[Any]) -> list[Event]:
        """Parsed rows, without those that this reader already handed out.

        An entry trimmed before it was acked comes back as an empty dict from XREADGROUP and as (None, None)
        from XAUTOCLAIM of Redis 6.2.
        """
        events = []
        for stream_id, fields in rows:
            if stream_id is None:
                self._warn("trimmed", "an event was trimmed before it was acked")
            elif not fields:
                self._trimmed([_id(stream_id)])
            elif _id(stream_id) not in self._in_flight and (event := self._parse(_id(stream_id), fields)):
                self._in_flight.add(event.stream_id)
                events.append(event)
        return events

    def _parse(self, stream_id: str, fields: Mapping[bytes, bytes]) -> Event | None:
        try:
            return event_from(stream_id, fields)
        except (ValueError, KeyError) as error:
            self._warn("malformed", f"event {stream_id} is damaged and stays in the log unread: {error!r}")
            return None

    def _trimmed(self, stream_ids: list[str]) -> None:
        self._warn("trimmed", f"events {', '.join(stream_ids)} were trimmed before they were acked")
        self._ack(stream_ids)

    def _warn(self, kind: str, text: str) -> None:
        if kind not in self._warned:
            self._warned.add(kind)
            _log.warning("%s: %s (said once)", self._stream, text)


def _id(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
