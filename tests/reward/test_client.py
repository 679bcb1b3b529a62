"""Finding a reward model that answers, among real Ray actors that die."""

from __future__ import annotations

import logging
import secrets
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
from ray.exceptions import RayTaskError

from rlhp.reward import client as module
from tests.labeling.parts import until
from tests.reward.replicas import client
from tests.reward.replicas import start as started
from tests.reward.versions import ENVS, OBS, ROWS, fragment, weights

pytestmark = pytest.mark.usefixtures("ray_session")


@pytest.fixture
def run() -> str:
    return f"run-{secrets.token_hex(4)}"


Start = Callable[..., Any]


@pytest.fixture
def start(run: str) -> Iterator[Start]:
    """Starts a replica of this run, which lives as long as somebody holds it: until the
    end of the test.
    """
    held: list[Any] = []

    def hold(index: int, **more: Any) -> Any:
        held.append(started(run, index, **more))
        return held[-1]

    yield hold
    for actor in held:
        ray.kill(actor)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FIRST_COMPLAINT_SECONDS", 0.0)


class Asking(threading.Thread):
    """Labels in a thread of its own, and keeps the answer."""

    def __init__(self, label: Callable[..., tuple[np.ndarray, int]]) -> None:
        super().__init__(daemon=True)
        self._label = label
        self.version = 0
        self.start()

    def run(self) -> None:
        _, self.version = self._label(*fragment())


def test_an_env_runner_asks_its_own_replica_first_and_another_when_that_is_gone(
    start: Start, run: str
) -> None:
    actors = [start(index) for index in range(2)]
    runners = [client(run, favorite=worker) for worker in (1, 2)]
    assert [runner.predict(*fragment())[1] for runner in runners] == [2, 1]
    ray.kill(actors[1])
    rewards, version = runners[0].predict(*fragment())
    assert version == 1
    assert rewards.shape == (ENVS, ROWS)
    assert [runner.predict(*fragment())[1] for runner in runners] == [1, 1]


def test_a_replica_that_came_back_gets_its_share_again(
    start: Start, run: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LOOK_SECONDS", 3600.0)
    first = start(0)
    start(1)
    patient, forgiving = client(run), client(run)
    assert [each.predict(*fragment())[1] for each in (patient, forgiving)] == [1, 1]
    ray.kill(first)
    monkeypatch.setattr(module, "SUSPECT_SECONDS", 3600.0)  # a replica may take long to start
    assert patient.predict(*fragment())[1] == 2
    monkeypatch.setattr(module, "SUSPECT_SECONDS", 0.0)
    assert forgiving.predict(*fragment())[1] == 2
    start(0)
    assert patient.predict(*fragment())[1] == 2, "a suspect is asked last for a while"
    assert forgiving.predict(*fragment())[1] == 1


def test_the_replica_of_its_own_node_comes_before_its_favorite(start: Start, run: str) -> None:
    start(0)
    start(1, node=ray.get_runtime_context().get_node_id())
    start(2)
    assert [client(run, favorite=worker).predict(*fragment())[1] for worker in range(3)] == [
        2,
        2,
        2,
    ]


@pytest.mark.usefixtures("impatient")
def test_without_any_replica_it_waits_says_so_and_goes_on_when_one_is_there(
    start: Start, run: str, caplog: pytest.LogCaptureFixture
) -> None:
    asking = Asking(client(run, favorite=7).predict)
    with caplog.at_level(logging.WARNING, "rlhp.reward.client"):
        until(lambda: bool(caplog.records))
        assert caplog.messages[0] == (
            "env runner 7: no reward model has answered for 0 s (asked 0; last: none is there). "
            f"Holding {ENVS * ROWS} unlabeled steps; sampling waits here, the env reward is not "
            "used. See `rlhp status`, or raise reward.replicas."
        )
    assert asking.is_alive()
    start(1)
    asking.join(60)
    assert asking.version == 2


@pytest.mark.usefixtures("impatient")
def test_a_replica_that_knows_no_version_yet_is_waited_for(
    start: Start, run: str, caplog: pytest.LogCaptureFixture
) -> None:
    empty = start(0, kind="empty")
    asking = Asking(client(run).predict)
    with caplog.at_level(logging.WARNING, "rlhp.reward.client"):
        until(lambda: "last: NoRewardYet" in caplog.text)
    ray.get(empty.load.remote(weights(5).to_bytes()))
    asking.join(60)
    assert asking.version == 5


def test_a_replica_that_is_killed_in_mid_call_answers_after_its_restart(
    start: Start, run: str, tmp_path: Path
) -> None:
    flag = tmp_path / "die"
    flag.touch()
    start(0, restarts=-1, flag=str(flag))
    rewards, version = client(run).predict(*fragment())
    assert not flag.exists()
    assert version == 1
    assert np.isfinite(rewards).all()


def test_an_error_of_the_reward_model_itself_is_raised_at_once(start: Start, run: str) -> None:
    start(0, kind="diverged")
    with pytest.raises(
        RayTaskError, match="predicted rewards must be finite; reward version 1 gave 21 of 21"
    ) as raised:
        client(run).predict(*fragment())
    assert isinstance(raised.value, ValueError)


def test_scores_come_the_same_way(start: Start, run: str) -> None:
    start(0)
    obs, actions = fragment()
    scores, version = client(run).score(obs.reshape(-1, OBS), actions.reshape(-1, 2))
    assert (scores.shape, version) == ((2, ENVS * ROWS), 1)
