"""The learner waits for programs that are behind, not for people, and not for ever."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from rlhp.config import RunConfig
from rlhp.query.budget import LabelBudget
from rlhp.running.pace import Pace, lag_steps
from tests.small_runs import small

WARMUP = 100


def config(**reward: Any) -> RunConfig:
    return small(
        labels={"budget": 20, "initial_share": 0.25, "schedule": "constant"},
        reward={"batch_size": 10, "label_uses_per_step": 0.5, **reward},
        learner={"total_env_steps": 1600},
    )


def lag(status: dict[str, Any], env_steps: int, settings: RunConfig | None = None) -> float:
    return lag_steps(status, settings or config(), env_steps=env_steps, warmup_steps=WARMUP)


class Catching:
    """Services whose reward trainer comes closer by `stride` env steps at every turn."""

    def __init__(self, fitted: float, *, stride: float) -> None:
        self.fitted, self._stride, self.turns = fitted, stride, 0

    def progress(self, **facts: Any) -> None: ...

    def settle(self, nodes: Iterable[str]) -> None: ...

    def turn(self) -> None:
        self.turns += 1
        self.fitted += self._stride

    def status(self) -> dict[str, Any]:
        return {"reward/fitted_steps": self.fitted}


def test_fits_that_are_owed_count_from_a_whole_gradient_step_on() -> None:
    assert lag({}, 500) == 0, "nobody has said anything yet"
    assert lag({"reward/fitted_steps": None}, 500) == 0, "nothing is owed"
    assert lag({"reward/fitted_steps": 500.0}, 500) == 0
    assert lag({"reward/fitted_steps": 480.0}, 500) == 0, "10 uses at half a use a step: not a gradient step yet"
    assert lag({"reward/fitted_steps": 400.0}, 500) == 80
    assert lag({"reward/fitted_steps": 900.0}, 500) == 0, "a run that goes on from a checkpoint"


def test_answers_count_from_the_step_at_which_the_schedule_wanted_them() -> None:
    settings = config()
    budget = LabelBudget(settings.labels, 1500)  # 5 at first, then one every 100 steps
    assert [budget.allowed(step) for step in (0, 99, 100, 250)] == [5, 5, 6, 7]
    assert lag({"labels/answered": 7}, WARMUP + 250) == 0
    assert lag({"labels/answered": 6}, WARMUP + 250) == 50
    assert lag({"labels/answered": 5}, WARMUP + 250) == 150
    assert lag({"labels/answered": 5}, WARMUP + 99) == 0


@pytest.mark.parametrize("labels", [{"source": "human"}, {"labelers": 0}])
def test_nobody_waits_for_people(labels: dict[str, Any]) -> None:
    settings = config().model_copy(update={"labels": config().labels.model_copy(update=labels)})
    assert lag({"labels/answered": 0}, 1000, settings) == 0
    assert lag({"labels/answered": 0, "reward/fitted_steps": 400.0}, 500, settings) == 80


def wait(
    services: Catching, *, most: int | None, tell: Callable[[], None] = lambda: None, **more: Any
) -> dict[str, float]:
    return Pace(config(max_lag_steps=most), services, threading.Event(), **more).wait(1000, WARMUP, tell)


def test_the_learner_goes_on_as_soon_as_the_lag_is_within_the_bound() -> None:
    services = Catching(600.0, stride=50.0)
    told: list[int] = []
    row = wait(services, most=200, tell=lambda: told.append(1))
    assert services.fitted == 800.0, "of 1,000, and 20 are no gradient step yet"
    assert len(told) == services.turns > 0, "who was restarted meanwhile hears how far the run is"
    assert row["reward/wait_seconds"] > 0


def test_without_the_key_nobody_is_waited_for() -> None:
    services = Catching(0.0, stride=0.0)
    assert wait(services, most=None) == {}
    assert services.turns == 0


def test_a_reward_that_never_comes_closer_is_given_up_once_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    services = Catching(600.0, stride=0.0)
    pace = Pace(config(max_lag_steps=100), services, threading.Event(), patience_seconds=0.2)
    with caplog.at_level(logging.WARNING):
        pace.wait(1000, WARMUP, lambda: None)
        turns = services.turns
        pace.wait(1100, WARMUP, lambda: None)
    assert services.turns == turns, "not at every batch again"
    assert caplog.text.count("the reward stays 380 env steps behind the policy: training goes on without it") == 1
    services.fitted = 1100.0
    pace.wait(1100, WARMUP, lambda: None)
    services.fitted = 600.0
    pace.wait(1100, WARMUP, lambda: None)
    assert services.turns > turns, "once it has caught up it is waited for again"


def test_a_stop_ends_the_wait() -> None:
    stop = threading.Event()
    pace = Pace(config(max_lag_steps=1), Catching(0.0, stride=0.0), stop)
    pace.wait(1000, WARMUP, stop.set)
    assert stop.is_set()
