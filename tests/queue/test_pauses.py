"""A paused labeler is lent nothing, is told why, and goes on once pardoned."""

from __future__ import annotations

import pytest

from rlhp.queue.queue import QueryQueue
from tests.queue.parts import ask, say, take


def test_a_paused_labeler_is_lent_nothing_and_others_are(queue: QueryQueue) -> None:
    ask(queue, "a")
    pauses = queue.pauses
    assert pauses.reason("ann") is None
    assert pauses.pause("ann", reason="30 of 31 answers were for the same side") is True
    assert queue.lease(labeler="ann", page="ann-page") == []
    assert pauses.reason("ann") == "30 of 31 answers were for the same side"
    assert pauses.pause("ann", reason="another") is False
    assert pauses.all() == {"ann": "30 of 31 answers were for the same side"}
    assert take(queue, "bob").query == "a"


def test_what_it_holds_may_still_be_answered(queue: QueryQueue) -> None:
    ask(queue, "a")
    lease = take(queue)
    queue.pauses.pause("ann", reason="too fast")
    assert say(queue, lease) == "ok"


def test_a_pardoned_labeler_goes_on_and_is_not_paused_again(queue: QueryQueue) -> None:
    ask(queue, "a")
    pauses = queue.pauses
    pauses.pause("ann", reason="guessing")
    pauses.pardon("ann")
    assert pauses.reason("ann") is None
    assert pauses.pause("ann", reason="guessing still") is False
    assert take(queue, "ann").query == "a"


def test_a_pause_has_a_reason(queue: QueryQueue) -> None:
    with pytest.raises(
        ValueError, match="a pause needs a reason that ann can be told, got an empty one"
    ):
        queue.pauses.pause("ann", reason="")
