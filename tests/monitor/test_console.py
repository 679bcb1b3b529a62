"""The live table: a table on a terminal, lines elsewhere, and words that fit the
numbers.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from rlhp.config import loading
from rlhp.monitor.console import LiveTable, line, sparkline
from rlhp.monitor.diagnosis import duration
from rlhp.storage.rundir import RunDir

ROW: dict[str, Any] = {
    "env_steps": 100_000,
    "env_steps_per_second": 2000.0,
    "phase": "learning",
    "labels/asked": 300,
    "labels/answered": 290,
    "labels/budget": 700,
    "labels/per_minute": 12.5,
    "queue/pending": 9,
    "queue/leased": 1,
    "queue/oldest_age_seconds": 75.0,
    "reward/version": 9,
    "reward/fresh_accuracy": 0.8421,
    "reward/fresh_accuracy_low": 0.726,
    "reward/fresh_accuracy_high": 0.914,
    "reward/fresh_answers": 57,
    "labels/recent": 60,
    "labels/recent_ties": 3,
    "reward/wait_seconds": 1.0,
    "time/sample_seconds": 2.0,
    "time/learn_seconds": 1.0,
    "alarms": 1,
    "alarms/names": "novel",
    "env_runners/episode_return_mean": 1234.5,
    "predicted_return_mean": -3.25,
}


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def live(folder: Path, console: Console, clock: Clock) -> LiveTable:
    config = loading.parse({"env": {"id": "E"}, "runs_dir": str(folder), "name": "demo"})
    return LiveTable(
        config=config, rundir=RunDir.create(config, "demo"), console=console, clock=clock
    )


def test_without_a_terminal_there_is_a_line_every_five_seconds(tmp_path: Path) -> None:
    out, clock = io.StringIO(), Clock()
    with live(tmp_path, Console(file=out, width=400), clock) as shown:
        for step in range(4):
            shown.update({"env_steps": step, "env_runners/episode_return_mean": None})
            clock.now += 2.5
        shown.message("reward version [1] is out")
    lines = out.getvalue().splitlines()
    assert [text.split("/")[0] for text in lines] == ["0", "2", "reward version [1] is out", "3"]


def test_a_line_has_all_there_is_to_know() -> None:
    assert line(ROW, total_env_steps=300_000) == (
        "100,000/300,000 steps | 2,000/s | learning | labels: 290 answered, 300 asked of 700, "
        "12.5/min | queue: 9 waiting, 1 leased, oldest 1 min | reward: version 9 | fresh "
        "accuracy: 0.84 (0.73 to 0.91, 57 answers); 3 ties in 60 | waits for the reward 25% of "
        "the time | ALARMS: novel | true return 1,234 | predicted -3.2 | 2 min left"
    )


def test_a_line_of_the_control_arm_speaks_of_no_labels() -> None:
    row = {"env_steps": 10, "phase": "learning", "env_runners/episode_return_mean": 5.0}
    assert (
        line(row, total_env_steps=100)
        == "10/100 steps | learning | true return 5.0 | time left unknown"
    )


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_on_a_terminal_there_is_one_table(tmp_path: Path, encoding: str) -> None:
    raw = io.BytesIO()
    out = io.TextIOWrapper(raw, encoding=encoding)
    with live(tmp_path, Console(file=out, force_terminal=True, width=100), Clock()) as shown:
        shown.update(ROW)
        shown.update({"env_runners/episode_return_mean": 2000.0})
        shown.message("note")
    out.flush()
    text = raw.getvalue().decode(encoding)
    for words in (
        "demo",
        "100,000 of 300,000",
        "290 answered, 300 asked of 700",
        "version 9",
        "2,000",
        "note",
    ):
        assert words in text
    assert ("_#" if encoding == "ascii" else "\u2581\u2588") in text


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.2, "0 s"),
        (59.4, "59 s"),
        (60, "1 min"),
        (3599, "1 h"),
        (3700, "1 h 2 min"),
        (200_000, "2 d 7 h"),
        (-3, "0 s"),
    ],
)
def test_durations_in_words(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_a_sparkline_reaches_from_the_lowest_to_the_highest() -> None:
    assert sparkline([0, 5, 10], bars="123") == "123"
    assert sparkline([4, 4], bars="123") == "11"
    assert sparkline([]) == ""
