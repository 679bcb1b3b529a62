"""The learner waits for programs that are behind, not for people, and not for ever."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from rlhp.config.schema import RunConfig
from rlhp.monitor.rows import RunStatus
from rlhp.run.throttle import Lag, LearnerThrottle
from tests.run.roles import query_actor, reward_trainer
from tests.small_runs import small


def config(**reward: Any) -> RunConfig:
    return small(labels={"budget": 20}, reward=reward, learner={"total_env_steps": 1600})


class Catching:
    """Services whose reward trainer comes closer by `stride` env steps at every turn."""

    def __init__(self, fitted: float, *, stride: float) -> None:
        self.fitted, self._stride, self.turns = fitted, stride, 0

    def progress(self, **facts: Any) -> None: ...

    def settle(self, nodes: Iterable[str]) -> None: ...

    def turn(self) -> None:
        self.turns += 1
        self.fitted += self._stride

    def status(self) -> RunStatus:
        return fitted(self.fitted)


def fitted(steps: float | None) -> RunStatus:
    return RunStatus(reward_trainer=reward_trainer(fitted_steps=steps))


def test_fits_that_are_owed_count() -> None:
    lag = Lag(config())
    assert lag(RunStatus(), env_steps=500) == 0, "nobody has said anything yet"
    assert lag(fitted(None), env_steps=500) == 0, "no version yet"
    assert lag(fitted(500.0), env_steps=500) == 0
    assert lag(fitted(400.0), env_steps=500) == 100
    assert lag(fitted(900.0), env_steps=500) == 0, "a run that goes on from a checkpoint"


def asking(
    env_steps: int, allowed: int, answered: int, *, fitted_steps: float | None = None
) -> RunStatus:
    return RunStatus(
        query_actor=query_actor(env_steps=env_steps, allowed=allowed),
        reward_trainer=reward_trainer(answered=answered, fitted_steps=fitted_steps),
    )


def test_answers_count_from_the_step_at_which_the_schedule_wanted_them() -> None:
    lag = Lag(config())
    assert lag(asking(100, 5, 5), env_steps=100) == 0
    assert lag(asking(100, 5, 5), env_steps=160) == 60, "the query actor has not heard of it yet"
    assert lag(asking(160, 6, 5), env_steps=160) == 60
    assert lag(asking(220, 8, 6), env_steps=220) == 60, "six were wanted at 160"
    assert lag(asking(220, 8, 8), env_steps=220) == 0
    assert lag(asking(100, 5, 4), env_steps=160) == 0, "back at a checkpoint nothing is known yet"


def test_a_query_actor_that_was_restarted_and_has_heard_nothing_yet_sets_no_milestone() -> None:
    lag = Lag(config())
    for step in range(1, 6):
        lag(asking(100 * step, 5 + step, 5 + step), env_steps=100 * step)
    assert lag(asking(0, 5, 9), env_steps=500) == 100, "nine were wanted at 400"
    assert lag(asking(500, 10, 10), env_steps=500) == 0


def test_what_the_schedule_allows_a_turn_later_is_waited_for_too() -> None:
    lag = Lag(config())
    lag(asking(100, 5, 5), env_steps=100)
    lag(asking(200, 5, 5), env_steps=200)
    assert lag(asking(200, 7, 5), env_steps=300) == 200


@pytest.mark.parametrize("labels", [{"source": "human"}, {"labelers": 0}])
def test_nobody_waits_for_people(labels: dict[str, Any]) -> None:
    settings = config().model_copy(update={"labels": config().labels.model_copy(update=labels)})
    lag = Lag(settings)
    assert lag(asking(100, 10, 0), env_steps=1000) == 0
    assert lag(asking(100, 10, 0, fitted_steps=400.0), env_steps=500) == 100


def wait(
    services: Catching, *, most: int | None, tell: Callable[[], None] = lambda: None
) -> dict[str, float]:
    throttle = LearnerThrottle(
        config(max_lag_steps=most), services, threading.Event(), turn_steps=60
    )
    return throttle.wait(1000, tell)


def test_the_learner_goes_on_as_soon_as_the_lag_is_within_the_bound() -> None:
    services = Catching(600.0, stride=50.0)
    row = wait(services, most=200)
    assert services.fitted == 800.0
    assert row["reward/lag_steps"] == 200
    assert row["reward/wait_seconds"] > 0


def test_who_was_restarted_meanwhile_hears_how_far_the_run_is() -> None:
    told: list[int] = []
    wait(Catching(0.0, stride=20.0), most=100, tell=lambda: told.append(1))
    assert told


def test_without_the_key_the_lag_is_one_batch() -> None:
    services = Catching(0.0, stride=100.0)
    assert wait(services, most=None)["reward/lag_steps"] <= 60


def test_a_reward_that_never_comes_closer_is_given_up_once_with_a_warning() -> None:
    services = Catching(600.0, stride=0.0)
    said: list[str] = []
    stop = threading.Event()
    throttle = LearnerThrottle(
        config(max_lag_steps=100),
        services,
        stop,
        turn_steps=60,
        patience_seconds=0.2,
        say=said.append,
    )
    throttle.wait(1000, lambda: None)
    turns = services.turns
    throttle.wait(1100, lambda: None)
    assert services.turns == turns, "not at every batch again"
    (text,) = said
    assert "400 env steps" in text
    assert "reward.max_lag_steps=100" in text
    services.fitted = 1100.0
    throttle.wait(1100, lambda: None)
    services.fitted = 600.0
    throttle.wait(1100, lambda: None)
    assert services.turns > turns, "once it has caught up it is waited for again"


def test_the_warning_goes_to_the_log_too(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        throttle = LearnerThrottle(
            config(max_lag_steps=1),
            Catching(0.0, stride=0.0),
            threading.Event(),
            turn_steps=60,
            patience_seconds=0.05,
        )
        throttle.wait(100, lambda: None)
    assert "training goes on" in caplog.text


def test_a_stop_ends_the_wait() -> None:
    stop = threading.Event()
    throttle = LearnerThrottle(
        config(max_lag_steps=1), Catching(0.0, stride=0.0), stop, turn_steps=60
    )
    threading.Timer(0.1, stop.set).start()
    throttle.wait(1000, lambda: None)
    assert stop.is_set()
