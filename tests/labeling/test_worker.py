"""A worker on a real Redis: what it answers, what it skips, and what survives a kill on either side."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from rlhp.labeling.teacher import BPrefTeacher
from rlhp.labeling.worker import LabelerWorker, TeacherFailed
from rlhp.query.queue import Event, QueryQueue, QueueUnavailable
from rlhp.query.server import EmbeddedRedis
from rlhp.types import Answer, Query
from tests.labeling.parts import CONTEXT, Scripted, ask, opened, put, query, until


def log(queue: QueryQueue) -> list[Event]:
    return list(queue.events(consumer="test"))


def worker(queue: QueryQueue, teacher: object, *, name: str = "ann", latency_seconds: float = 0.0) -> LabelerWorker:
    return LabelerWorker(queue, teacher, name=name, latency_seconds=latency_seconds, poll_seconds=0.02)  # type: ignore[arg-type]


# -- answering


def test_every_query_is_answered_as_the_teacher_says(queue: QueryQueue) -> None:
    queries = ask(queue, 7)
    ann = worker(queue, BPrefTeacher())
    assert [ann.step() for _ in range(5)] == [2, 2, 2, 1, 0]
    events = log(queue)
    assert {event.query: event.answer for event in events} == {q.id: BPrefTeacher().answer(q) for q in queries}
    assert [event.query for event in events] == [q.id for q in queries]
    assert {(event.labeler, event.how, event.meta["kind"]) for event in events} == {("ann", "ok", "teacher")}
    assert all(event.meta["latency_ms"] >= 0 for event in events)
    assert str(ann.counts) == "7 answers (0 late), 0 skipped, 0 extra, 0 denied"


def test_the_teacher_sees_the_whole_query(queue: QueryQueue) -> None:
    seen: list[Query] = []
    asked = Query(
        id="whole",
        first=query([1, 2], [3, 4]).first,
        second=query([1, 2], [3, 4]).second,
        purpose="gold",
        strategy="disagreement",
        score=0.25,
        reward_version=3,
        env_steps=1000,
        context=CONTEXT,
    )
    put(queue, asked)
    worker(queue, Scripted(seen.append)).step()
    (got,) = seen
    for field in ("id", "purpose", "strategy", "score", "reward_version", "env_steps", "context"):
        assert getattr(got, field) == getattr(asked, field)
    assert (got.first.id, got.first.true_return) == (asked.first.id, 3.0)
    assert (got.second.id, got.second.true_return) == (asked.second.id, 7.0)


def test_none_skips_the_query_and_leaves_it_to_others(queue: QueryQueue) -> None:
    queue.lease(labeler="bob", page="bob-1")  # somebody else is around
    ask(queue, 1)
    ann = worker(queue, Scripted(lambda query: None))
    assert (ann.step(), ann.step()) == (0, 0)
    assert (ann.counts.skipped, ann.counts.answers) == (1, 0)
    assert worker(queue, BPrefTeacher(), name="bob").step() == 1
    assert [(event.event, event.labeler) for event in log(queue)] == [("skip", "ann"), ("answer", "bob")]


def test_a_teacher_that_thinks_longer_than_a_lease_keeps_it(redis_url: str) -> None:
    queue = opened(redis_url, lease_seconds=0.9)
    ask(queue, 1)
    offered: list[int] = []

    def ponder(query: Query) -> Answer:
        for _ in range(3):
            time.sleep(0.5)
            offered.append(len(queue.lease(labeler="bob", page="bob-1")))
        return Answer.TIE

    ann = worker(queue, Scripted(ponder))
    assert ann.step() == 1
    assert (offered, ann.counts.late) == ([0, 0, 0], 0)


def test_the_latency_passes_before_each_answer_and_is_told(queue: QueryQueue) -> None:
    ask(queue, 2)
    assert worker(queue, BPrefTeacher(), latency_seconds=0.05).step() == 2
    assert all(event.meta["latency_ms"] >= 50 for event in log(queue))


# -- late, extra, denied


def robbed(queue: QueryQueue, *, between: Callable[[], object]) -> LabelerWorker:
    """A worker whose lease is gone when its teacher comes back."""

    pages: list[str] = []

    def think(query: Query) -> Answer:
        queue.release(page=pages[0])
        between()
        return Answer.FIRST

    ann = worker(queue, Scripted(think))
    pages.append(ann.page)
    return ann


def test_an_answer_after_the_lease_is_late_and_counts(queue: QueryQueue) -> None:
    ask(queue, 1)
    ann = robbed(queue, between=lambda: None)
    assert ann.step() == 1
    assert (ann.counts.answers, ann.counts.late) == (1, 1)
    assert [event.how for event in log(queue)] == ["late"]


def test_an_answer_after_somebody_elses_is_extra(queue: QueryQueue) -> None:
    ask(queue, 1)
    ann = robbed(queue, between=worker(queue, BPrefTeacher(), name="bob").step)
    assert ann.step() == 0
    assert (ann.counts.answers, ann.counts.extra) == (0, 1)
    assert [(event.labeler, event.how) for event in log(queue)] == [("bob", "ok"), ("ann", "extra")]


def test_a_refused_answer_is_counted_and_explained_once(queue: QueryQueue, caplog: pytest.LogCaptureFixture) -> None:
    ask(queue, 3)
    pages: list[str] = []

    def jump_the_queue(query: Query) -> Answer:  # the same labeler, from elsewhere, with another answer
        (page,) = pages
        token = next(lease.token for lease in queue.lease(labeler="ann", page=page, n=2) if lease.query == query.id)
        queue.answer(query=query.id, labeler="ann", page=page, token=token, answer=Answer.INCOMPARABLE)
        return Answer.FIRST

    ann = worker(queue, Scripted(jump_the_queue))
    pages.append(ann.page)
    assert (ann.step(), ann.step()) == (0, 0)
    assert (ann.counts.denied, ann.counts.answers) == (3, 0)
    (record,) = caplog.records
    assert record.getMessage().startswith("query q0 of ann: this labeler's answer to the query already stands")


# -- what cannot be answered


def test_a_query_that_cannot_be_read_is_skipped_by_name(queue: QueryQueue, caplog: pytest.LogCaptureFixture) -> None:
    damaged, incomplete, good = (query([2], [1], name=name) for name in ("damaged", "incomplete", "good"))
    put(queue, damaged, damaged=b"RLHPSEG1 and then nothing that makes sense")
    put(queue, incomplete, without="incomplete-second")
    put(queue, good)
    ann = worker(queue, BPrefTeacher())
    assert [ann.step() for _ in range(3)] == [0, 1, 0]
    assert ann.counts.skipped == 2
    first, second = (record.getMessage() for record in caplog.records)
    assert first.startswith("query damaged skipped, it cannot be read: a damaged segment")
    assert second == (
        "query incomplete skipped, it cannot be read: "
        "segment incomplete-second of query 'incomplete' is missing or is another one"
    )


@pytest.mark.parametrize("wrong", ["first", 1, True, 0.5])
def test_an_answer_that_is_none_is_refused_by_the_teachers_name(
    queue: QueryQueue, caplog: pytest.LogCaptureFixture, wrong: object
) -> None:
    ask(queue, 1)
    ann = worker(queue, Scripted(lambda query: wrong))
    assert ann.step() == 0
    assert ann.counts.skipped == 1
    (record,) = caplog.records
    assert record.getMessage() == (
        f"query q0 skipped, teacher {Scripted.__module__}:Scripted failed: "
        f"TypeError: it answered {wrong!r}; return an rlhp.types.Answer, or None to skip the query"
    )


def test_five_failures_in_a_row_stop_the_worker_with_the_reason(queue: QueryQueue) -> None:
    ask(queue, 8)

    def fail(query: Query) -> Answer:
        raise OSError("no model\nat this address")

    teacher = Scripted(fail)
    message = r"Scripted failed 5 times in a row, the last time on query q4 \(OSError: no model at this address\); mend"
    with pytest.raises(TeacherFailed, match=message):
        worker(queue, teacher).run(threading.Event())
    assert teacher.asked == ["q0", "q1", "q2", "q3", "q4"]
    assert queue.stats().leased == 0
    assert queue.stats().pending == 3  # of eight: five were skipped by the only labeler there is


def test_a_success_in_between_starts_the_count_of_failures_again(queue: QueryQueue) -> None:
    ask(queue, 12)
    ann = worker(queue, Scripted(lambda query: Answer.TIE if query.id in ("q4", "q9") else "oops"))
    assert sum(ann.step() for _ in range(6)) == 2
    assert ann.counts.skipped == 10


# -- staying, leaving


def running(ann: LabelerWorker) -> tuple[threading.Thread, threading.Event]:
    stop = threading.Event()
    thread = threading.Thread(target=ann.run, args=(stop,), daemon=True)
    thread.start()
    return thread, stop


def test_a_worker_stays_until_the_run_is_closed(queue: QueryQueue) -> None:
    ann = worker(queue, BPrefTeacher())
    thread, _ = running(ann)
    ask(queue, 3)
    until(lambda: ann.counts.answers == 3)
    queue.close(state="draining")
    assert thread.is_alive()
    queue.close()
    thread.join(timeout=30)
    assert not thread.is_alive()


def test_a_worker_may_come_before_its_run(redis_url: str, caplog: pytest.LogCaptureFixture) -> None:
    queue = QueryQueue(redis_url, run="coming")
    ann = worker(queue, BPrefTeacher())
    thread, stop = running(ann)
    until(lambda: bool(caplog.records))
    queue.open(cap=10, config_sha256="0" * 64)
    ask(queue, 1)
    until(lambda: ann.counts.answers == 1)
    stop.set()
    thread.join(timeout=30)
    assert [record.getMessage() for record in caplog.records] == [
        "labeler ann: its run is not at this Redis (yet); waiting for it"
    ]


def test_a_stopped_worker_gives_its_leases_back(queue: QueryQueue) -> None:
    ask(queue, 2)
    ann = worker(queue, BPrefTeacher(), latency_seconds=1000)
    thread, stop = running(ann)
    until(lambda: queue.stats().leased == 2)
    stop.set()
    thread.join(timeout=30)
    stats = queue.stats()
    assert (stats.pending, stats.leased, ann.counts.answers) == (2, 0, 0)
    assert worker(queue, BPrefTeacher(), name="bob").step() == 2


# -- kills


HANGING = """
import sys, time
from rlhp.labeling.worker import LabelerWorker
from rlhp.query.queue import QueryQueue

class Hangs:
    def answer(self, query):
        print("thinking", flush=True)
        time.sleep(1000)

LabelerWorker(QueryQueue(sys.argv[1], run=sys.argv[2], lease_seconds=0.5), Hangs(), name="ann").step()
"""


def test_the_queries_of_a_killed_worker_are_answered_by_the_next_and_only_once(redis_url: str) -> None:
    queue = opened(redis_url, lease_seconds=0.5)
    queries = ask(queue, 4)
    with subprocess.Popen(
        [sys.executable, "-c", HANGING, redis_url, queue.run], stdout=subprocess.PIPE, text=True
    ) as dying:
        assert dying.stdout is not None
        assert dying.stdout.readline() == "thinking\n"
        assert queue.stats().leased == 2
        dying.kill()
    ann = worker(queue, BPrefTeacher())  # started again under the same name
    until(lambda: ann.step() >= 0 and ann.counts.answers == 4)
    assert sorted((event.event, event.query) for event in log(queue)) == [("answer", q.id) for q in queries]
    assert queue.stats().answered == 4
    assert queue.stats().expired >= 2


def test_an_answer_decided_while_redis_was_away_is_sent_later(tmp_path: Path) -> None:
    server = EmbeddedRedis(tmp_path / "server")
    queue = opened(server.start())
    ask(queue, 1)

    def lose_the_server(query: Query) -> Answer:
        server.stop()
        return Answer.SECOND

    teacher = Scripted(lose_the_server)
    ann = worker(queue, teacher)
    with pytest.raises(QueueUnavailable):
        ann.step()
    server.start()
    try:
        until(lambda: ann.step() >= 0 and ann.counts.answers == 1)
        assert teacher.asked == ["q0"]
        assert [event.answer for event in log(queue)] == [Answer.SECOND]
    finally:
        server.stop()


def test_a_worker_survives_the_kill_of_redis(tmp_path: Path) -> None:
    server = EmbeddedRedis(tmp_path / "server", durable="always")
    queue = opened(server.start())
    ann = worker(queue, BPrefTeacher())
    thread, stop = running(ann)
    ask(queue, 3)
    until(lambda: ann.counts.answers == 3)
    killed = server.pid
    assert killed is not None
    os.kill(killed, signal.SIGKILL)
    until(lambda: server.pid not in (killed, None) and state_of(queue) == "open")
    ask(queue, 3, prefix="later")
    until(lambda: ann.counts.answers == 6)
    stop.set()
    thread.join(timeout=30)
    assert queue.stats().answered == 6
    server.stop()


def test_an_absence_of_redis_is_told_once_at_loss_and_once_at_return(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server = EmbeddedRedis(tmp_path / "server")
    queue = opened(server.start())
    ann = worker(queue, BPrefTeacher())
    thread, stop = running(ann)
    server.stop()
    until(lambda: bool(caplog.records))
    server.start()
    until(lambda: state_of(queue) == "open")
    ask(queue, 1)
    until(lambda: ann.counts.answers == 1)
    stop.set()
    thread.join(timeout=30)
    server.stop()
    loss, comeback = (record.getMessage() for record in caplog.records if record.name == "rlhp.labeling.worker")
    assert loss.startswith("labeler ann lost the queue and keeps trying: ")
    assert comeback.startswith("labeler ann reached the queue again at try ")


def state_of(queue: QueryQueue) -> str:
    try:
        return queue.state
    except QueueUnavailable:
        return "away"
