"""The clock of a real server is set ahead and back while labelers work: nothing is
lost, doubled, or held for hours.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.rig.faked_clock import FakedClock, library
from rlhp.queue.embedded import EmbeddedRedis
from rlhp.queue.queue import QueryQueue
from tests.queue.parts import ask, events, opened, say, take, until

HOUR = 3600

pytestmark = pytest.mark.skipif(
    library() is None, reason="libfaketime is not installed: make system"
)


@pytest.fixture
def clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakedClock:
    clock = FakedClock(tmp_path)
    for name, value in clock.environment.items():
        monkeypatch.setenv(name, value)
    return clock


@pytest.fixture
def faked(clock: FakedClock, tmp_path: Path) -> Iterator[QueryQueue]:
    with EmbeddedRedis(tmp_path / "redis") as server, opened(server.url) as queue:
        yield queue


def test_ahead_a_lease_runs_out_and_the_first_answer_is_kept_as_one_too_many(
    clock: FakedClock, faked: QueryQueue
) -> None:
    ask(faked)
    lease = take(faked, "ann")
    assert faked.lease(labeler="bob", page="bob-page") == []
    clock.set(ahead=HOUR)
    again = take(faked, "bob")
    assert (say(faked, again, "bob"), say(faked, lease, "ann")) == ("ok", "extra")
    assert [(event.labeler, event.how) for event in events(faked)] == [
        ("bob", "ok"),
        ("ann", "extra"),
    ]


def test_set_back_a_lease_lasts_no_longer_than_it_was_given(
    clock: FakedClock, tmp_path: Path
) -> None:
    with (
        EmbeddedRedis(tmp_path / "redis") as server,
        opened(server.url, lease_seconds=1.0) as queue,
    ):
        ask(queue)
        take(queue, "ann")
        clock.set(ahead=-HOUR)
        until(lambda: bool(queue.lease(labeler="bob", page="bob-page")))
