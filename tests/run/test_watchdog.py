"""What makes no progress is given up; what is rightly waited for is not."""

from __future__ import annotations

import threading

import pytest

from rlhp.run.watchdog import Stalled, StallWatchdog

SOON = 0.2


def stuck(watchdog: StallWatchdog) -> threading.Event:
    """Watch something that would go on for ever; its `abandon` is what ends it."""
    given_up = threading.Event()
    with watchdog.watching(given_up.set):
        assert given_up.wait(60)
    return given_up


def test_what_is_stuck_is_given_up_and_the_next_call_starts_anew() -> None:
    with StallWatchdog(SOON) as watchdog:
        with pytest.raises(Stalled, match=r"no env step for 0\.2 s \(ray\.stall_seconds\)"):
            stuck(watchdog)
        with watchdog.watching(lambda: pytest.fail("it has only begun")):
            pass


def test_the_error_that_came_of_it_is_its_cause() -> None:
    def fail() -> None:
        given_up = threading.Event()
        with watchdog.watching(given_up.set):
            given_up.wait(60)
            raise OSError("the actor was killed")

    with StallWatchdog(SOON) as watchdog, pytest.raises(Stalled) as caught:
        fail()
    assert isinstance(caught.value.__cause__, OSError)


def test_an_error_that_came_in_time_stays_as_it_is() -> None:
    with (
        StallWatchdog(60) as watchdog,
        pytest.raises(OSError, match="its own"),
        watchdog.watching(lambda: None),
    ):
        raise OSError("its own")


def test_calls_that_return_at_once_with_nothing_add_up() -> None:
    def call(times: int) -> None:
        for _ in range(times):
            with watchdog.watching(lambda: None):
                threading.Event().wait(0.01)

    with StallWatchdog(SOON) as watchdog, pytest.raises(Stalled):
        call(10_000)  # as when every env runner is gone


def test_calls_that_bring_steps_do_not() -> None:
    with StallWatchdog(1.0) as watchdog:
        for _ in range(4):
            with watchdog.watching(lambda: None):
                threading.Event().wait(0.3)
            watchdog.progressed()


def test_what_is_rightly_waited_for_is_not_given_up() -> None:
    reasons = iter(["no reward model answers"] * 3)
    asked = []

    def excuse() -> str | None:
        asked.append(next(reasons, None))
        return asked[-1]

    with StallWatchdog(SOON, excuse=excuse) as watchdog, pytest.raises(Stalled):
        stuck(watchdog)
    assert asked == ["no reward model answers"] * 3 + [None]
