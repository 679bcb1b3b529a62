"""A role on a thread of its own: an absence is waited out, anything else is told, and
it stops when asked.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator

import pytest

from rlhp.system.roles import RoleStatus
from rlhp.workers import roles as module
from rlhp.workers.roles import Background
from tests.labeling.parts import until

WAITS, GOES_ON = "counter waits: no service from Redis", "counter goes on"


class Counter:
    """Counts its steps; what a step does can be changed from outside."""

    def __init__(self, step: Callable[[], bool]) -> None:
        self.does = step
        self.steps = 0

    def step(self) -> bool:
        self.steps += 1
        return self.does()

    def status(self) -> RoleStatus:
        return RoleStatus(metrics={"steps": self.steps})


Run = Callable[[Callable[[], bool]], tuple[Counter, Background[RoleStatus]]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    monkeypatch.setattr(module, "IDLE_SECONDS", 0.001)
    monkeypatch.setattr(module, "LONGEST_BACKOFF_SECONDS", 0.002)
    started: list[Background[RoleStatus]] = []

    def start(step: Callable[[], bool]) -> tuple[Counter, Background[RoleStatus]]:
        role = Counter(step)
        started.append(Background(role.step, role.status, name="counter"))
        return role, started[-1]

    yield start
    for each in started:
        each.stop()


def idle() -> bool:
    return False


def away() -> bool:
    raise ConnectionError("no service from Redis")


def test_it_steps_whether_or_not_there_is_anything_to_do(run: Run) -> None:
    for step in (idle, lambda: True):
        role, background = run(step)
        until(lambda role=role: role.steps >= 3)  # type: ignore[misc]
        assert (background.status().metrics["steps"] or 0) <= role.steps
        assert background.status().fatal is None
        assert background.status().waiting_for is None


def test_an_absence_is_waited_out_with_one_line_at_loss_and_one_at_return(
    run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "rlhp.workers.roles"):
        role, background = run(idle)
        until(lambda: role.steps > 0)
        for _ in range(2):
            steps, role.does = role.steps, away
            until(lambda enough=steps + 5: role.steps > enough)  # type: ignore[misc]
            assert background.status().waiting_for == "no service from Redis"
            assert background.status().fatal is None
            role.does = idle
            until(lambda: background.status().waiting_for is None)
    assert caplog.messages == [WAITS, GOES_ON, WAITS, GOES_ON]


def test_any_other_error_is_fatal_and_told(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    def fails() -> bool:
        raise ValueError("the reward ensemble diverged; lower reward.lr")

    role, background = run(fails)
    until(lambda: background.status().fatal is not None)
    assert (
        background.status().fatal
        == "counter: ValueError: the reward ensemble diverged; lower reward.lr"
    )
    assert caplog.messages == ["counter stopped"]
    assert role.steps == 1, "it is not tried again"
    assert background.stop()


def test_the_beat_tells_when_it_last_came_through(run: Run) -> None:
    role, background = run(idle)
    until(lambda: role.steps > 1)
    first = background.status().beat
    assert first is not None
    until(lambda: (background.status().beat or 0.0) > first)
    role.does = away
    until(lambda: background.status().waiting_for is not None)
    stuck, steps = background.status().beat, role.steps
    until(lambda: role.steps > steps + 3)
    assert background.status().beat == stuck


def test_it_stops_after_its_present_step(run: Run) -> None:
    role, background = run(idle)
    assert background.stop()
    steps = role.steps
    assert role.steps == steps


def test_it_says_when_a_long_step_keeps_it_from_stopping(run: Run) -> None:
    hold = threading.Event()
    role, background = run(lambda: hold.wait(60))
    until(lambda: role.steps == 1)
    assert not background.stop(timeout_seconds=0.01)
    hold.set()
    assert background.stop()
    assert role.steps == 1
