"""The serial program: the parts of a cluster in one process, repeatable, and a run that can be left and resumed."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch

from rlhp import program
from rlhp.config import RunConfig
from rlhp.labeling.worker import LabelerWorker
from rlhp.learn.checkpoint import Checkpoints
from rlhp.metrics import read_metrics
from rlhp.query.budget import LabelBudget
from rlhp.query.queue import QueryQueue
from rlhp.query.server import EmbeddedRedis
from rlhp.reward.dataset import PreferenceDataset
from rlhp.reward.store import RewardStore
from rlhp.rundir import RunDir
from rlhp.running.summary import Summary
from rlhp.types import pair_id
from tests.environments import ByObservation
from tests.query.parts import Meddler
from tests.small_runs import small

pytestmark = pytest.mark.usefixtures("ray_session")

ON_THE_CLOCK = {
    "wall_seconds", "env_steps_per_second", "labels/per_minute", "queue/oldest_age_seconds",
    "reward/label_wait_ms", "reward/label_us_per_step", "time/sample_seconds", "time/learn_seconds",
    "memory/learner_mb", "memory/env_runner_mb",
}  # fmt: skip
ENDLESS = {"total_env_steps": 10**7}


def run(config: RunConfig, *, resume: RunDir | None = None) -> tuple[RunDir, Summary]:
    """Train serially, in a new run directory or on in an old one."""
    rundir = resume or RunDir.create(config, "small")
    return rundir, program.train(config, rundir=rundir, resume=resume is not None, serial=True)


def rows(rundir: RunDir) -> list[dict[str, Any]]:
    return read_metrics(rundir.metrics_file)


def repeatable(rundir: RunDir) -> list[dict[str, Any]]:
    """The rows without what a clock decides."""
    return [{name: value for name, value in row.items() if name not in ON_THE_CLOCK} for row in rows(rundir)]


def newest(rundir: RunDir) -> Path:
    found = Checkpoints(rundir.checkpoints, keep=2).newest()
    assert found is not None
    return found


def policy(rundir: RunDir) -> dict[str, torch.Tensor]:
    weights: dict[str, torch.Tensor] = torch.load(newest(rundir) / "policy.pt", weights_only=True)["module"]
    return weights


def queue_of(rundir: RunDir) -> QueryQueue:
    url = rundir.redis_url()
    assert url is not None
    return QueryQueue(url, run=rundir.name)


class Meanwhile:
    """What a person does beside a run in the main thread; its first failure ends the run and fails the test."""

    def __init__(self, act: Callable[[Meanwhile], None]) -> None:
        self.over = threading.Event()
        self.error: BaseException | None = None
        self._act = act
        self._thread = threading.Thread(target=self._run, name="meanwhile", daemon=True)

    def until(self, holds: Callable[[], object], *, seconds: float = 60.0) -> None:
        """Waits for what the run brings about."""
        for _ in range(int(seconds / 0.05)):
            if holds():
                return
            assert not self.over.wait(0.05), "the run ended first"
        raise AssertionError("waited in vain")

    def _run(self) -> None:
        try:
            self._act(self)
        except BaseException as error:
            self.error = error
        finally:
            if not self.over.is_set():
                os.kill(os.getpid(), signal.SIGINT)

    def __enter__(self) -> Meanwhile:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self._thread.join(30)
        if self.error is not None:
            raise self.error


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunDir, Summary]:
    """One small run, trained to its end."""
    return run(small(runs_dir=str(tmp_path_factory.mktemp("first"))))


def test_a_run_reaches_its_end_with_every_label_and_a_policy(finished: tuple[RunDir, Summary]) -> None:
    rundir, summary = finished
    assert summary.env_steps == 480
    assert (summary.labels_asked, summary.labels_answered) == (20, 20)
    assert summary.reward_version > 3
    assert not summary.interrupted
    assert rundir.info().state == "finished"
    assert json.loads((rundir.path / "summary.json").read_text())["true_return"] == summary.true_return
    assert [Path(plot).exists() for plot in summary.plots] == [True] * len(summary.plots)
    assert Checkpoints.counters(newest(rundir))["env_steps"] == 480
    played = program.evaluate(rundir, episodes=2, explore=False, seed=1_000_003)
    assert played["true_return_mean"] == pytest.approx(summary.true_return)


def test_labels_follow_the_schedule_and_versions_only_grow(finished: tuple[RunDir, Summary]) -> None:
    history = rows(finished[0])
    for row in history:
        assert row["labels/answered"] <= row["labels/asked"] <= row["labels/allowed"] <= 20
    versions = [row["reward/version"] for row in history]
    assert versions == sorted(versions)
    assert [row["phase"] for row in history] == ["warm-up"] + 7 * ["learning"]
    steps = [row["env_steps"] for row in history]
    assert steps == list(range(60, 481, 60)), "every step taken is counted, those of the warm-up included"


def test_every_metric_of_a_run_is_in_the_table(finished: tuple[RunDir, Summary]) -> None:
    assert "is in no table" not in finished[0].log_file.read_text()


def test_segments_know_how_far_the_run_and_the_policy_were(finished: tuple[RunDir, Summary]) -> None:
    dataset = PreferenceDataset.open(finished[0].path)
    for segment in dataset.segments(dataset.segment_ids()):
        assert (segment.reward_version is None) == (segment.env_steps == 0)
        if segment.reward_version is not None:
            assert segment.env_steps == 60 * segment.reward_version
            assert segment.policy_version == segment.reward_version - 1


def test_twice_the_same_seed_and_name_is_twice_the_same_run(finished: tuple[RunDir, Summary], tmp_path: Path) -> None:
    again, _ = run(small(runs_dir=str(tmp_path)))
    assert repeatable(again) == repeatable(finished[0])
    for name, value in policy(again).items():
        assert torch.equal(value, policy(finished[0])[name]), name
    events = [
        [(row.query_id, row.first_id, row.second_id, row.answer) for row in PreferenceDataset.open(each.path).events()]
        for each in (finished[0], again)
    ]
    assert events[0] == events[1]


def test_another_seed_is_another_run(finished: tuple[RunDir, Summary], tmp_path: Path) -> None:
    other, _ = run(small(runs_dir=str(tmp_path), seed=1, learner={"total_env_steps": 120}))
    assert repeatable(other)[1] != repeatable(finished[0])[1]
    ours, theirs = (PreferenceDataset.open(each.path).segment_ids() for each in (finished[0], other))
    names = [{segment.obs[""].tobytes() for segment in PreferenceDataset.open(each.path).segments(ids)}
             for each, ids in ((finished[0], ours), (other, theirs))]  # fmt: skip
    assert names[0].isdisjoint(names[1])


def test_saving_and_evaluating_on_the_way_changes_no_number(finished: tuple[RunDir, Summary], tmp_path: Path) -> None:
    config = small(
        runs_dir=str(tmp_path),
        evaluation={"every_env_steps": 120, "explore": True},
        checkpoint={"every_env_steps": 120, "keep": 2, "keep_best": False},
    )
    rundir, _ = run(config)
    evaluated = [row for row in repeatable(rundir) if "eval/episode_return_mean" in row]
    assert [row["env_steps"] for row in evaluated] == [120, 240, 360, 480]
    bare = [{name: value for name, value in row.items() if not name.startswith("eval/")} for row in repeatable(rundir)]
    assert bare == repeatable(finished[0])
    assert sorted(path.name for path in rundir.checkpoints.iterdir()) == ["step-000000360", "step-000000480"]
    for name, value in policy(rundir).items():
        assert torch.equal(value, policy(finished[0])[name]), name


SPACES: dict[str, dict[str, Any]] = {
    "discrete from two": {"kwargs": {"discrete": True}},
    "dict and multi-discrete": {"id": "tests.environments:TwoWheels"},
    "own vector environment": {"id": "CartPole-v1"},
}


@pytest.mark.parametrize("name", SPACES)
def test_every_kind_of_space_is_learned_asked_about_and_saved(name: str, tmp_path: Path) -> None:
    config = small(
        runs_dir=str(tmp_path),
        env=SPACES[name],
        labels={"teacher": {"name": "oracle"}},
        learner={"total_env_steps": 130},
    )
    rundir, summary = run(config)
    assert summary.reward_version >= 2
    assert summary.labels_answered > 5
    assert rows(rundir)[-1]["learner/entropy"] is not None
    assert (
        program.evaluate(rundir, episodes=2, explore=False, seed=1_000_003)["true_return_mean"] == summary.true_return
    )


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
    assert (again.reward_version, again.labels_answered) == (summary.reward_version, summary.labels_answered)
    assert rundir.info().resumed == 1


def test_a_resumed_run_goes_on_with_its_steps_labels_and_versions(tmp_path: Path) -> None:
    config = small(runs_dir=str(tmp_path), labels={"budget": 12}, learner={"total_env_steps": 300})
    rundir, first = run(config)
    asked = PreferenceDataset.open(rundir.path)
    contents = {segment.id: segment.obs[""].tobytes() for segment in asked.segments(asked.segment_ids())}
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
        assert row["labels/allowed"] == schedule.allowed(row["env_steps"] - warmup_steps), "it knows its warm-up still"
    versions = [row["reward/version"] for row in history]
    assert versions == sorted(versions)

    dataset = PreferenceDataset.open(rundir.path)
    events = dataset.events()
    assert len(events) == len({row.query_id for row in events}) == second.labels_answered
    assert len({pair_id((row.first_id, row.second_id)) for row in events}) == len(events)
    assert all(dataset.segment(id_).obs[""].tobytes() == obs for id_, obs in contents.items())
    later = [segment for segment in dataset.segments(dataset.segment_ids()) if segment.env_steps >= first.env_steps]
    assert later
    assert {segment.episode for segment in later}.isdisjoint({row.episode for row in asked.segments(contents)})
    assert {segment.obs[""].tobytes() for segment in later}.isdisjoint(contents.values()), "nothing is played again"


def test_a_run_may_start_from_the_answers_of_another(finished: tuple[RunDir, Summary], tmp_path: Path) -> None:
    config = small(
        name="heir",
        runs_dir=str(tmp_path),
        labels={"budget": 0, "reuse": str(finished[0].path)},
        learner={"total_env_steps": 120},
    )
    rundir, summary = run(config)
    counts = PreferenceDataset.open(rundir.path).counts()
    assert (counts["reused"], counts["answers"]) == (20, 20)
    assert (summary.labels_asked, summary.labels_answered) == (0, 0)
    assert summary.reward_version >= 1
    assert rows(rundir)[-1]["phase"] == "learning"


def test_the_control_arm_needs_no_queue_and_has_no_reward_model(tmp_path: Path) -> None:
    rundir, summary = run(small(runs_dir=str(tmp_path), labels={"source": "none"}, learner={"total_env_steps": 180}))
    assert summary.env_steps == 180
    assert not rundir.redis.exists()
    assert rundir.redis_url() is None
    assert not rundir.preferences.exists()
    history = rows(rundir)
    assert [row["phase"] for row in history] == 3 * ["learning"]
    assert not any(name.startswith(("labels/", "reward/", "queue/")) for row in history for name in row)
    assert "predicted_return_mean" not in history[-1]
    assert "env_runners/episode_return_mean" in history[-1]


def test_a_teacher_that_skips_queries_does_not_keep_the_run_in_its_warm_up(tmp_path: Path) -> None:
    config = small(
        runs_dir=str(tmp_path),
        labels={"teacher": {"name": "tests.environments:Picky"}},
        learner={"total_env_steps": 120},
    )
    rundir, summary = run(config)
    counts = PreferenceDataset.open(rundir.path).counts()
    assert counts["drops"] > 5, "one labeler is all there is, so what it skips is dropped and another is asked instead"
    assert summary.labels_asked == summary.labels_answered == counts["answers"] == 20
    assert rows(rundir)[-1]["phase"] == "learning"


def human(path: Path) -> RunConfig:
    # A point in the plane cannot be drawn; the drawn way is in tests/running/test_film.py.
    return small(runs_dir=str(path), labels={"source": "human"}, clips={"enabled": False}, learner=ENDLESS)


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
                return rundir.info().resumed == 1 and queue_of(rundir).state not in ("closed", "missing")
            return False

        meanwhile.until(is_open)
        stop = threading.Event()
        worker = LabelerWorker(queue_of(rundir), ByObservation(), name="ann", kind="human")
        thread = threading.Thread(target=worker.run, args=(stop,))
        thread.start()
        try:
            meanwhile.until(lambda: rows(rundir)[-1]["phase"] == "learning" and rows(rundir)[-1]["reward/version"] >= 2)
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
    assert len({pair_id((row.first_id, row.second_id)) for row in events}) == len(events)


def test_ctrl_c_while_learning_saves_and_evaluates(tmp_path: Path) -> None:
    config = small(runs_dir=str(tmp_path), learner=ENDLESS)
    rundir = RunDir.create(config, "small")
    with Meanwhile(lambda meanwhile: meanwhile.until(lambda: len(rows(rundir)) >= 3)):
        summary = program.train(config, rundir=rundir, serial=True)
    assert summary.interrupted
    assert rundir.info().state == "interrupted"
    assert summary.env_steps == rows(rundir)[-1]["env_steps"] == Checkpoints.counters(newest(rundir))["env_steps"]
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
    assert "no checkpoint yet: the policy starts anew, with all answers given so far" in capsys.readouterr().out
    assert second.env_steps == 120
    assert min(row.get("reward/staleness_steps", 0) for row in rows(rundir)) == 0, "the reward is ahead of the policy"
    assert second.labels_answered >= first.labels_answered
    assert second.reward_version >= first.reward_version
    dataset = PreferenceDataset.open(rundir.path)
    segments = dataset.segments(dataset.segment_ids())
    assert len({segment.obs[""].tobytes() for segment in segments}) == len(segments)


def test_a_redis_of_ones_own_that_comes_back_empty_ends_the_run_in_a_line_and_a_resume_goes_on(tmp_path: Path) -> None:
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
        with pytest.raises(ValueError, match=r"run small is not at .*: it was never opened there, or the server lost"):
            program.train(config, rundir=rundir, serial=True)
        thread.join()
        assert "go on with rlhp train --resume" in str(rundir.info().error)
        before = PreferenceDataset.open(rundir.path).counts()["answers"]
        assert 5 <= before <= 20

        ending = small(runs_dir=str(tmp_path), redis={"url": server.url}, learner={"total_env_steps": 240})
        _, summary = run(ending, resume=rundir)
        assert summary.env_steps == 240
        events = PreferenceDataset.open(rundir.path).events()
        assert len({pair_id((row.first_id, row.second_id)) for row in events}) == len(events) <= 20
        assert before <= summary.labels_answered <= 20
