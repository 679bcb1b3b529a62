"""The bench of cost counts the right seconds, compares within a repeat, and runs the
same learner three times.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from benchmarks import cost
from benchmarks.report import rows
from benchmarks.rig import alone
from benchmarks.rig.stock import SHARED, stock_config
from rlhp.envs.make import probe
from rlhp.learn.ppo.rllib import algorithm_config
from tests.small_runs import action_space

BURN = "import time\nwhile time.process_time() < 0.6: pass"


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Rows of this test alone."""
    monkeypatch.setattr(rows, "RESULTS", tmp_path / "results")
    return tmp_path / "results"


def store(repeat: int, *, speeds: dict[str, float], task: str = "pendulum") -> None:
    for arm, speed in speeds.items():
        rows.append(
            "cost",
            {
                "task": task,
                "arm": arm,
                "repeat": repeat,
                "iterations": 20,
                "steps_per_second": speed,
                "mean_steps_per_second": speed,
                "cpu_seconds_per_1000_steps": 1000 / speed,
                "sample_seconds": 0.1,
                "label_wait_ms": 9.0 if arm == "preferences" else None,
            },
        )


def test_cpu_seconds_count_a_child_while_it_lives_and_after_it_has_ended() -> None:
    before = alone.cpu_seconds()
    program = f"{BURN}\nprint(flush=True)\ninput()"
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", program], stdin=pipe, stdout=pipe) as child:
        assert child.stdout is not None
        child.stdout.readline()
        alive = alone.cpu_seconds() - before
        child.communicate(b"\n")
    assert alive >= 0.55
    assert alone.cpu_seconds() - before >= alive - 0.05


def test_a_child_runs_behind_the_lock_command_and_its_failure_ends_the_bench(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(alone.LOCK, f"{sys.executable} -c 'import sys; sys.exit(7)'")
    with pytest.raises(SystemExit, match="7"):
        alone.run("benchmarks.cost", "--help")
    monkeypatch.setenv(alone.LOCK, "env SOMETHING=else")
    alone.run("benchmarks.cost", "--help")


def test_the_clock_counts_from_learning_on_and_stops_the_run() -> None:
    clock = cost.Clock(0.3)
    steps = 0
    over = False
    while not over:
        time.sleep(0.02)
        steps += 100
        try:
            clock.tick(steps, sample_seconds=0.01, label_wait_ms=None)
        except cost.Measured:
            over = True
    figures = clock.figures()
    assert figures["iterations"] == steps // 100 - cost.UNCOUNTED - 1
    assert figures["steps_per_second"] < 100 / 0.02
    assert figures["cpu_seconds_per_1000_steps"] >= 0
    assert figures["label_wait_ms"] is None


def test_a_run_that_ends_too_early_is_no_figure() -> None:
    clock = cost.Clock(60)
    for steps in range(20):
        clock.tick(steps, sample_seconds=None, label_wait_ms=None)
    with pytest.raises(
        ValueError, match="learns for 60 s and more than 5 iterations, this one ended after 18"
    ):
        clock.figures()


def test_a_ratio_is_taken_within_a_repeat_and_a_missing_run_leaves_its_repeat_out(
    results: Path,
) -> None:
    store(0, speeds={"stock": 1000, "control": 2000, "preferences": 1900})
    store(1, speeds={"stock": 2000, "control": 4000, "preferences": 4200})
    store(2, speeds={"control": 3000})
    found = rows.read("cost")
    pair = ("preferences", "control")
    assert cost.ratios(found, "pendulum", pair, of="steps_per_second") == [0.95, 1.05]
    assert cost.ratios(found, "cartpole", pair, of="steps_per_second") == []
    low, high = cost.interval_of_median([0.95, 1.05, 1.0])
    assert 0.95 <= low <= 1.0 <= high <= 1.05
    assert results.exists()


def test_the_section_says_which_targets_are_met(results: Path) -> None:
    for repeat in range(3):
        store(repeat, speeds={"stock": 1000, "control": 2000, "preferences": 1800})
    page = cost.section()
    assert (
        "| pendulum: preferences / control | 0.90 (0.90 to 0.90) | 0.90 | at least 0.95: missed |"
        in page
    )
    assert (
        "| pendulum: preferences / stock | 1.80 (1.80 to 1.80) | 1.80 | at least 1.00: met |"
        in page
    )
    assert "| pendulum | stock | 3 | 1,000 (1,000 to 1,000) | 1,000 | 1.000 | 100 ms | - |" in page
    assert results.exists()


def test_every_arm_comes_first_second_and_last_equally_often() -> None:
    for place in range(len(cost.ARMS)):
        assert sorted(order[place] for order in cost.ORDERS) == sorted(2 * cost.ARMS)


@pytest.mark.parametrize("task", ["pendulum", "cartpole"])
def test_stock_learns_with_our_networks_batches_and_environments(task: str) -> None:
    config = cost.config_of(task, "stock")
    ours = algorithm_config(config, probe(config.env).spaces, action_space=action_space(config))
    stock = stock_config(config)
    assert {name: getattr(stock, name) for name in SHARED} == {
        name: getattr(ours, name) for name in SHARED
    }
    assert (stock.num_env_runners, stock.num_envs_per_env_runner) == (2, 8)
    assert stock.env_runner_cls is not ours.env_runner_cls
    assert stock.action_space == ours.action_space


@pytest.mark.slow
@pytest.mark.parametrize("arm", ["stock", "preferences"])
def test_one_quick_run_prints_its_row_and_keeps_none(arm: str) -> None:
    command = [
        sys.executable,
        "-m",
        "benchmarks.cost",
        "--task",
        "pendulum",
        "--arm",
        arm,
        "--run",
        "0",
        "--quick",
    ]
    kept = rows.read("cost")
    environment = {**os.environ, "PYTHONPATH": str(alone.ROOT)}
    ended = subprocess.run(
        command, capture_output=True, text=True, check=True, cwd=alone.ROOT, env=environment
    )
    row: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    assert (row["task"], row["arm"], row["repeat"]) == ("pendulum", arm, 0)
    assert row["steps_per_second"] > 0
    assert row["cpu_seconds_per_1000_steps"] > 0
    assert (row["label_wait_ms"] is not None) == (arm == "preferences")
    assert rows.read("cost") == kept
