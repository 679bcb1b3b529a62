"""The benches of parts and of sampling measure the real parts, and their tables say
what is met.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks import micro, sampling
from benchmarks.report import rows
from benchmarks.rig import answering, samples, turns
from rlhp.types import decode, encode


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Rows of this test alone."""
    monkeypatch.setattr(rows, "RESULTS", tmp_path / "results")
    return tmp_path / "results"


def test_the_samples_are_segments_that_survive_the_queue() -> None:
    segment = samples.preference(3).first
    assert decode(encode(segment)).true_return == segment.true_return
    assert segment.length == samples.STEPS


def test_labeling_and_the_dataset_are_measured_on_the_real_parts() -> None:
    assert all(value > 0 for value in micro.label().values())
    assert all(value > 0 for value in micro.dataset().values())


@pytest.mark.slow
def test_every_query_is_answered_once_by_clients_and_by_labelers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(answering, "LABELERS", (2,))
    found = answering.queue()
    assert set(found) == {"asked_per_second", "clients_2_per_second", "labelers_2_per_second"}
    assert all(value > 0 for value in found.values())


def test_a_rate_has_to_be_high_and_a_time_low(results: Path) -> None:
    rows.append(
        "micro",
        {"figure": "fit", "repeat": 0, "ms_per_step_1": 4.0, "ms_per_step_3": 8.0, "ratio": 2.0},
    )
    rates = {
        f"{who}_{count}_per_second": 6000.0
        for who in ("clients", "labelers")
        for count in answering.LABELERS
    }
    rows.append("micro", {"figure": "queue", "repeat": 0, "asked_per_second": 2000.0, **rates})
    page = micro.section()
    assert "| 3 members over 1 | 2.00 times (2.00 to 2.00) | at most 1.5: missed |" in page
    assert "| 6,000 /s (6,000 to 6,000) | at least 5,000: met |" in page
    assert "checkpoint of the policy" not in page, "no row, no line"
    assert results.exists()


def test_the_table_of_sampling_compares_with_the_raw_environment_repeat_by_repeat(
    results: Path,
) -> None:
    times: dict[str, list[float]] = {
        "raw": [50, 100],
        "control": [65, 130],
        "preferences": [75, 160],
        "stock": [150, 270],
    }
    for arm, each in times.items():
        for repeat, value in enumerate(each):
            row: dict[str, Any] = {"arm": arm, "repeat": repeat, "env_steps": 8192}
            rows.append("sampling", {**row, "us_per_step": value, "cpu_us_per_step": value})
    page = sampling.section()
    assert "| control | 97.5 (65.0 to 130.0) | 97.5 | 1.30 | at most 1.4: met |" in page
    assert "| stock | 210.0 (150.0 to 270.0) | 210.0 | 2.85 |  |" in page
    assert results.exists()


def test_every_arm_of_sampling_takes_at_least_the_wanted_steps() -> None:
    pytest.importorskip("mujoco", reason="sampling is measured on HalfCheetah, which needs mujoco")
    found = sampling.measure(0, steps=2 * sampling.ENVS)
    assert [row["arm"] for row in found] == list(sampling.ARMS)
    assert all(row["env_steps"] >= turns.TURNS * 2 * sampling.ENVS for row in found)
    assert all(row["us_per_step"] > 0 for row in found)
