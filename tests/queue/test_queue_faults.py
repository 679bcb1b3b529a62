"""Labelers vanish, replies get lost, Redis is killed or full: nothing is lost, and
nothing counted twice.
"""

from __future__ import annotations

import os
import random
import signal
import threading
from collections import Counter
from pathlib import Path

import pytest
import redis

from rlhp.queue.embedded import EmbeddedRedis
from rlhp.queue.queue import QueryQueue, QueueUnavailable
from tests.queue.parts import ask, events, opened, say, take, until

QUERIES = 300


def restless_labeler(url: str, run: str, name: str, stop: threading.Event) -> None:
    """Answers, repeats calls at random, and now and then forgets everything with two
    leases in hand.
    """
    dice = random.Random(name)
    queue = QueryQueue(url, run=run, lease_seconds=0.2)
    page = 0
    while not stop.is_set():
        leases = queue.lease(labeler=name, page=f"{name}-{page}", n=2)
        if dice.random() < 0.2:
            leases = queue.lease(labeler=name, page=f"{name}-{page}", n=2)
        if not leases:
            stop.wait(0.02)
        elif dice.random() < 0.1:
            page += 1  # the tab is gone, and so is what it held, until its leases run out
        else:
            for lease in leases:
                for _ in range(1 + (dice.random() < 0.3)):
                    queue.answer(
                        query=lease.query, labeler=name, page="p", token=lease.token, answer="first"
                    )


def test_every_query_is_counted_once_whatever_its_labelers_do(redis_url: str) -> None:
    queue = opened(redis_url, cap=QUERIES, lease_seconds=0.2)
    for n in range(QUERIES):
        assert ask(queue, f"q{n}") == "ok"
    stop = threading.Event()
    threads = [
        threading.Thread(target=restless_labeler, args=(redis_url, queue.run, f"labeler{n}", stop))
        for n in range(20)
    ]
    for thread in threads:
        thread.start()
    until(lambda: queue.stats().done == QUERIES, seconds=60)
    stop.set()
    for thread in threads:
        thread.join()
    log = events(queue)
    counted = Counter(event.query for event in log if event.how in ("ok", "late"))
    assert counted == {f"q{n}": 1 for n in range(QUERIES)}
    assert max(Counter((event.query, event.labeler) for event in log).values()) == 1
    stats = queue.stats()
    assert (stats.answered, stats.asked, stats.open) == (QUERIES, QUERIES, 0)
    assert stats.expired > 0  # somebody did vanish


def test_a_server_at_its_memory_limit_takes_no_query_but_answers(tmp_path: Path) -> None:
    with (
        EmbeddedRedis(tmp_path / "redis", maxmemory="64mb") as server,
        redis.Redis.from_url(server.url) as client,
    ):
        queue = opened(server.url)
        ask(queue, "a")
        ask(queue, "b")
        lease = take(queue)
        client.config_set("maxmemory", "1")
        assert ask(queue, "c", payloads={"c-a": b"any"}) == "no memory"
        assert (queue.stats().asked, queue.segments(["c-a"])) == (2, {})
        assert say(queue, lease) == "ok"
        other = take(queue)
        assert queue.skip(query=other.query, labeler="ann", page="p", token=other.token) == "ok"
        assert queue.undo(query="a", labeler="ann", page="p", rev=1).status == "ok"
        queue.ack([event.stream_id for event in events(queue)])
        with pytest.raises(
            QueueUnavailable, match="it is at its memory limit; raise its maxmemory"
        ):
            queue.open(cap=9, config_sha256="c0ffee")
        client.config_set("maxmemory", "64mb")
        assert ask(queue, "c") == "ok"


def test_a_killed_redis_loses_neither_queries_nor_answers_nor_the_place_of_the_reader(
    tmp_path: Path,
) -> None:
    with EmbeddedRedis(tmp_path / "redis") as server:
        queue = opened(server.url)
        for name in "abcd":
            ask(queue, name)
        say(queue, take(queue))
        say(queue, take(queue))
        read = queue.events(consumer="trainer", count=1)
        held = take(queue)
        os.kill(server.pid, signal.SIGKILL)
        until(lambda: reachable(queue))
        assert say(queue, held) == "ok"  # scripts are loaded again, the lease is still there
        assert say(queue, take(queue)) == "ok"
        assert queue.ack([event.stream_id for event in read]) == 1
        rest = [event.query for event in events(queue)] + [event.query for event in events(queue)]
        assert rest == ["b", "c", "d"]
        assert (queue.stats().done, queue.stats().backlog) == (4, 3)


def test_a_read_that_fails_forgets_nothing(tmp_path: Path) -> None:
    server = EmbeddedRedis(tmp_path / "redis", durable="always")
    queue = opened(server.start())
    for name in "ab":
        ask(queue, name)
        say(queue, take(queue))
    assert [event.query for event in queue.events(consumer="trainer", count=1)] == ["a"]
    # A reply that got lost on its way: the server has handed this event to us, we never
    # saw it.
    with redis.Redis.from_url(queue.url) as client:
        client.xreadgroup("reward", "trainer", {f"rlhp:{{{queue.run}}}:answers": ">"}, count=1)
    server.stop()
    with pytest.raises(
        QueueUnavailable, match=r"read the answer log of run test-.*: no service from Redis at"
    ):
        queue.events(consumer="trainer")
    server.start()
    try:
        assert [event.query for event in queue.events(consumer="trainer")] == ["b"]
    finally:
        server.stop()


def test_putting_again_after_a_lost_reply_asks_once(tmp_path: Path) -> None:
    server = EmbeddedRedis(tmp_path / "redis", durable="always")
    queue = opened(server.start(), budget=1)
    ask(queue, "a")
    server.stop()
    with pytest.raises(QueueUnavailable):
        ask(queue, "b")
    server.start()
    try:
        assert [ask(queue, "a"), ask(queue, "b")] == ["same", "spent"]
        assert queue.stats().asked == 1
    finally:
        server.stop()


def reachable(queue: QueryQueue) -> bool:
    try:
        return queue.state == "open"
    except QueueUnavailable:
        return False
