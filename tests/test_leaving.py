"""Serial runs that end early, whatever ended them, and what goes on when they are
resumed.
"""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest
import torch

from rlhp import program
from rlhp.config.schema import RunConfig
from rlhp.labeling.worker import LabelerWorker
from rlhp.learn.checkpoint import Checkpoints
from rlhp.preferences.dataset import PreferenceDataset
from rlhp.query.schedule import LabelBudget
from rlhp.queue.embedded import EmbeddedRedis
from rlhp.reward.versions import RewardStore
from rlhp.storage.rundir import RunDir
from rlhp.types import comparison_id
from tests.environments import ByObservation
from tests.program_parts import ENDLESS, Meanwhile, newest, policy, queue_of, rows, run
from tests.queue.parts import Meddler
from tests.small_runs import small

pytestmark = pytest.mark.usefixtures("ray_session")


def test_resuming_a_finished_run_changes_nothing(tmp_path: Path) -> None:
    config = small(runs_dir=str(tmp_path), learner={"total_env_steps": 240})
    rundir, summary = run(config)
    before, counters = policy(rundir), Checkpoints.counters(newest(rundir))
    _, again = run(config, resume=rundir)
    after = Checkpoints.counters(newest(rundir))
    of_the_clock = {"wall_seconds": 0, "files": {}, "metrics_bytes": 0}
    assert {**after, **of_the_clock} == {**counters, **of_the_clock}
    assert after["wall_seconds"] >= counters["wall_seconds"]
    for name, value in before.items():
        assert torch.equal(value, policy(rundir)[name]), name
    assert again.true_return == summary.true_return
    assert (again.reward_version, again.labels_answered) == (
        summary.reward_version,
        summary.labels_answered,
    )
    assert rundir.info().resumed == 1


def test_a_resumed_run_goes_on_with_its_steps_labels_and_versions(tmp_path: Path) -> None:
    config = small(runs_dir=str(tmp_path), labels={"budget": 12}, learner={"total_env_steps": 300})
    rundir, first = run(config)
    asked = PreferenceDataset.open(rundir.path)
    contents = {
        segment.id: segment.obs[""].tobytes() for segment in asked.segments(asked.segment_ids())
    }
    assert first.labels_asked == 12

    longer = small(runs_dir=str(tmp_path), labels={"budget": 20}, learner={"total_env_steps": 600})
    _, second = run(longer, resume=rundir)
    assert 600 <= second.env_steps < 660
    assert 12 < second.labels_asked <= 20
    assert second.reward_version > first.reward_version
    history = rows(rundir)
    assert [row["env_steps"] for row in history] == sorted(row["env_steps"] for row in history)
    learned = [row for row in history if row["phase"] == "learning"]
    assert [row["iteration"] for row in learned] == list(range(1, 11))
    warmup_steps = Checkpoints.counters(newest(rundir))["warmup_steps"]
    assert warmup_steps == max(row["env_steps"] for row in history if row["phase"] == "warm-up")
    schedule = LabelBudget(longer.labels, 600 - warmup_steps)
    for row in learned[5:]:
        assert row["labels/allowed"] == schedule.allowed(row["env_steps"] - warmup_steps), (
            "it knows its warm-up still"
        )
    versions = [row["reward/version"] for row in history]
    assert versions == sorted(versions)

    dataset = PreferenceDataset.open(rundir.path)
    events = dataset.events()
    assert len(events) == len({row.query_id for row in events}) == second.labels_answered
    assert len({comparison_id(row.candidate_ids) for row in events}) == len(events)
    assert all(dataset.segment(id_).obs[""].tobytes() == obs for id_, obs in contents.items())
    later = [
        segment
        for segment in dataset.segments(dataset.segment_ids())
        if segment.env_steps >= first.env_steps
    ]
    assert later
    assert {segment.episode for segment in later}.isdisjoint(
        {row.episode for row in asked.segments(contents)}
    )
    assert {segment.obs[""].tobytes() for segment in later}.isdisjoint(contents.values()), (
        "nothing is played again"
    )


def human(path: Path) -> RunConfig:
    # A point in the plane cannot be drawn; the drawn way is in
    # tests/run/test_videos.py.
    return small(
        runs_dir=str(path), labels={"source": "human"}, clips={"enabled": False}, learner=ENDLESS
    )


def test_without_an_answer_a_run_waits_and_ctrl_c_leaves_it_resumable(tmp_path: Path) -> None:
    config = human(tmp_path)
    rundir = RunDir.create(config, "small")

    def interrupt(meanwhile: Meanwhile) -> None:
        meanwhile.until(lambda: rundir.redis_url() is not None)
        queue = queue_of(rundir)
        meanwhile.until(lambda: queue.state != "missing" and queue.stats().pending == 5)
        assert not meanwhile.over.wait(0.5)
        assert queue.stats().asked == 5

    with Meanwhile(interrupt):
        summary = program.train(config, rundir=rundir, serial=True)
    assert summary.interrupted
    assert rundir.info().state == "interrupted"
    assert (summary.labels_asked, summary.labels_answered, summary.reward_version) == (5, 0, 0)
    assert {row["phase"] for row in rows(rundir)} == {"warm-up"}
    assert summary.env_steps == 60, "a run that waits for people takes no more steps"
    segments = PreferenceDataset.open(rundir.path)
    assert all(segment.env_reward is None for segment in segments.segments(segments.segment_ids()))
    assert Checkpoints.counters(newest(rundir))["learning"] is False

    def answer(meanwhile: Meanwhile) -> None:
        def is_open() -> bool:
            with suppress(ConnectionError):  # the server is being started
                return rundir.info().resumed == 1 and queue_of(rundir).state not in (
                    "closed",
                    "missing",
                )
            return False

        meanwhile.until(is_open)
        stop = threading.Event()
        worker = LabelerWorker(queue_of(rundir), ByObservation(), name="ann", kind="human")
        thread = threading.Thread(target=worker.run, args=(stop,))
        thread.start()
        try:
            meanwhile.until(
                lambda: (
                    rows(rundir)[-1]["phase"] == "learning"
                    and rows(rundir)[-1]["reward/version"] >= 2
                )
            )
        finally:
            stop.set()
            thread.join()

    with Meanwhile(answer):
        summary = program.train(config, rundir=rundir, resume=True, serial=True)
    assert summary.interrupted
    assert summary.labels_answered >= 5
    assert summary.env_steps > 180
    events = PreferenceDataset.open(rundir.path).events()
    assert {row.labeler for row in events} == {"ann"}
    assert len({comparison_id(row.candidate_ids) for row in events}) == len(events)


def test_ctrl_c_while_learning_saves_and_evaluates(tmp_path: Path) -> None:
    config = small(runs_dir=str(tmp_path), learner=ENDLESS)
    rundir = RunDir.create(config, "small")
    with Meanwhile(lambda meanwhile: meanwhile.until(lambda: len(rows(rundir)) >= 3)):
        summary = program.train(config, rundir=rundir, serial=True)
    assert summary.interrupted
    assert rundir.info().state == "interrupted"
    assert (
        summary.env_steps
        == rows(rundir)[-1]["env_steps"]
        == Checkpoints.counters(newest(rundir))["env_steps"]
    )
    assert str(summary).splitlines()[-1] == f"continue with: rlhp train --resume {rundir.path}"
    store = RewardStore(rundir.path / "reward").newest()
    assert store is not None
    assert store.version == summary.reward_version


def test_a_run_without_a_checkpoint_says_so_and_begins_anew_with_its_answers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = small(runs_dir=str(tmp_path), learner={"total_env_steps": 120})
    rundir, first = run(config)
    for path in rundir.checkpoints.iterdir():
        path.rename(rundir.path / path.name)
    capsys.readouterr()
    _, second = run(config, resume=rundir)
    assert (
        "no checkpoint yet: the policy starts anew, with all answers given so far"
        in capsys.readouterr().out
    )
    assert second.env_steps == 120
    assert min(row.get("reward/staleness_steps", 0) for row in rows(rundir)) == 0, (
        "the reward is ahead of the policy"
    )
    assert second.labels_answered >= first.labels_answered
    assert second.reward_version >= first.reward_version
    dataset = PreferenceDataset.open(rundir.path)
    segments = dataset.segments(dataset.segment_ids())
    assert len({segment.obs[""].tobytes() for segment in segments}) == len(segments)


def test_a_redis_of_ones_own_that_comes_back_empty_ends_the_run_in_a_line_and_a_resume_goes_on(
    tmp_path: Path,
) -> None:
    with EmbeddedRedis(tmp_path / "elsewhere") as server:
        config = small(runs_dir=str(tmp_path), redis={"url": server.url}, learner=ENDLESS)
        rundir = RunDir.create(config, "small")

        def forget() -> None:
            while len(rows(rundir)) < 4:
                time.sleep(0.02)
            meddler = Meddler(queue_of(rundir))
            meddler.redis.flushall()
            meddler.close()

        thread = threading.Thread(target=forget)
        thread.start()
        with pytest.raises(
            ValueError,
            match=r"run small is not at .*: it was never opened there, or the server lost",
        ):
            program.train(config, rundir=rundir, serial=True)
        thread.join()
        assert "go on with rlhp train --resume" in str(rundir.info().error)
        before = PreferenceDataset.open(rundir.path).counts()["answers"]
        assert 5 <= before <= 20

        ending = small(
            runs_dir=str(tmp_path), redis={"url": server.url}, learner={"total_env_steps": 240}
        )
        _, summary = run(ending, resume=rundir)
        assert summary.env_steps == 240
        events = PreferenceDataset.open(rundir.path).events()
        assert len({comparison_id(row.candidate_ids) for row in events}) == len(events) <= 20
        assert before <= summary.labels_answered <= 20
