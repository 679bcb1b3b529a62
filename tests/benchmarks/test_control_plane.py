"""The bench of the control plane: fake runners do what runners do, costs are told
apart, the estimate is computed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import control_plane
from benchmarks.control_plane import Point
from benchmarks.report import control_plane_tables, rows
from benchmarks.rig import alone, fake_runners
from benchmarks.rig.samples import ACTION, OBS, SPACES, STEPS
from rlhp.rollout.context import RunnerContext
from rlhp.types import Array, Segment

ENVS, ROWS = 2, 400
COSTS = {
    "query_actor": (0.01, 1e-5, 4e-3),
    "replica": (0.02, 2e-6, 1e-2),
    "redis": (0.01, 0.0, 5e-4),
}
"""Idle cores, CPU seconds per segment (transition), per query."""


class Sides:
    """Prices whatever comes as zero, and takes every segment."""

    def __init__(self) -> None:
        self.segments: list[Segment] = []

    def predict(
        self, obs: Array, actions: Array, *, version: int | None = None
    ) -> tuple[Array, int]:
        assert obs.shape == (ENVS, ROWS, OBS)
        assert actions.shape == (ENVS, ROWS, ACTION)
        return np.zeros(obs.shape[:2], np.float32), 1

    def score(self, obs: Array, encoded: Array) -> tuple[Array, int]:
        raise AssertionError("an env runner wants rewards, not what each member says")

    def offer(self, segments: list[Segment]) -> int:
        self.segments += segments
        return len(segments)


def context() -> RunnerContext:
    point = Point(runners=1, replicas=1, mode="paced")
    return RunnerContext.of(control_plane.config_of(point, runs_dir="runs"), SPACES)


def row(point: Point, *, segments: float, asked: float) -> dict[str, Any]:
    rates = {
        "offered": segments,
        "transitions": 30 * segments,
        "fragments": segments / 32,
        "asked": asked,
    }
    (idle_actor, each, per_query), replica, redis = (
        COSTS[name] for name in ("query_actor", "replica", "redis")
    )
    return {
        "runners": point.runners,
        "replicas": point.replicas,
        "mode": point.mode,
        "repeat": 0,
        "seconds": 20.0,
        "think_seconds": point.think_seconds,
        "machine_cores": 2,
        **{f"{name}_per_second": value for name, value in rates.items()},
        "dropped_per_second": 0.0,
        "answered_per_second": asked,
        "label_ms_p50": 5.0,
        "label_ms_p99": 9.0,
        "query_actor_cores": idle_actor + each * segments + per_query * asked,
        "replica_cores": replica[0] + replica[1] * 30 * segments + replica[2] * asked,
        "redis_cores": redis[0] + redis[2] * asked,
        "gcs_cores": 0.01 + 1e-4 * segments / 32,
        "everything_cores": 1.0,
        "replica_mb": 300.0,
        "query_actor_mb": 200.0,
        "redis_mb": 20.0,
        "gcs_mb": 30.0,
    }


def test_a_fake_runner_offers_what_a_runner_would(monkeypatch: pytest.MonkeyPatch) -> None:
    sides = Sides()
    monkeypatch.setattr(RunnerContext, "reward_source", lambda self, worker: sides)
    monkeypatch.setattr(RunnerContext, "segment_sink", lambda self: sides)
    runner = fake_runners.FakeRunner(context(), worker=1, envs=ENVS, rows=ROWS)
    turns = [runner.turn() for _ in range(5)]
    assert [turn.transitions for turn in turns] == [800, 800, 798, 800, 800], (
        "the reset rows are no transitions"
    )
    assert sum(turn.offered for turn in turns) == len(sides.segments)
    assert len({segment.id for segment in sides.segments}) == len(sides.segments)
    assert {segment.length for segment in sides.segments} == {STEPS}
    assert sum(segment.truncated for segment in sides.segments) == ENVS, (
        "one window ends with each episode"
    )
    assert {segment.reward_version for segment in sides.segments} == {1}
    assert all(
        segment.env_reward is not None and np.isfinite(segment.env_reward).all()
        for segment in sides.segments
    )


def test_costs_are_told_apart_and_the_estimate_follows_from_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows, "RESULTS", tmp_path / "results")
    for point in control_plane.POINTS:
        segments = 200.0 * point.runners * (4 if point.mode == "unthrottled" else 1)
        rows.append(
            "control_plane",
            row(point, segments=segments, asked=50.0 if point.mode == "questions" else 10.0),
        )
    found = control_plane_tables.points(rows.read("control_plane"))
    asking = control_plane_tables.cost(found, "query_actor", "offered", "asked")
    assert asking is not None
    assert (asking.idle, *asking.each.values()) == pytest.approx(COSTS["query_actor"])
    page = control_plane_tables.section()
    assert (
        "| query actor | 10 us per segment, 4.00 ms per query, 1.0% of a core besides | 480 env "
        "runners at 10" in page
    )
    assert "| Redis | 0.50 ms per query" in page
    assert "2,000 queries/s: 6,900 people" in page
    assert "at 160 a second: the answers of 560 people" in page
    assert "A second reward model at 64 runners, unthrottled: 1.00 times" in page


def test_points_that_do_not_tell_two_costs_apart_make_no_estimate() -> None:
    point = Point(runners=4, replicas=1, mode="paced")
    assert control_plane_tables.estimate([row(point, segments=800.0, asked=10.0)]) == []


@pytest.mark.slow
def test_two_fake_runners_keep_the_real_parts_busy() -> None:
    # In a process of its own, as the bench has it: the test of CPU seconds counts what
    # this one has started.
    key = {"runners": 2, "replicas": 1, "mode": "questions", "repeat": 0}
    command = [
        sys.executable,
        "-m",
        "benchmarks.control_plane",
        "--quick",
        "--run",
        json.dumps(key),
    ]
    path = os.pathsep.join([str(alone.ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    ended = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path}
    )
    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout.splitlines()[-1])
    assert all(
        found[f"{name}_per_second"] > 0 for name in ("transitions", "offered", "asked", "answered")
    ), found
    assert 0 < found["label_ms_p50"] <= found["label_ms_p99"]
    assert all(found[f"{part}_mb"] > 1 for part in control_plane_tables.PARTS)
    assert found["replica_cores"] > 0
    assert found["everything_cores"] > sum(
        found[f"{part}_cores"] for part in control_plane_tables.PARTS
    )
