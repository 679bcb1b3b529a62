"""A worker's life on a real Redis: when it comes, stays and leaves, and what survives a
kill on either side.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from rlhp.labeling.teachers import BPrefTeacher
from rlhp.labeling.worker import LabelerWorker
from rlhp.queue.embedded import EmbeddedRedis
from rlhp.queue.queue import QueryQueue, QueueUnavailable
from rlhp.types import Answer, Query
from tests.labeling.parts import Scripted, ask, log, opened, until, worker

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
from rlhp.queue.queue import QueryQueue

class Hangs:
    def answer(self, query):
        print("thinking", flush=True)
        time.sleep(1000)

queue = QueryQueue(sys.argv[1], run=sys.argv[2], lease_seconds=0.5)
LabelerWorker(queue, Hangs(), name="ann").step()
"""


def test_the_queries_of_a_killed_worker_are_answered_by_the_next_and_only_once(
    redis_url: str,
) -> None:
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
    assert sorted((event.event, event.query) for event in log(queue)) == [
        ("answer", q.id) for q in queries
    ]
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
    loss, comeback = (
        record.getMessage() for record in caplog.records if record.name == "rlhp.labeling.worker"
    )
    assert loss.startswith("labeler ann lost the queue and keeps trying: ")
    assert comeback.startswith("labeler ann reached the queue again at try ")


def state_of(queue: QueryQueue) -> str:
    try:
        return queue.state
    except QueueUnavailable:
        return "away"
