"""The example client labels a run through the page's own interface, and stops when it
is over.
"""

from __future__ import annotations

import threading
import urllib.error
from pathlib import Path

import pytest

from examples.label_client import Client, choose, label
from rlhp.queue.queue import QueryQueue
from rlhp.types import Answer
from tests.labeling.page.parts import address_in, ask, served
from tests.labeling.parts import until

SOURCE = Path(__file__).parents[3] / "examples" / "label_client.py"


def test_it_answers_every_query_as_its_model_says(queue: QueryQueue) -> None:
    token = queue.accounts.add("robot")
    names = ask(queue, 5)
    with served(queue) as link:
        counts: list[int] = []
        thread = threading.Thread(
            target=lambda: counts.append(label(Client(address_in(link), token)))
        )
        thread.start()
        until(lambda: queue.stats().answered == 5)
        queue.close()
        thread.join()
    assert counts == [5]
    events = queue.events(consumer="test")
    assert sorted(event.query for event in events) == names
    assert {(event.labeler, event.meta["kind"]) for event in events} == {("robot", "script")}
    assert {event.answer for event in events} == {Answer.SECOND}, (
        "the clip that says `second` is the longer one"
    )


def test_it_leaves_when_it_is_paused(queue: QueryQueue) -> None:
    token = queue.accounts.add("robot")
    ask(queue, 1)
    queue.pauses.pause("robot", reason="it guesses")
    with served(queue) as link:
        assert label(Client(address_in(link), token)) == 0


def test_a_wrong_token_is_told_at_once(queue: QueryQueue) -> None:
    queue.accounts.add("robot")
    with served(queue) as link, pytest.raises(urllib.error.HTTPError, match="401"):
        label(Client(address_in(link), "wrong"))


def test_it_is_short_and_needs_the_standard_library_alone() -> None:
    text = SOURCE.read_text(encoding="utf-8")
    assert len(text.splitlines()) < 60
    assert "import rlhp" not in text
    assert "from rlhp" not in text
    assert choose(b"12", b"1") == "left"
    assert choose(b"1", b"1") == "tie"
