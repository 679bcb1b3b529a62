"""A queue that is older than the disk, or that forgot by its rules, is told what the
disk knows.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import pytest

from rlhp.preferences.events import EventRow
from rlhp.queue.lookup import recollection
from rlhp.queue.queue import Event, QueryQueue
from tests.queue.parts import Meddler, ask, events, opened, say, take


def rows_of(found: Sequence[Event]) -> list[EventRow]:
    return [EventRow.of_event(event) for event in found]


def older(url: str, names: Sequence[str], *, want: int = 1, **more: int) -> QueryQueue:
    """The run as it was when its queries had been asked and nobody had answered yet."""
    queue = opened(url, **more)
    for name in names:
        ask(queue, name, want=want, body={"purpose": "train"})
    return queue


def test_what_is_answered_on_disk_is_asked_of_nobody_again(redis_url: str) -> None:
    newer = older(redis_url, "abcd")
    for _ in "abc":
        say(newer, take(newer))
    newer.undo(query="c", labeler="ann", page="ann-page", rev=1)
    rows = rows_of(events(newer))

    queue = older(redis_url, "abcd", budget=4)
    assert queue.recall(recollection(rows)) == 3
    stats = queue.stats()
    assert (stats.done, stats.answered, stats.asked, stats.open) == (2, 2, 4, 2)
    leases = queue.lease(labeler="ann", page="ann-page", n=2)
    assert [(lease.query, lease.rev) for lease in leases] == [("c", 2), ("d", 1)], (
        "a revision is never given out twice"
    )
    assert queue.recall(recollection(rows)) == 0, "told once"
    assert ask(queue, "e") == "spent"


def test_a_queue_that_is_level_with_the_disk_or_ahead_is_left_as_it_is(redis_url: str) -> None:
    queue = older(redis_url, "abc")
    say(queue, take(queue))
    rows = rows_of(events(queue))
    say(queue, take(queue))
    queue.undo(query="a", labeler="ann", page="ann-page", rev=1)
    before = queue.stats()
    assert queue.recall(recollection(rows)) == 0
    after = queue.stats()
    assert (after.done, after.answered, after.leased, after.pending) == (
        before.done, before.answered, before.leased, before.pending
    )  # fmt: skip


def test_a_redis_that_came_back_empty_knows_what_was_asked_and_what_it_cost(redis_url: str) -> None:
    newer = older(redis_url, "abcd", max_skips=1)
    say(newer, take(newer))
    skipped = take(newer)
    newer.skip(query=skipped.query, labeler="ann", page="ann-page", token=skipped.token)
    ask(newer, "check", only="ann", body={"purpose": "gold"})
    say(newer, take(newer))
    rows = rows_of(events(newer))

    queue = opened(redis_url, budget=2)
    assert queue.recall(recollection(rows)) == 3
    assert [ask(queue, name) for name in ("a", "b", "c", "d")] == ["same", "same", "ok", "spent"]
    stats = queue.stats()
    assert (stats.asked, stats.answered, stats.dropped, stats.checks) == (2, 1, 1, 1)


def test_what_was_finished_long_ago_needs_no_recall(redis_url: str) -> None:
    queue = older(redis_url, "abc")
    meddler = Meddler(queue)
    assert queue.forgotten() == set()
    say(queue, take(queue))
    meddler.redis.delete(meddler.key("q:a"))
    assert queue.forgotten() == {"a"}
    meddler.close()


def test_votes_that_are_on_disk_count_and_the_others_are_still_wanted(redis_url: str) -> None:
    newer = older(redis_url, "a", want=2)
    say(newer, take(newer))
    queue = older(redis_url, "a", want=2)
    queue.recall(recollection(rows_of(events(newer))))
    assert (queue.stats().open, queue.stats().answered) == (1, 1)
    assert queue.lease(labeler="ann", page="ann-page") == []
    assert say(queue, take(queue, "bob"), "bob") == "ok"
    assert queue.stats().done == 1


def test_who_holds_a_query_that_is_answered_on_disk_is_an_extra(redis_url: str) -> None:
    newer, queue = older(redis_url, "a"), older(redis_url, "a")
    say(newer, take(newer))
    held = take(queue, "bob")
    queue.recall(recollection(rows_of(events(newer))))
    assert queue.stats().leased == 0
    assert say(queue, held, "bob") == "extra"


def test_answers_of_another_run_are_nothing_to_this_queue(redis_url: str) -> None:
    newer = older(redis_url, "a")
    say(newer, take(newer))
    (row,) = rows_of(events(newer))
    reused = dataclasses.replace(row, note="reused from elsewhere")
    assert recollection([reused]) == []


@pytest.mark.parametrize("on_disk", [True, False])
def test_an_answer_can_be_corrected_when_redis_has_forgotten_it(
    redis_url: str, on_disk: bool
) -> None:
    queue = older(redis_url, "ab")
    meddler, lookup = Meddler(queue), queue.lookup
    say(queue, take(queue))
    rows = rows_of(events(queue))
    meddler.redis.delete(meddler.key("q:a"))
    if on_disk:
        meddler.redis.xtrim(meddler.key("answers"), maxlen=0)
    told = {"meta": {"corrected_by": "eve"}, "log": (lambda: rows) if on_disk else None}
    assert lookup.correct("a", labeler="bob", answer="tie", **told) == "no"  # type: ignore[arg-type]
    assert lookup.correct("unknown", labeler="ann", answer="tie", **told) == "gone"  # type: ignore[arg-type]
    assert lookup.correct("a", labeler="ann", answer="tie", **told) == "ok"  # type: ignore[arg-type]
    assert lookup.correct("a", labeler="ann", answer="tie", **told) == "same"  # type: ignore[arg-type]
    found = events(queue)[-2:]
    assert [(event.event, event.rev, event.answer) for event in found] == [
        ("retract", 1, None),
        ("answer", 2, "tie"),
    ]
    assert (found[1].candidates, found[1].body["purpose"]) == (("a-a", "a-b"), "train")
    assert (
        found[1].made_ms == round(rows[0].made_at.timestamp() * 1000) if rows[0].made_at else False
    )
    assert queue.undo(query="a", labeler="ann", page="ann-page", rev=2).status == "no", (
        "an admin's word stands"
    )
    stats = queue.stats()
    assert (stats.asked, stats.answered, stats.pending) == (2, 1, 1), "nothing is counted twice"
    meddler.close()


def test_a_correction_of_a_correction_stands_until_the_next_one(queue: QueryQueue) -> None:
    lookup = queue.lookup
    ask(queue, "a")
    say(queue, take(queue))
    for rev, answer in enumerate(("second", "tie", "first"), start=2):
        assert lookup.correct("a", labeler="ann", answer=answer, meta={}) == "ok"
        assert queue.undo(query="a", labeler="ann", page="ann-page", rev=rev).status == "no"
    assert queue.history(labeler="ann") == []
