"""Starts that cannot work: one line says why and what to do, the exit code is 2, and
nothing was overwritten.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from rlhp.preferences.dataset import PreferenceDataset
from rlhp.storage.rundir import RunDir
from tests.preferences.dataset_samples import PLAIN, header, segment, the_part
from tests.small_runs import SMALL, small

ROOT = Path(__file__).parent.parent


def train(*arguments: str) -> tuple[int, list[str]]:
    """Exit code and error lines of `rlhp train`; there is never a traceback."""
    command = [sys.executable, "-m", "rlhp", "train", *arguments]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120
    )
    assert "Traceback" not in done.stderr + done.stdout
    return done.returncode, [
        line for line in done.stderr.splitlines() if line.startswith("error: ")
    ]


def refused(folder: Path, *sets: str, **changes: Any) -> str:
    """The one line about this configuration."""
    file = folder / "bad.yaml"
    file.write_text(yaml.dump({**SMALL, "runs_dir": str(folder / "runs"), **changes}))
    code, errors = train(str(file), *(word for each in sets for word in ("--set", each)))
    assert code == 2
    (line,) = errors
    return line


def created(folder: Path) -> RunDir:
    """A run that was created, and not started yet."""
    return RunDir.create(small(runs_dir=str(folder), name="old"), "small")


def test_a_redis_that_nobody_answers_at(tmp_path: Path) -> None:
    sets = ["redis.url=redis://:secret@127.0.0.1:1/0", "redis.connect_timeout_seconds=0.5"]
    line = refused(tmp_path, *sets)
    assert line.startswith("error: ping: no service from Redis at redis://127.0.0.1:1/0: Error 111")
    assert line.endswith("check that the server runs and can be reached from here, then try again")
    info = RunDir.open(tmp_path / "runs" / "small").info()
    assert info.state == "failed"
    assert "secret" not in json.dumps(info.error)


def test_an_address_that_is_none(tmp_path: Path) -> None:
    line = refused(tmp_path, "redis.url=127.0.0.1:6379")
    assert line.startswith("error: ")
    assert (
        "a Redis address starts with redis://, rediss:// or unix://, as in redis://127.0.0.1:6379/0"
        in line
    )


def test_a_setting_that_rllib_does_not_have(tmp_path: Path) -> None:
    line = refused(tmp_path, "learner.rllib.grad_clip_bye=norm")
    assert line == (
        "error: learner.rllib.grad_clip_bye: PPOConfig of RLlib has no such setting; did you mean "
        "grad_clip_by?"
    )


def test_a_setting_of_rllib_that_is_ours(tmp_path: Path) -> None:
    line = refused(tmp_path, "learner.rllib.gamma=0.9")
    assert line == "error: learner.rllib.gamma: say it as learner.gamma, not twice"


def test_a_segment_longer_than_any_episode(tmp_path: Path) -> None:
    line = refused(tmp_path, "query.segment_length=21")
    assert "query.segment_length=21 is longer than any episode (env.max_episode_steps=20)" in line
    line = refused(tmp_path, "query.segment_length=201", env={"id": "Pendulum-v1"})
    assert line == (
        "error: query.segment_length=201 is longer than any episode of Pendulum-v1 (200 steps), "
        "so no full segment could ever be cut; shorten the segment"
    )


def test_a_budget_that_leaves_nothing_for_version_1(tmp_path: Path) -> None:
    line = refused(tmp_path, "labels.budget=2", "labels.initial_share=0")
    assert (
        "labels.initial_share=0.0 asks nothing before learning, so reward version 1 could never"
        in line
    )


def test_a_teacher_that_cannot_be_imported(tmp_path: Path) -> None:
    line = refused(tmp_path, "labels.teacher.name=no_such_module:Teacher")
    assert "no_such_module" in line
    assert "No module named 'no_such_module'" in line


def test_a_selection_that_cannot_be_imported(tmp_path: Path) -> None:
    line = refused(tmp_path, "query.selection=tests.query.own_selection:Absent")
    assert line.startswith("error: query.selection")
    assert "Absent" in line


def test_a_redis_directory_of_somebody_else(tmp_path: Path) -> None:
    rundir = created(tmp_path)
    rundir.redis.mkdir()
    (rundir.redis / "dump.rdb").write_bytes(b"precious")
    code, errors = train("--resume", str(rundir.path))
    assert (code, len(errors)) == (2, 1)
    assert errors[0] == (
        f"error: {rundir.redis} is not empty and was not made by an embedded Redis: it holds "
        "dump.rdb but no server.json; choose an empty directory"
    )
    assert [file.name for file in rundir.redis.iterdir()] == ["dump.rdb"]
    assert (rundir.redis / "dump.rdb").read_bytes() == b"precious"


def test_a_damaged_part_of_the_preferences(tmp_path: Path) -> None:
    rundir = created(tmp_path)
    dataset = PreferenceDataset.create(rundir.preferences, header=header(PLAIN))
    dataset.add_segments([segment(number) for number in range(4)])
    part = the_part(dataset, "segments")
    damaged = part.read_bytes()[:-200]
    part.write_bytes(damaged)
    code, errors = train("--resume", str(rundir.path))
    assert (code, len(errors)) == (2, 1)
    assert errors[0].startswith(f"error: {part} is damaged (")
    assert errors[0].endswith("); move that file away: every other part is intact")
    assert part.read_bytes() == damaged


@pytest.mark.parametrize("name", ["nowhere", "runs"])
def test_a_run_that_is_none(tmp_path: Path, name: str) -> None:
    (tmp_path / "runs").mkdir()
    code, errors = train("--resume", str(tmp_path / name))
    assert (code, len(errors)) == (2, 1)
    assert str(tmp_path / name) in errors[0]
