"""The serial program: the parts of a cluster in one process, repeatable, whoever
answers and in whatever space.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from rlhp import program
from rlhp.learn.checkpoint import Checkpoints
from rlhp.preferences.dataset import PreferenceDataset
from rlhp.run.summary import Summary
from rlhp.storage.rundir import RunDir
from tests.program_parts import newest, policy, repeatable, rows, run
from tests.small_runs import small

pytestmark = pytest.mark.usefixtures("ray_session")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunDir, Summary]:
    """One small run, trained to its end."""
    return run(small(runs_dir=str(tmp_path_factory.mktemp("first"))))


def test_a_run_reaches_its_end_with_every_label_and_a_policy(
    finished: tuple[RunDir, Summary],
) -> None:
    rundir, summary = finished
    assert summary.env_steps == 480
    assert (summary.labels_asked, summary.labels_answered) == (20, 20)
    assert summary.reward_version > 3
    assert not summary.interrupted
    assert rundir.info().state == "finished"
    assert (
        json.loads((rundir.path / "summary.json").read_text())["true_return"] == summary.true_return
    )
    assert [Path(plot).exists() for plot in summary.plots] == [True] * len(summary.plots)
    assert Checkpoints.counters(newest(rundir))["env_steps"] == 480
    played = program.evaluate(rundir, episodes=2, explore=False, seed=1_000_003)
    assert played["true_return_mean"] == pytest.approx(summary.true_return)


def test_labels_follow_the_schedule_and_versions_only_grow(
    finished: tuple[RunDir, Summary],
) -> None:
    history = rows(finished[0])
    for row in history:
        assert row["labels/answered"] <= row["labels/asked"] <= row["labels/allowed"] <= 20
    versions = [row["reward/version"] for row in history]
    assert versions == sorted(versions)
    assert [row["phase"] for row in history] == ["warm-up"] + 7 * ["learning"]
    steps = [row["env_steps"] for row in history]
    assert steps == list(range(60, 481, 60)), (
        "every step taken is counted, those of the warm-up included"
    )


def test_every_metric_of_a_run_is_in_the_table(finished: tuple[RunDir, Summary]) -> None:
    assert "is in no table" not in finished[0].log_file.read_text()


def test_segments_know_how_far_the_run_and_the_policy_were(
    finished: tuple[RunDir, Summary],
) -> None:
    dataset = PreferenceDataset.open(finished[0].path)
    for segment in dataset.segments(dataset.segment_ids()):
        assert (segment.reward_version is None) == (segment.env_steps == 0)
        if segment.reward_version is not None:
            assert segment.env_steps == 60 * segment.reward_version
            assert segment.policy_version == segment.reward_version - 1


def test_twice_the_same_seed_and_name_is_twice_the_same_run(
    finished: tuple[RunDir, Summary], tmp_path: Path
) -> None:
    again, _ = run(small(runs_dir=str(tmp_path)))
    assert repeatable(again) == repeatable(finished[0])
    for name, value in policy(again).items():
        assert torch.equal(value, policy(finished[0])[name]), name
    events = [
        [
            (row.query_id, row.first_id, row.second_id, row.answer)
            for row in PreferenceDataset.open(each.path).events()
        ]
        for each in (finished[0], again)
    ]
    assert events[0] == events[1]


def test_another_seed_is_another_run(finished: tuple[RunDir, Summary], tmp_path: Path) -> None:
    other, _ = run(small(runs_dir=str(tmp_path), seed=1, learner={"total_env_steps": 120}))
    assert repeatable(other)[1] != repeatable(finished[0])[1]
    ours, theirs = (
        PreferenceDataset.open(each.path).segment_ids() for each in (finished[0], other)
    )
    names = [
        {segment.obs[""].tobytes() for segment in PreferenceDataset.open(each.path).segments(ids)}
        for each, ids in ((finished[0], ours), (other, theirs))
    ]
    assert names[0].isdisjoint(names[1])


def test_saving_and_evaluating_on_the_way_changes_no_number(
    finished: tuple[RunDir, Summary], tmp_path: Path
) -> None:
    config = small(
        runs_dir=str(tmp_path),
        evaluation={"every_env_steps": 120, "explore": True},
        checkpoint={"every_env_steps": 120, "keep": 2, "keep_best": False},
    )
    rundir, _ = run(config)
    evaluated = [row for row in repeatable(rundir) if "eval/episode_return_mean" in row]
    assert [row["env_steps"] for row in evaluated] == [120, 240, 360, 480]
    bare = [
        {name: value for name, value in row.items() if not name.startswith("eval/")}
        for row in repeatable(rundir)
    ]
    assert bare == repeatable(finished[0])
    assert sorted(path.name for path in rundir.checkpoints.iterdir()) == [
        "step-000000360",
        "step-000000480",
    ]
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
        program.evaluate(rundir, episodes=2, explore=False, seed=1_000_003)["true_return_mean"]
        == summary.true_return
    )


def test_a_run_may_start_from_the_answers_of_another(
    finished: tuple[RunDir, Summary], tmp_path: Path
) -> None:
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
    rundir, summary = run(
        small(runs_dir=str(tmp_path), labels={"source": "none"}, learner={"total_env_steps": 180})
    )
    assert summary.env_steps == 180
    assert not rundir.redis.exists()
    assert rundir.redis_url() is None
    assert not rundir.preferences.exists()
    history = rows(rundir)
    assert [row["phase"] for row in history] == 3 * ["learning"]
    assert not any(
        name.startswith(("labels/", "reward/", "queue/")) for row in history for name in row
    )
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
    assert counts["drops"] > 5, (
        "one labeler is all there is, so what it skips is dropped and another is asked instead"
    )
    assert summary.labels_asked == summary.labels_answered == counts["answers"] == 20
    assert rows(rundir)[-1]["phase"] == "learning"


def test_without_env_runners_the_other_roles_are_processes_all_the_same(tmp_path: Path) -> None:
    config = small(runs_dir=str(tmp_path))
    assert config.rollout.num_env_runners == 0
    rundir = RunDir.create(config, "small")
    summary = program.train(config, rundir=rundir, serial=False)
    assert summary.env_steps == 480
    assert summary.reward_version >= 1
    assert summary.labels_answered == summary.labels_asked > 0
    stored = PreferenceDataset.open(rundir.path).counts()["answers"]
    # over before any role has said a word
    again = program.train(config, rundir=rundir, resume=True, serial=False)
    assert (again.labels_answered, again.labels_asked) == (stored, stored)
    assert again.reward_version >= summary.reward_version
