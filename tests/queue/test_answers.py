"""Answering, skipping and undoing: every status of every call, on a real Redis."""

from __future__ import annotations

import pytest

from rlhp.queue.queue import QueryQueue, explain
from rlhp.types import Answer
from tests.queue.parts import Meddler, ask, events, opened, say, take

# -- answering


def test_an_answer_of_unknown_words_is_refused_before_anything_is_sent(queue: QueryQueue) -> None:
    ask(queue)
    with pytest.raises(
        ValueError, match=r"an answer is one of first, second, third, .*; got 'left'"
    ):
        say(queue, take(queue), answer="left")
    assert queue.stats().leased == 1


def test_an_answer_to_an_unknown_query_is_gone(queue: QueryQueue) -> None:
    assert queue.answer(query="x", labeler="ann", page="p", token=1, answer=Answer.TIE) == "gone"


def test_a_token_of_somebody_else_is_denied(queue: QueryQueue) -> None:
    ask(queue)
    lease = take(queue, "ann")
    assert say(queue, lease, "bob") == "denied"
    assert queue.skip(query="q", labeler="bob", page="p", token=lease.token) == "denied"
    assert queue.answer(query="q", labeler="ann", page="p", token=7, answer="tie") == "denied"
    assert events(queue) == []


def test_a_repeated_answer_is_the_same_and_another_one_conflicts(queue: QueryQueue) -> None:
    ask(queue)
    lease = take(queue)
    assert [say(queue, lease) for _ in range(3)] == ["ok", "same", "same"]
    assert say(queue, lease, answer="tie") == "conflict"
    assert say(queue, lease, answer="tie", rev=2) == "conflict"
    assert say(queue, lease, rev=0) == "conflict"
    assert len(events(queue)) == 1


def test_a_late_answer_counts_and_ends_the_claim_of_the_next_labeler(
    queue: QueryQueue, meddler: Meddler
) -> None:
    ask(queue)
    slow = take(queue, "ann")
    meddler.expire_leases()
    quick = take(queue, "bob")
    assert say(queue, slow, "ann", answer="second") == "late"
    assert (queue.stats().leased, queue.stats().done) == (0, 1)
    assert queue.extend(page="bob-page") == 0
    assert say(queue, quick, "bob") == "extra"
    assert queue.stats().answered == 1
    assert [(event.labeler, event.how) for event in events(queue)] == [
        ("ann", "late"),
        ("bob", "extra"),
    ]


def test_an_answer_after_the_deadline_is_late_even_if_nobody_else_came(
    queue: QueryQueue, meddler: Meddler
) -> None:
    ask(queue)
    lease = take(queue)
    meddler.expire_leases()
    assert say(queue, lease) == "late"
    assert queue.stats().done == 1


def test_two_wanted_answers_come_from_two_labelers_one_after_the_other(queue: QueryQueue) -> None:
    ask(queue, want=2)
    first = take(queue, "ann")
    assert queue.lease(labeler="bob", page="bob-page") == []
    assert say(queue, first, "ann") == "ok"
    assert queue.lease(labeler="ann", page="ann-page") == []
    assert queue.stats().answered == 1
    assert say(queue, take(queue, "bob"), "bob") == "ok"
    assert (queue.stats().done, queue.stats().answered) == (1, 1)


def test_half_answered_is_done_when_dropped(queue: QueryQueue) -> None:
    ask(queue, want=2)
    say(queue, take(queue))
    assert queue.drop(query="q") == "ok"
    assert (queue.stats().done, queue.stats().dropped, queue.stats().asked) == (1, 0, 1)


# -- skipping


def test_a_skipped_query_goes_to_others_and_is_dropped_when_all_present_skipped_it(
    queue: QueryQueue,
) -> None:
    queue.lease(labeler="bob", page="bob-page")
    ask(queue)
    lease = take(queue, "ann")

    def skip() -> str:
        return queue.skip(query="q", labeler="ann", page="p", token=lease.token)

    assert [skip(), skip()] == ["ok", "same"]
    assert queue.lease(labeler="ann", page="ann-page") == []
    other = take(queue, "bob")
    assert queue.skip(query="q", labeler="bob", page="p", token=other.token) == "ok"
    assert (queue.stats().dropped, queue.stats().open) == (1, 0)
    assert skip() == "same"
    assert [(event.event, event.labeler) for event in events(queue)] == [
        ("skip", "ann"),
        ("skip", "bob"),
        ("drop", ""),
    ]


def test_a_query_is_dropped_after_max_skips(redis_url: str) -> None:
    queue = opened(redis_url, max_skips=2)
    for labeler in ("ann", "bob", "cat"):
        queue.lease(labeler=labeler, page=f"{labeler}-page")
    ask(queue)
    for labeler in ("ann", "bob"):
        lease = take(queue, labeler)
        assert queue.skip(query="q", labeler=labeler, page="p", token=lease.token) == "ok"
    assert queue.stats().dropped == 1


def test_skipping_what_is_over_is_gone_and_what_one_answered_is_denied(
    queue: QueryQueue, meddler: Meddler
) -> None:
    ask(queue)
    slow = take(queue, "ann")
    meddler.expire_leases()
    quick = take(queue, "bob")
    say(queue, quick, "bob")
    assert queue.skip(query="q", labeler="ann", page="p", token=slow.token) == "gone"
    assert queue.skip(query="q", labeler="bob", page="p", token=quick.token) == "denied"
    assert queue.skip(query="x", labeler="bob", page="p", token=1) == "gone"


def test_an_answer_to_a_dropped_query_is_stored_as_extra(
    queue: QueryQueue, meddler: Meddler
) -> None:
    ask(queue)
    lease = take(queue)
    meddler.expire_leases()
    queue.sweep()
    assert queue.drop(query="q") == "ok"
    assert say(queue, lease) == "extra"
    assert (queue.stats().answered, queue.stats().asked) == (0, 0)


# -- undoing


def test_undo_leases_the_query_to_the_same_page_again(queue: QueryQueue) -> None:
    ask(queue)
    lease = take(queue)
    say(queue, lease)
    assert queue.history(labeler="ann") == [("q", 1)]
    undone = queue.undo(query="q", labeler="ann", page="ann-page", rev=1)
    assert (undone.status, undone.token) == ("ok", 2)
    assert queue.undo(query="q", labeler="ann", page="ann-page", rev=1).status == "same"
    assert queue.undo(query="q", labeler="ann", page="ann-page", rev=1).token == 2
    assert (queue.stats().answered, queue.stats().done, queue.stats().leased) == (0, 0, 1)
    assert say(queue, lease) == "same"  # a straggler of the first revision changes nothing
    assert say(queue, take(queue), answer="tie", rev=2) == "ok"
    kinds = [(event.event, event.rev, event.answer) for event in events(queue)]
    assert kinds == [("answer", 1, Answer.FIRST), ("retract", 1, None), ("answer", 2, Answer.TIE)]


def test_there_is_nothing_to_undo_without_an_answer(queue: QueryQueue) -> None:
    ask(queue)
    say(queue, take(queue))
    for query, labeler, rev in (("x", "ann", 1), ("q", "bob", 1), ("q", "ann", 2)):
        undone = queue.undo(query=query, labeler=labeler, page="p", rev=rev)
        assert (undone.status, undone.token) == ("no", None)


def test_an_undone_query_that_runs_out_may_come_back_to_its_labeler(
    queue: QueryQueue, meddler: Meddler
) -> None:
    ask(queue)
    say(queue, take(queue))
    queue.undo(query="q", labeler="ann", page="ann-page", rev=1)
    meddler.expire_leases()
    assert say(queue, take(queue), rev=2) == "ok"


def test_undoing_an_extra_answer_leaves_the_query_done(queue: QueryQueue, meddler: Meddler) -> None:
    ask(queue)
    slow = take(queue, "ann")
    meddler.expire_leases()
    say(queue, take(queue, "bob"), "bob")
    assert say(queue, slow, "ann") == "extra"
    token = queue.undo(query="q", labeler="ann", page="ann-page", rev=1).token
    assert token is not None
    assert (queue.stats().done, queue.stats().leased) == (1, 0)
    assert (
        queue.answer(query="q", labeler="ann", page="p", token=token, answer="tie", rev=2)
        == "extra"
    )


def test_undo_takes_a_half_answered_query_from_the_next_labeler(queue: QueryQueue) -> None:
    ask(queue, want=2)
    say(queue, take(queue, "ann"), "ann")
    other = take(queue, "bob")
    assert queue.undo(query="q", labeler="ann", page="ann-page", rev=1).status == "ok"
    assert queue.extend(page="bob-page") == 0
    assert say(queue, other, "bob") == "late"
    assert say(queue, take(queue, "ann"), "ann", rev=2) == "ok"
    assert queue.stats().done == 1


# -- in words


def test_every_status_can_be_explained() -> None:
    words = [
        "ok",
        "same",
        "dup",
        "full",
        "spent",
        "late",
        "extra",
        "conflict",
        "denied",
        "gone",
        "leased",
        "noclip",
        "no",
    ]
    assert all(explain(word) for word in words)
    with pytest.raises(ValueError, match=r"a queue status is one of ok, same, .*; got 'fine'"):
        explain("fine")
