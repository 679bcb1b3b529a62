"""What a run tells those who do not look at its curves: actors, warnings, names for
Prometheus and Grafana.
"""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from rlhp.config import loading
from rlhp.monitor import actors
from rlhp.monitor.actors import ActorFacts
from rlhp.monitor.alerts import Concerns, RunMonitor
from rlhp.monitor.diagnosis import Facts, diagnose
from rlhp.monitor.rows import RunStatus
from rlhp.storage.metrics import GAUGES, METRICS, prometheus_name
from rlhp.storage.rundir import RunDir
from tests.queue.parts import stats
from tests.run.roles import query_actor

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
    (trouble,) = diagnose(Facts(actors=[ALIVE, LOST], learning=True))
    assert trouble.sentence() == (
        "The query actor is being started, or waits for a node with room; see `ray status` where "
        "it goes on."
    )
    actors.write(tmp_path / "actors.json", [ALIVE, LOST])
    assert actors.read(tmp_path / "actors.json")[0] == [ALIVE, LOST]


def test_an_actor_is_listed_with_what_it_says_of_itself() -> None:
    plain = replace(ALIVE, role="query_actor", note="")
    waiting = actors.told(plain, query_actor(pool=3, waiting_for="no service from Redis"))
    assert waiting.note == "3 segments, waits: no service from Redis"
    assert [finding.what for finding in diagnose(Facts(actors=[waiting], learning=True))] == [
        "the query actor waits: no service from Redis"
    ]
    away = actors.told(plain, query_actor(alive=False))
    assert [finding.what for finding in diagnose(Facts(actors=[away], learning=True))] == [
        "the query actor is away"
    ]
    assert actors.told(plain, None) == plain


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
    facts = Facts(env_steps=60, learning=False, path="runs/demo", queue=stats(pending=5, leased=1))
    for second in range(0, 450, 10):
        clock.now = second
        concerns.look(facts)
        concerns.check()
    assert said == [
        f"warning: nothing has moved for {seconds} s (no env step, no answer, no reward version): "
        "waiting for labels: 6 queries open, oldest 0 s, no labeler was ever seen; start one with "
        "rlhp label runs/demo"
        for seconds in (100, 200, 400)
    ]
    concerns.look(replace(facts, answered=1))
    assert concerns.quiet() == 0
    for moved in (replace(facts, env_steps=61), replace(facts, reward_version=1)):
        clock.now += 50
        concerns.look(moved)
        assert concerns.quiet() == 0
    clock.now += 99
    concerns.check()
    assert len(said) == 3


def test_env_steps_of_a_row_are_a_move_even_where_nobody_is_asked(tmp_path: Path) -> None:
    config = loading.parse(
        {"env": {"id": "E"}, "labels": {"source": "none"}, "runs_dir": str(tmp_path), "name": "a"}
    )
    monitor = RunMonitor(RunDir.create(config, "a"), say=print, quiet_seconds=None)
    facts = monitor.facts(RunStatus(), env_steps=60)
    assert (facts.env_steps, [finding.kind for finding in diagnose(facts)]) == (60, ["control"])


def test_silence_that_nothing_explains_is_told_all_the_same() -> None:
    said: list[str] = []
    clock = Clock()
    concerns = Concerns(said.append, clock=clock)
    concerns._quiet = 100.0
    clock.now = 100.0
    concerns.look(Facts(learning=True))
    clock.now = 199.0
    concerns.look(Facts(learning=True))
    clock.now = 200.0
    concerns.check()
    assert said == [
        "warning: nothing has moved for 100 s (no env step, no answer, no reward version)"
    ]


def test_an_iteration_without_a_row_is_told_as_that() -> None:
    said: list[str] = []
    clock = Clock()
    concerns = Concerns(said.append, clock=clock)
    concerns._quiet = 100.0
    concerns.look(Facts(env_steps=60, learning=True, path="runs/demo", queue=stats()))
    clock.now = 150.0
    concerns.check()
    assert said == [
        "warning: nothing has moved for 150 s (no env step, no answer, no reward version): the "
        "last metrics are 2 min old: a very long iteration, or something hangs; look into "
        "runs/demo/run.log"
    ]


def test_entries_that_were_set_aside_are_told_once() -> None:
    said: list[str] = []
    concerns = Concerns(said.append)
    for facts in (Facts(), Facts(env_steps=1), Facts(set_aside=2), Facts(set_aside=5)):
        concerns.look(facts)
    assert len(said) == 1
    assert said[0].startswith("warning: 2 entries")
    assert "run.log" in said[0]


def test_a_redis_without_memory_is_told_once() -> None:
    said: list[str] = []
    concerns = Concerns(said.append)
    for facts in (Facts(), Facts(refused=3), Facts(env_steps=1), Facts(refused=90)):
        concerns.look(facts)
    assert len(said) == 1
    assert "maxmemory" in said[0]


def test_the_dashboard_names_only_what_is_exported() -> None:
    text = (ROOT / "cluster" / "grafana.json").read_text(encoding="utf-8")
    assert json.loads(text)["title"] == "rlhp runs"
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
