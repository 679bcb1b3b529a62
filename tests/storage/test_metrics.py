"""Metrics: rows that survive a crash, numbers that are numbers, names that are in the
table.
"""

from __future__ import annotations

import json
import logging
import math
from pathlib import Path

import numpy as np
import pytest

from rlhp.config import loading
from rlhp.storage.metrics import METRICS, MetricsWriter, read_metrics, without_rewinds
from rlhp.storage.rundir import RunDir


@pytest.fixture
def rundir(tmp_path: Path) -> RunDir:
    return RunDir.create(
        loading.parse({"env": {"id": "E"}, "runs_dir": str(tmp_path), "name": "a"}), "a"
    )


def test_a_row_is_one_line_that_is_there_at_once(rundir: RunDir) -> None:
    with MetricsWriter(rundir, tensorboard=False) as metrics:
        metrics.write({"env_steps": 10, "phase": "warm-up", "labels/asked": None})
        assert read_metrics(rundir.metrics_file) == [
            {"env_steps": 10, "phase": "warm-up", "labels/asked": None}
        ]
        metrics.write({"env_steps": 20})
    assert len(read_metrics(rundir.metrics_file)) == 2
    assert not rundir.tensorboard.exists()


def test_numbers_that_are_not_finite_are_null(rundir: RunDir) -> None:
    row = {
        "env_steps": np.int64(5),
        "learner/kl": math.nan,
        "learner/entropy": -math.inf,
        "reward/l2": np.float32(0.5),
    }
    with MetricsWriter(rundir, tensorboard=True) as metrics:
        metrics.write(row)
    (line,) = rundir.metrics_file.read_text().splitlines()
    row = json.loads(line)
    assert len(row.pop("check")) == 8
    assert row == {"env_steps": 5, "learner/kl": None, "learner/entropy": None, "reward/l2": 0.5}


def test_a_value_that_is_no_number_is_a_mistake_of_ours(rundir: RunDir) -> None:
    with (
        MetricsWriter(rundir, tensorboard=False) as metrics,
        pytest.raises(TypeError, match="got list"),
    ):
        metrics.write({"env_steps": [1]})


def test_tensorboard_gets_the_same_names(rundir: RunDir) -> None:
    with MetricsWriter(rundir, tensorboard=True) as metrics:
        metrics.write(
            {
                "env_steps": 7,
                "reward/heldout_accuracy": 0.75,
                "phase": "learning",
                "learner/kl": math.nan,
            }
        )
    (events,) = rundir.tensorboard.glob("events.*")
    data = events.read_bytes()
    assert b"reward/heldout_accuracy" in data
    assert b"learner/kl" not in data


def test_a_resumed_run_appends_and_drops_a_torn_row(
    rundir: RunDir, caplog: pytest.LogCaptureFixture
) -> None:
    rundir.metrics_file.write_text('{"env_steps": 1}\n{"env_st')
    assert read_metrics(rundir.metrics_file) == [{"env_steps": 1}]
    with MetricsWriter(rundir, tensorboard=False) as metrics:
        metrics.write({"env_steps": 2})
    assert read_metrics(rundir.metrics_file) == [{"env_steps": 1}, {"env_steps": 2}]
    assert "dropped an unfinished last row of 8 bytes" in caplog.text


def test_a_damaged_row_in_the_middle_is_named(rundir: RunDir) -> None:
    rundir.metrics_file.write_text('{"env_steps": 1}\nxx\n{"env_steps": 3}\n')
    with pytest.raises(
        ValueError, match=r"metrics\.jsonl line 2: not a row of metrics, got b'xx'; delete it"
    ):
        read_metrics(rundir.metrics_file)


def test_a_file_that_does_not_exist_has_no_rows(tmp_path: Path) -> None:
    assert read_metrics(tmp_path / "none.jsonl") == []


def test_steps_that_a_resumed_run_repeats_count_once() -> None:
    rows = [
        {"env_steps": steps, "run": run}
        for run, steps in [(1, 10), (1, 20), (1, 30), (2, 20), (2, 30), (2, 40)]
    ]
    assert [(row["run"], row["env_steps"]) for row in without_rewinds(rows)] == [
        (1, 10),
        (2, 20),
        (2, 30),
        (2, 40),
    ]


def test_a_name_that_is_in_no_table_is_told_once(
    rundir: RunDir, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING), MetricsWriter(rundir, tensorboard=False) as metrics:
        for steps in range(3):
            metrics.write({"env_steps": steps, "reward/new": 1.0})
    assert caplog.text.count("metric reward/new is in no table") == 1


def test_every_metric_has_a_unit_and_a_meaning() -> None:
    assert all(unit and meaning.endswith(".") for unit, meaning in METRICS.values())
