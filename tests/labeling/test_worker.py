"""A worker on a real Redis: what it answers, what it skips, and what becomes of an
answer that comes too late.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from rlhp.labeling.teachers import BPrefTeacher
from rlhp.labeling.worker import LabelerWorker, TeacherFailed
from rlhp.queue.queue import QueryQueue
from rlhp.types import Answer, Query
from tests.labeling.parts import CONTEXT, Scripted, ask, log, opened, put, query, worker

# -- answering


def test_every_query_is_answered_as_the_teacher_says(queue: QueryQueue) -> None:
    queries = ask(queue, 7)
    ann = worker(queue, BPrefTeacher())
    assert [ann.step() for _ in range(5)] == [2, 2, 2, 1, 0]
    events = log(queue)
    assert {event.query: event.answer for event in events} == {
        q.id: BPrefTeacher().answer(q) for q in queries
    }
    assert [event.query for event in events] == [q.id for q in queries]
    assert {(event.labeler, event.how, event.meta["kind"]) for event in events} == {
        ("ann", "ok", "teacher")
    }
    assert all(event.meta["latency_ms"] >= 0 for event in events)
    assert str(ann.counts) == "7 answers (0 late), 0 skipped, 0 extra, 0 denied"


def test_the_teacher_sees_the_whole_query(queue: QueryQueue) -> None:
    seen: list[Query] = []
    asked = Query(
        id="whole",
        candidates=(query([1, 2], [3, 4]).first, query([1, 2], [3, 4]).second),
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
    assert [(event.event, event.labeler) for event in log(queue)] == [
        ("skip", "ann"),
        ("answer", "bob"),
    ]


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


def test_a_refused_answer_is_counted_and_explained_once(
    queue: QueryQueue, caplog: pytest.LogCaptureFixture
) -> None:
    ask(queue, 3)
    pages: list[str] = []

    # the same labeler, from elsewhere, with another answer
    def jump_the_queue(query: Query) -> Answer:
        (page,) = pages
        token = next(
            lease.token
            for lease in queue.lease(labeler="ann", page=page, n=2)
            if lease.query == query.id
        )
        queue.answer(
            query=query.id, labeler="ann", page=page, token=token, answer=Answer.INCOMPARABLE
        )
        return Answer.FIRST

    ann = worker(queue, Scripted(jump_the_queue))
    pages.append(ann.page)
    assert (ann.step(), ann.step()) == (0, 0)
    assert (ann.counts.denied, ann.counts.answers) == (3, 0)
    (record,) = caplog.records
    assert record.getMessage().startswith(
        "query q0 of ann: this labeler's answer to the query already stands"
    )


# -- what cannot be answered


def test_a_query_that_cannot_be_read_is_skipped_by_name(
    queue: QueryQueue, caplog: pytest.LogCaptureFixture
) -> None:
    damaged, incomplete, good = (
        query([2], [1], name=name) for name in ("damaged", "incomplete", "good")
    )
    put(queue, damaged, damaged=b"RLHPSEG2 and then nothing that makes sense")
    put(queue, incomplete, without="incomplete-second")
    put(queue, good)
    ann = worker(queue, BPrefTeacher())
    assert [ann.step() for _ in range(3)] == [0, 1, 0]
    assert ann.counts.skipped == 2
    first, second = (record.getMessage() for record in caplog.records)
    assert first.startswith("query damaged skipped, it cannot be read: a damaged segment")
    assert second == (
        "query incomplete skipped, it cannot be read: segment incomplete-second of query "
        "'incomplete' is missing or is another one"
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
        f"query q0 skipped, teacher {Scripted.__module__}:Scripted failed: TypeError: it answered "
        f"{wrong!r}; return an rlhp.types.Answer, or None to skip the query"
    )


def test_five_failures_in_a_row_stop_the_worker_with_the_reason(queue: QueryQueue) -> None:
    ask(queue, 8)

    def fail(query: Query) -> Answer:
        raise OSError("no model\nat this address")

    teacher = Scripted(fail)
    message = (
        r"Scripted failed 5 times in a row, the last time on query q4 "
        r"\(OSError: no model at this address\); mend"
    )
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
