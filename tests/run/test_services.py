"""What the driver holds of the other roles, as real Ray actors: it never waits, and
hears of one lost for good.
"""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import ray

from rlhp.errors import RoleFailed
from rlhp.monitor.rows import queue_metrics
from rlhp.queue.queue import QueryQueue
from rlhp.run.services import ClusterServices
from tests.labeling.parts import until
from tests.run.parts import answer, ask, run_in
from tests.run.roles import query_actor, reward_model, reward_trainer, told


@pytest.fixture(scope="module")
def roles(ray_session: None) -> Iterator[dict[str, Any]]:
    started = {
        "asking": told(query_actor()),
        "fitting": told(reward_trainer()),
        "model": told(reward_model(2)),
    }
    yield started
    for actor in started.values():
        ray.kill(actor)


@pytest.fixture
def queue(redis_url: str, tmp_path: Path) -> QueryQueue:
    rundir, queue = run_in(tmp_path, redis_url)
    ask(rundir, queue, 3)
    return queue


def held(roles: dict[str, Any], queue: QueryQueue) -> ClusterServices:
    return ClusterServices(queue, roles["asking"], roles["fitting"], Models(roles["model"]), None)


class Models:
    """One reward model, wherever env runners are."""

    def __init__(self, model: Any) -> None:
        self.actors = {"reward_model_0": model}

    def settle(self, nodes: Iterable[str]) -> None:
        pass


def failure(services: ClusterServices) -> str:
    """What a turn fails with, sooner or later."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            services.turn()
        except RoleFailed as error:
            return str(error)
        time.sleep(0.02)
    return "nothing failed"


def test_the_status_is_the_last_known_one_of_every_role(
    roles: dict[str, Any], queue: QueryQueue
) -> None:
    services = held(roles, queue)
    assert services.status().metrics == {"labels/per_minute": 0.0}
    until(lambda: services.turn() or services.status().reward_trainer is not None)  # type: ignore[func-returns-value]
    until(lambda: services.turn() or services.status().query_actor is not None)  # type: ignore[func-returns-value]
    status = services.status()
    assert status.query_actor is not None
    assert status.reward_trainer is not None
    assert status.queue is not None
    assert (status.query_actor.pool, status.reward_trainer.answered) == (7, 3)
    assert (status.queue.asked, status.queue.pending, status.queue.leased) == (3, 3, 0)
    assert (status.metrics["segments/pool"], status.metrics["labels/asked"]) == (7, 3)
    until(lambda: services.turn() or len(services.pids()) == 4)  # type: ignore[func-returns-value]
    pids = services.pids()
    assert pids["labelers"] == []
    assert len({pids["query_actor"], pids["reward_trainer"], pids["reward_model_0"]}) == 3


def test_everybody_is_told_how_far_the_run_is(roles: dict[str, Any], queue: QueryQueue) -> None:
    facts: dict[str, Any] = {
        "warmup_steps": 50,
        "learning": True,
        "lowest_return": -2.0,
        "episodes": [(1.0, 20)],
    }
    held(roles, queue).progress(env_steps=100, **facts)
    assert ray.get(roles["asking"].heard.remote()) == [[{"env_steps": 100, **facts}]]
    assert ray.get(roles["fitting"].heard.remote()) == [[100, {}]]


@pytest.mark.parametrize("role", ["asking", "fitting", "model"])
def test_a_fatal_error_of_a_role_ends_the_run_with_its_own_words(
    roles: dict[str, Any], queue: QueryQueue, role: str
) -> None:
    line = "reward trainer: ValueError: the reward ensemble diverged; lower reward.lr"
    ray.get(roles[role].tell.remote(fatal=line))
    assert failure(held(roles, queue)) == line
    ray.get(roles[role].tell.remote(fatal=None))


def test_a_role_that_dies_is_away_and_comes_back(
    roles: dict[str, Any], queue: QueryQueue, caplog: pytest.LogCaptureFixture
) -> None:
    services = held(roles, queue)
    until(lambda: services.turn() or "query_actor" in services.pids())  # type: ignore[func-returns-value]
    pid = services.pids()["query_actor"]
    with caplog.at_level(logging.WARNING, "rlhp.run.services"):
        os.kill(pid, signal.SIGKILL)
        until(lambda: services.turn() or services.pids()["query_actor"] != pid)  # type: ignore[func-returns-value]
    status = services.status().query_actor
    assert status is not None
    assert (status.pool, status.alive) == (7, True)
    away = [line for line in caplog.messages if "is away" in line]
    assert away in (["query actor is away (ActorUnavailableError) and is being restarted"], [])
    assert caplog.messages[-1:] == (["query actor is back"] if away else [])


def test_a_role_that_cannot_be_restarted_ends_the_run_and_says_why(
    roles: dict[str, Any], queue: QueryQueue, tmp_path: Path
) -> None:
    flag = tmp_path / "flag"
    asking = told(query_actor(), flag=str(flag))
    services = held({**roles, "asking": asking}, queue)
    flag.touch()
    os.kill(ray.get(asking.status.remote()).pid, signal.SIGKILL)
    line = (
        "query actor cannot be restarted: ValueError: part-00000000.parquet is damaged; move "
        "that file away"
    )
    assert failure(services) == line


def test_a_queue_that_is_away_leaves_its_last_numbers(
    roles: dict[str, Any], queue: QueryQueue
) -> None:
    services = held(roles, queue)
    services.turn()
    services._queue = QueryQueue("redis://127.0.0.1:1/0", run=queue.run)
    services._ask_queue_at = 0.0
    services.turn()
    assert services.status().metrics["labels/asked"] == 3


def test_the_numbers_of_a_queue_go_by_the_names_of_metrics(queue: QueryQueue) -> None:
    answer(queue, 1)
    (lease,) = queue.lease(labeler="bob", page="bob-page")
    numbers = queue_metrics(queue.stats())
    age = numbers.pop("queue/oldest_age_seconds")
    assert age is not None
    assert age >= 0
    assert numbers == {
        "labels/asked": 3,
        "queue/pending": 1,
        "queue/leased": 1,
        "queue/set_aside": 0,
    }
    assert lease.query
