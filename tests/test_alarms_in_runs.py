"""Alarms in whole runs: a teacher who guesses, one who sees no difference, and one who
is right.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rlhp import program
from rlhp.storage.metrics import read_metrics
from rlhp.storage.rundir import RunDir
from tests.small_runs import small

pytestmark = pytest.mark.usefixtures("ray_session")


def alarms(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], **teacher: Any
) -> tuple[set[str], str]:
    """What a run with this teacher raised, by its metrics, and all it printed."""
    config = small(
        runs_dir=str(tmp_path),
        query={"random_share": 1.0},
        labels={"budget": 200, "teacher": {"name": "oracle", **teacher}},
        reward={"hidden": [16, 16], "publish_every_steps": 300, "label_uses_per_step": None},
        learner={"train_batch_size": 300, "minibatch_size": 60, "total_env_steps": 6_000},
    )
    rundir = RunDir.create(config, "small")
    program.train(config, rundir=rundir, serial=True)
    rows = read_metrics(rundir.metrics_file)
    return {
        name for row in rows for name in filter(None, (row.get("alarms/names") or "").split(", "))
    }, (capsys.readouterr().out)


def test_answers_that_are_guessed_raise_chance(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raised, said = alarms(tmp_path, capsys, mistake=0.5)
    assert "chance" in raised
    assert raised <= {"chance", "opposed"}, "what was guessed may also be the opposite"
    assert said.count("no more than a coin") == 1


def test_answers_that_are_all_ties_raise_undecided(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raised, said = alarms(tmp_path, capsys, equal=100.0)
    assert raised == {"undecided"}
    assert said.count("query.segment_length") == 1


def test_right_answers_raise_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert alarms(tmp_path, capsys)[0] == set()
