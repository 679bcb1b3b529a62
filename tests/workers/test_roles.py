"""The roles as processes, built from a run directory alone."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray

from rlhp.preferences.dataset import PreferenceDataset
from rlhp.queue.queue import QueryQueue
from rlhp.reward.versions import RewardStore
from rlhp.storage.rundir import RunDir
from rlhp.workers.roles import QueryActorProcess, RewardModelProcess, RewardTrainerProcess
from tests.labeling.parts import until
from tests.preferences.dataset_samples import segment
from tests.reward.versions import fragment, weights
from tests.run.parts import answer, ask, run_in

pytestmark = pytest.mark.usefixtures("ray_session")


@pytest.fixture(autouse=True)
def niceness(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """What the roles asked of the system; here they are in pytest's own process, which
    would stay slow for good.
    """
    asked: list[int] = []
    monkeypatch.setattr(os, "nice", asked.append)
    return asked


@pytest.fixture
def run(redis_url: str, tmp_path: Path) -> Iterator[tuple[RunDir, QueryQueue]]:
    root = logging.getLogger("rlhp")
    before, level = list(root.handlers), root.level
    yield run_in(tmp_path, redis_url, labels={"initial_share": 0.2})
    # a process would take them with it
    for handler in [each for each in root.handlers if each not in before]:
        root.removeHandler(handler)
        handler.close()
    root.setLevel(level)


def test_a_replica_comes_up_with_the_newest_version_and_says_so_in_the_log(
    run: tuple[RunDir, QueryQueue],
) -> None:
    rundir, _ = run
    store = RewardStore(rundir.path / "reward")
    for version in (1, 2):
        store.save(weights(version), trainer_state=b"")
    spaces = PreferenceDataset.open(rundir.preferences).spaces
    replica = RewardModelProcess(rundir.name, 0, spaces=spaces, device="cpu", path=str(rundir.path))
    assert replica.predict(*fragment())[1] == 2
    assert replica.status().pid == os.getpid()
    assert (
        f"reward_model_0[{os.getpid()}] INFO reward_model_0 starts" in rundir.log_file.read_text()
    )


def test_a_query_actor_asks_by_itself(run: tuple[RunDir, QueryQueue], niceness: list[int]) -> None:
    rundir, queue = run
    actor = QueryActorProcess(str(rundir.path))
    assert niceness == [10], "it gives way to env runners and the learner"
    actor.offer([segment(number) for number in range(10)])
    until(lambda: queue.stats().asked == 4)
    status = actor.status()
    assert (status.pool, status.fatal, status.waiting_for) == (10, None, None)
    recent = actor.recent(7)
    assert recent is not None
    assert len(recent[0]) == 7
    assert actor._background.stop()


def test_a_reward_trainer_fits_nothing_before_it_knows_how_far_the_run_is(
    run: tuple[RunDir, QueryQueue],
) -> None:
    rundir, queue = run
    ask(rundir, queue, 5)
    answer(queue, 5)
    trainer = RewardTrainerProcess(str(rundir.path))
    assert trainer.status().answered == 0
    trainer.progress(100)
    until(lambda: trainer.status().answered == 5)
    status = trainer.status()
    assert (status.version, status.fatal) == (0, None), "no query actor knows any transitions"
    trainer.finish()


def test_the_last_answers_are_on_disk_when_a_reward_trainer_has_finished(
    run: tuple[RunDir, QueryQueue],
) -> None:
    rundir, queue = run
    ask(rundir, queue, 5)
    trainer = RewardTrainerProcess(str(rundir.path))
    answer(queue, 5)
    trainer.finish()
    assert PreferenceDataset.open(rundir.preferences).counts()["answers"] == 5
    assert queue.stats().backlog == 0


def test_answers_given_while_the_reward_trainer_is_dead_wait_and_are_used(
    run: tuple[RunDir, QueryQueue],
) -> None:
    rundir, queue = run
    ask(rundir, queue, 6)
    answer(queue, 3)
    first = ray.remote(num_cpus=0)(RewardTrainerProcess).remote(str(rundir.path))
    ray.get(first.progress.remote(100))
    until(lambda: ray.get(first.status.remote()).answered == 3)
    os.kill(ray.get(first.status.remote()).pid, signal.SIGKILL)
    answer(queue, 3)
    assert queue.stats().backlog == 3

    second = RewardTrainerProcess(str(rundir.path))
    second.progress(100)
    until(lambda: second.status().answered == 6)
    second.finish()
    assert queue.stats().backlog == 0
    assert [row.event for row in PreferenceDataset.open(rundir.preferences).events()] == 6 * [
        "answer"
    ]
