"""Upkeep of the queue: payloads while somebody needs them, what it tells of itself, and
its connections.
"""

from __future__ import annotations

import os
import pickle  # noqa: TID251  # how Ray moves a queue between processes
import time
from pathlib import Path

import pytest

from rlhp.queue.embedded import EmbeddedRedis
from rlhp.queue.queue import QueryQueue
from tests.queue.parts import Meddler, ask, events, opened, say, take

# -- payloads


def test_payloads_outlive_their_query_by_half_an_hour(queue: QueryQueue, meddler: Meddler) -> None:
    ask(queue)
    say(queue, take(queue))
    queue.ack([event.stream_id for event in events(queue)])
    queue.sweep()
    assert len(queue.segments(["q-a", "q-b"])) == 2
    meddler.an_hour_after_finishing()
    queue.sweep()
    assert queue.segments(["q-a", "q-b"]) == {}
    assert queue.undo(query="q", labeler="ann", page="p", rev=1).status == "no"
    assert 0 < meddler.redis.ttl(meddler.key("q:q")) <= 86_400
    assert ask(queue) == "same"


def test_payloads_stay_until_the_answer_is_on_disk(queue: QueryQueue, meddler: Meddler) -> None:
    ask(queue)
    say(queue, take(queue))
    meddler.an_hour_after_finishing()
    queue.sweep()
    assert len(queue.segments(["q-a", "q-b"])) == 2
    found = events(queue)
    queue.sweep()
    assert len(queue.segments(["q-a", "q-b"])) == 2
    queue.ack([event.stream_id for event in found])
    queue.sweep()
    assert queue.segments(["q-a", "q-b"]) == {}


def test_a_segment_lives_as_long_as_any_query_needs_it(queue: QueryQueue, meddler: Meddler) -> None:
    ask(queue, "q", candidates=("a", "b"), payloads={"a": b"A", "b": b"B"})
    ask(queue, "r", candidates=("b", "c"), payloads={"b": b"B", "c": b"C"})
    queue.drop(query="q")
    queue.ack([event.stream_id for event in events(queue)])
    meddler.an_hour_after_finishing()
    queue.sweep()
    assert queue.segments(["a", "b", "c"]) == {"b": b"B", "c": b"C"}


def test_a_refused_query_leaves_no_payload(queue: QueryQueue) -> None:
    ask(queue, "q", candidates=("a", "b"))
    assert ask(queue, "r", candidates=("b", "a"), payloads={"a": b"x", "b": b"y"}) == "dup"
    assert queue.segments(["a", "b"]) == {"a": b"first of q", "b": b"second of q"}


# -- handing a queue around


def test_a_queue_travels_to_another_process_as_settings_only(queue: QueryQueue) -> None:
    ask(queue)
    copy = pickle.loads(pickle.dumps(queue))
    assert (copy.run, copy.lease_seconds) == (queue.run, 60.0)
    assert take(copy).query == "q"
    assert copy.lookup.was_leased("q", labeler="ann"), "its parts are of the same server"


# Python 3.12 warns beside threads
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_gets_connections_of_its_own(queue: QueryQueue) -> None:
    ask(queue)
    assert not queue.lookup.was_leased("q", labeler="ann")
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            leased = take(queue).query == "q" and queue.lookup.was_leased("q", labeler="ann")
            status = 0 if leased and not queue.pauses.all() else 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert queue.stats().leased == 1


def test_stats_name_every_labeler_and_the_oldest_query(queue: QueryQueue, meddler: Meddler) -> None:
    assert queue.stats().oldest_age_seconds == 0
    ask(queue, "a")
    ask(queue, "b")
    say(queue, take(queue, "ann"), "ann")
    lease = take(queue, "bob")
    queue.skip(query=lease.query, labeler="bob", page="p", token=lease.token)
    meddler.redis.zincrby(meddler.key("open"), -5000, "b")
    stats = queue.stats()
    assert (stats.state, stats.pending, stats.open) == ("open", 1, 1)
    assert stats.oldest_age_seconds >= 5
    assert (stats.labelers["ann"].answers, stats.labelers["bob"].skipped) == (1, 1)
    assert 0 <= stats.labelers["ann"].idle_seconds < 60


# Leaving


def connected(meddler: Meddler) -> int:
    """Clients that the server knows, those of this test's own hands included, once
    their number is settled.

    A server may serve our question before it notices, in the same breath, that others
    have hung up.
    """
    counts = [len(meddler.redis.client_list())]
    while len(counts) < 2 or counts[-1] != counts[-2]:
        time.sleep(0.05)
        counts.append(len(meddler.redis.client_list()))
    return counts[-1]


def test_a_queue_that_disconnects_leaves_no_socket_and_may_come_back(tmp_path: Path) -> None:
    with EmbeddedRedis(tmp_path / "server") as server:  # its clients are those of this test alone
        queue = opened(server.url)
        meddler = Meddler(queue)
        queue.disconnect()
        assert connected(meddler) == 1
        ask(queue)
        assert say(queue, take(queue)) == "ok"
        (event,) = queue.events(consumer="trainer")
        token = queue.accounts.add("ann")
        assert queue.accounts.find(token) is not None
        assert (queue.pauses.all(), queue.clips.waiting(1)) == ({}, [])
        assert queue.lookup.was_leased(event.query, labeler="ann")
        assert queue.counters.all()["answered"] == 1
        assert connected(meddler) == 3, "one for the calls of all parts, one for the log"
        queue.disconnect()
        assert connected(meddler) == 1
        assert queue.state == "open", "it is not the run that ended"
        assert queue.events(consumer="trainer") == [event], "what was not acked is read again"
        with queue:
            assert connected(meddler) == 3
        assert connected(meddler) == 1
        queue.disconnect()
        meddler.close()
