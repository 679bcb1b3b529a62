"""kill -9 at any moment of a serial run: what goes on is, number by number, the run
that was never killed.
"""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from rlhp import program
from rlhp.config.schema import RunConfig
from rlhp.errors import RlhpError
from rlhp.learn.checkpoint import Checkpoints
from rlhp.preferences import parts
from rlhp.preferences.dataset import PreferenceDataset
from rlhp.queue.embedded import EmbeddedRedis
from rlhp.queue.queue import QueryQueue
from rlhp.storage.metrics import read_metrics
from rlhp.storage.rundir import RunDir
from rlhp.types import comparison_id
from tests.environments import Contrary
from tests.program_parts import repeatable, run
from tests.small_runs import SMALL, small

pytestmark = pytest.mark.usefixtures("ray_session")

ROOT = Path(__file__).parent.parent
RUN: dict[str, Any] = {
    **SMALL,
    "labels": {**SMALL["labels"], "budget": 60},
    "learner": {**SMALL["learner"], "total_env_steps": 1800},
    "checkpoint": {"every_env_steps": 180},
}


def train(folder: Path, *, kill_when: Any = None, settings: dict[str, Any] = RUN) -> RunDir:
    """Run, or go on with, `folder/runs/small` in a process of its own; kill it once
    `kill_when(rundir)` holds.
    """
    path = folder / "runs" / "small"
    (folder / "small.yaml").write_text(yaml.dump({**settings, "runs_dir": str(folder / "runs")}))
    what = ["--resume", str(path)] if (path / "run.json").exists() else [str(folder / "small.yaml")]
    command = [sys.executable, "-m", "rlhp", "train", *what, "--serial"]
    with (folder / "output.txt").open("ab") as output:
        process = subprocess.Popen(
            command, cwd=ROOT, stdout=output, stderr=output, start_new_session=True
        )
        try:
            while process.poll() is None:
                if kill_when is not None and path.exists() and kill_when(path):
                    os.kill(process.pid, signal.SIGKILL)
                    break
                time.sleep(0.005)
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()
    if kill_when is None:
        assert process.returncode == 0, (folder / "output.txt").read_text()[-3000:]
    return RunDir.open(path)


def what_counts(rundir: RunDir) -> dict[str, Any]:
    """Everything that must be the same: metrics, weights, statistics, answers and what
    is known of the queue.
    """
    newest = Checkpoints(rundir.checkpoints, keep=9).newest()
    assert newest is not None
    policy = torch.load(newest / "policy.pt", weights_only=True)
    events = PreferenceDataset.open(rundir.path).events()
    return {
        "rows": repeatable(rundir),
        "policy": {name: value.numpy().tobytes() for name, value in policy["module"].items()},
        "events": [
            (row.query_id, row.first_id, row.second_id, row.answer, row.labeler) for row in events
        ],
        "reward": (sorted((rundir.path / "reward").glob("*.reward"))[-1]).read_bytes(),
    }


def rows_are(count: int) -> Callable[[Path], bool]:
    return lambda path: len(read_metrics(path / "metrics.jsonl")) >= count


@pytest.mark.slow
@pytest.mark.faults
@pytest.mark.timeout(600)
def test_a_killed_serial_run_goes_on_bit_for_bit(tmp_path: Path) -> None:
    calm, _ = run(RunConfig.model_validate({**RUN, "runs_dir": str(tmp_path / "calm")}))
    expected = what_counts(calm)
    for count in (8, 19):
        train(tmp_path, kill_when=rows_are(count))
    again = train(tmp_path)
    assert again.info().resumed == 2
    found = what_counts(again)
    for name, value in expected.items():
        assert found[name] == value, name
    assert again.undone_metrics_file.exists()
    steps = [row["env_steps"] for row in read_metrics(again.metrics_file)]
    assert steps == sorted(set(steps)), "no row of what was undone"


def longer(tmp_path: Path, **changes: Any) -> tuple[RunDir, RunDir]:
    """A run of 360 env steps without a learning-rate schedule, and one of 180 that is
    resumed to 360.
    """
    whole, half = (
        small(
            runs_dir=str(tmp_path / name),
            learner={"total_env_steps": steps, "lr_final": None},
            **changes,
        )
        for name, steps in (("whole", 360), ("half", 180))
    )
    first, _ = run(whole)
    second, _ = run(half)
    run(whole.model_copy(update={"runs_dir": half.runs_dir}), resume=second)
    return first, second


def test_the_control_arm_goes_on_in_the_middle_of_its_episodes_with_a_vector_environment_of_its_own(
    tmp_path: Path,
) -> None:
    first, second = longer(
        tmp_path, labels={"source": "none"}, env={"id": "CartPole-v1", "max_episode_steps": None}
    )
    assert repeatable(second) == repeatable(first)


def test_an_environment_that_cannot_be_brought_back_begins_its_episodes_anew_and_says_so(
    tmp_path: Path,
) -> None:
    _, second = longer(tmp_path, env={"kwargs": {"noise": 1.0}, "max_episode_steps": 17})
    said = second.log_file.read_text()
    assert (
        "episodes begin anew: the environments cannot be brought back, played again, environment "
        "0 comes out" in said
    )
    events = PreferenceDataset.open(second.path).events()
    assert len({comparison_id(row.candidate_ids) for row in events}) == len(events)


def test_an_answer_from_elsewhere_is_never_set_aside(tmp_path: Path) -> None:
    rundir, _ = run(small(runs_dir=str(tmp_path), learner={"total_env_steps": 180}))
    before = PreferenceDataset.open(rundir.path).events()
    dataset = PreferenceDataset.open(rundir.path)
    (extra,) = [dataclasses.replace(before[0], labeler="ann", how="extra", stream_id="9-9")]
    dataset.add_events([extra])
    run(small(runs_dir=str(tmp_path), learner={"total_env_steps": 240}), resume=rundir)
    assert "ann answered since the checkpoint: all is kept" in rundir.log_file.read_text()
    after = PreferenceDataset.open(rundir.path).events()
    assert after[: len(before) + 1] == [*before, extra]


def test_a_teacher_is_not_asked_again_what_it_answered_before_a_kill(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = small(runs_dir=str(tmp_path), checkpoint={"every_env_steps": 120, "keep": 9})
    rundir, _ = run(config)
    kept = {row.query_id: row.answer for row in PreferenceDataset.open(rundir.path).events()}
    for late in ("step-000000480", "step-000000360", "step-000000240"):
        shutil.rmtree(rundir.checkpoints / late)
    monkeypatch.setattr(program, "make_teacher", lambda *_, **__: Contrary())
    run(config, resume=rundir)
    assert {
        row.query_id: row.answer for row in PreferenceDataset.open(rundir.path).events()
    } == kept
    assert list((rundir.preferences / "set_aside" / "events").iterdir())


def test_answers_are_kept_where_the_configuration_was_changed(tmp_path: Path) -> None:
    rundir, _ = run(small(runs_dir=str(tmp_path), checkpoint={"every_env_steps": 120, "keep": 9}))
    before = PreferenceDataset.open(rundir.path).events()
    for late in ("step-000000480", "step-000000360", "step-000000240"):
        shutil.rmtree(rundir.checkpoints / late)
    run(small(runs_dir=str(tmp_path), learner={"total_env_steps": 300}), resume=rundir)
    assert re.search(
        r"the configuration changed: the \d+ answers since", rundir.log_file.read_text()
    )
    assert PreferenceDataset.open(rundir.path).events()[: len(before)] == before


def test_answers_are_kept_where_parts_were_merged_since_the_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = small(runs_dir=str(tmp_path), checkpoint={"every_env_steps": 120, "keep": 9})
    rundir, _ = run(config)
    before = PreferenceDataset.open(rundir.path).events()
    for late in ("step-000000480", "step-000000360", "step-000000240"):
        shutil.rmtree(rundir.checkpoints / late)
    monkeypatch.setattr(parts, "MERGED", 2)
    assert PreferenceDataset.open(rundir.path)._compact_events() != []
    run(config, resume=rundir)
    assert "were merged since the checkpoint: all answers are kept" in rundir.log_file.read_text()
    assert PreferenceDataset.open(rundir.path).events()[: len(before)] == before


def test_a_part_of_the_preferences_that_is_gone_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = small(runs_dir=str(tmp_path))
    rundir, _ = run(config)
    part = sorted((rundir.preferences / "events").glob("*.parquet"))[1]
    part.unlink()
    capsys.readouterr()
    run(config, resume=rundir)
    (line,) = [
        line for line in capsys.readouterr().out.splitlines() if f"events/{part.name}" in line
    ]
    assert line.startswith("warning: ")


def test_preferences_that_are_gone_are_not_asked_for_again(tmp_path: Path) -> None:
    config = small(runs_dir=str(tmp_path))
    rundir, summary = run(config)
    shutil.move(rundir.preferences, tmp_path / "elsewhere")
    with pytest.raises(
        RlhpError, match=rf"{summary.labels_answered} answers of this run"
    ) as caught:
        run(config, resume=rundir)
    assert str(rundir.preferences) in str(caught.value)
    assert not rundir.preferences.exists()
    shutil.move(tmp_path / "elsewhere", rundir.preferences)
    run(config, resume=rundir)


def test_a_queue_that_was_brought_back_knows_what_is_answered_on_disk(tmp_path: Path) -> None:
    rundir, _ = run(small(runs_dir=str(tmp_path), learner={"total_env_steps": 180}))
    for steps in (240, 300):
        run(small(runs_dir=str(tmp_path), learner={"total_env_steps": steps}), resume=rundir)
    said = rundir.log_file.read_text()
    assert said.count("back at ") == 2
    assert "older than the disk" not in said
    rows = PreferenceDataset.open(rundir.path).events()
    with EmbeddedRedis(rundir.redis) as server, QueryQueue(server.url, run=rundir.name) as queue:
        stats = queue.stats()
        assert (stats.admitted, stats.done) == (len(rows), len(rows))
