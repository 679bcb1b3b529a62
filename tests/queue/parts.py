"""Runs, queries and clocks for the tests of this room."""

from __future__ import annotations

import dataclasses
import secrets
import time
from collections.abc import Callable
from typing import Any

import redis

from rlhp.queue.queue import Event, Lease, QueryQueue
from rlhp.queue.records import QueueStats
from rlhp.types import CHOICES


def opened(
    url: str,
    *,
    cap: int = 1000,
    lease_seconds: float = 60.0,
    budget: int | None = None,
    max_skips: int = 3,
) -> QueryQueue:
    """The queue of a new, open run."""
    queue = QueryQueue(url, run=f"test-{secrets.token_hex(6)}", lease_seconds=lease_seconds)
    queue.open(cap=cap, config_sha256="c0ffee", budget=budget, max_skips=max_skips)
    return queue


def ask(queue: QueryQueue, query: str = "q", **more: Any) -> str:
    """Put a query over two segments of its own, unless told otherwise; the status."""
    ids = more.pop("candidates", (f"{query}-a", f"{query}-b"))
    texts = (f"{place} of {query}".encode() for place in CHOICES)
    payloads = more.pop("payloads", dict(zip(ids, texts, strict=False)))
    body = more.pop("body", {"purpose": "train"})
    return queue.put(query=query, candidates=ids, body=body, payloads=payloads, **more)


def take(queue: QueryQueue, labeler: str = "ann", *, page: str | None = None) -> Lease:
    """The one query leased to this labeler."""
    (lease,) = queue.lease(labeler=labeler, page=page or f"{labeler}-page")
    return lease


def say(
    queue: QueryQueue, lease: Lease, labeler: str = "ann", *, answer: str = "first", rev: int = 1
) -> str:
    """Answer under this lease; the status."""
    return queue.answer(
        query=lease.query,
        labeler=labeler,
        page=f"{labeler}-page",
        token=lease.token,
        answer=answer,
        rev=rev,
    )


def events(queue: QueryQueue) -> list[Event]:
    """Everything in the log that this queue object has not been given yet."""
    found: list[Event] = []
    while batch := queue.events(consumer="trainer"):
        found += batch
    return found


class Meddler:
    """Changes clocks behind the queue's back, so that no test waits for one."""

    def __init__(self, queue: QueryQueue) -> None:
        self.redis: Any = redis.Redis.from_url(queue.url, decode_responses=True)
        self._prefix = f"rlhp:{{{queue.run}}}:"

    def key(self, name: str) -> str:
        """Full name of a key."""
        return self._prefix + name

    def expire_leases(self) -> None:
        """All deadlines have passed."""
        for query in self.redis.zrange(self.key("leased"), 0, -1):
            self.redis.zadd(self.key("leased"), {query: 1})

    def an_hour_after_finishing(self) -> None:
        """All finished queries finished an hour earlier."""
        for query, score in self.redis.zrange(self.key("finished"), 0, -1, withscores=True):
            self.redis.zadd(self.key("finished"), {query: score - 3_600_000})

    def close(self) -> None:
        """Give the connection back."""
        self.redis.close()


def until(true: Callable[[], bool], *, seconds: float = 30.0) -> None:
    """Wait for something another process does."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.01)


def stats(**counts: Any) -> QueueStats:
    """An open queue in which everything that is not named is 0."""
    zeros = {
        field.name: 0
        for field in dataclasses.fields(QueueStats)
        if field.name not in ("state", "labelers")
    }
    return QueueStats(**{**zeros, "state": "open", **counts})
