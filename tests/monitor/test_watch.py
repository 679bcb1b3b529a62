"""What a run tells those who do not look at its curves: actors, warnings, names for
Prometheus and Grafana.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from rlhp.monitor import actors, grafana
from rlhp.monitor.actors import ActorFacts
from rlhp.monitor.alerts import Concerns
from rlhp.storage.metrics import GAUGES, METRICS, prometheus_name

ROOT = Path(__file__).parents[2]
ALIVE = ActorFacts(
    run="demo",
    role="reward_model_0",
    name="demo:reward_model_0@node",
    state="alive",
    node="10.0.0.2",
    pid=7,
    restarts=1,
    note="version 3",
)
LOST = ActorFacts(
    run="demo",
    role="query_actor",
    name="demo:query_actor",
    state="pending_creation",
    node="",
    pid=0,
    restarts=2,
)


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_actors_are_listed_and_the_absent_ones_explained(tmp_path: Path) -> None:
    assert actors.table([ALIVE, LOST]) == [
        "actor           node      process  state             restarts",
        "reward model 0  10.0.0.2  7        alive             1         version 3",
        "query actor     -         -        pending_creation  2",
    ]
    assert actors.troubles([ALIVE, LOST]) == [
        "The query actor is being started, or waits for a node with room; see `ray status` where "
        "it goes on."
    ]
    actors.write(tmp_path / "actors.json", [ALIVE, LOST])
    assert actors.read(tmp_path / "actors.json")[0] == [ALIVE, LOST]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"at": "2026-01-01", "actors": [{"other": 1}]}'])
def test_a_list_of_actors_that_cannot_be_read_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "actors.json").write_text(text)
    assert actors.read(tmp_path / "actors.json") == ([], None)
    assert actors.read(tmp_path / "missing.json") == ([], None)


def test_silence_is_told_once_and_again_after_twice_the_time() -> None:
    said: list[str] = []
    clock = Clock()
    concerns = Concerns(said.append, clock=clock)
    concerns._quiet = 100.0
    row: dict[str, Any] = {
        "env_steps": 60,
        "phase": "warm-up",
        "queue/pending": 5,
        "queue/leased": 1,
    }
    for second in range(0, 450, 10):
        clock.now = second
        concerns.look(row)
        concerns.check()
    assert said == [
        f"warning: nothing has moved for {seconds} s (no env step, no answer, no reward version): "
        "6 queries wait for answers, and learning waits for them"
        for seconds in (100, 200, 400)
    ]
    concerns.look({**row, "labels/answered": 1})
    assert concerns.quiet() == 0
    clock.now += 99
    concerns.check()
    assert len(said) == 3


def test_entries_that_were_set_aside_are_told_once() -> None:
    said: list[str] = []
    concerns = Concerns(said.append)
    for row in (
        {"queue/set_aside": 0},
        {"env_steps": 1},
        {"queue/set_aside": 2},
        {"queue/set_aside": 5},
    ):
        concerns.look(row)
    assert len(said) == 1
    assert said[0].startswith("warning: 2 entries")
    assert "run.log" in said[0]


def test_a_redis_without_memory_is_told_once() -> None:
    said: list[str] = []
    concerns = Concerns(said.append)
    for row in (
        {"queue/refused": 0},
        {"queue/refused": 3},
        {"env_steps": 1},
        {"queue/refused": 90},
    ):
        concerns.look(row)
    assert len(said) == 1
    assert "maxmemory" in said[0]


def test_the_dashboard_is_that_of_today_and_names_only_what_is_exported() -> None:
    text = (ROOT / "cluster" / "grafana.json").read_text(encoding="utf-8")
    assert json.loads(text) == grafana.dashboard(), (
        "python -m rlhp.monitor.grafana > cluster/grafana.json"
    )
    exported = {f"ray_{prometheus_name(name)}" for name in METRICS} | {
        f"ray_{name}" for name in GAUGES
    }
    named = set(re.findall(r"ray_rlhp_\w+", text))
    assert len(named) > 25
    assert named <= exported


def test_every_metric_has_a_name_that_prometheus_takes() -> None:
    names = [prometheus_name(name) for name in METRICS]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[a-z_:][a-z0-9_:]*", name) for name in names)
