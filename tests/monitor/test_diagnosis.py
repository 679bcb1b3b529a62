"""One diagnosis: what is found in each situation, and that whoever asks reads the same."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args

import pytest

from rlhp.config import loading
from rlhp.labeling.page.progress import facts_of, waiting_for
from rlhp.monitor import status
from rlhp.monitor.actors import ActorFacts
from rlhp.monitor.alerts import RunMonitor
from rlhp.monitor.diagnosis import Facts, Finding, Kind, diagnose
from rlhp.monitor.rows import RunStatus
from rlhp.queue.records import LabelerStats, QueueStats
from rlhp.storage.rundir import RunDir
from tests.queue.parts import stats
from tests.run.roles import query_actor, reward_trainer

RUN: dict[str, Any] = {"path": "runs/demo", "name": "demo", "source": "human", "budget": 100}
WARM: dict[str, Any] = {**RUN, "learning": False, "initial": 25}
LEARNING: dict[str, Any] = {**RUN, "learning": True, "allowed": 40}
AT_WORK = {"ann": LabelerStats(idle_seconds=1)}


def actor(**changes: Any) -> ActorFacts:
    plain: dict[str, Any] = {
        "run": "demo",
        "role": "query_actor",
        "name": "demo:query_actor",
        "state": "alive",
        "node": "10.0.0.2",
        "pid": 7,
        "restarts": 0,
    }
    return ActorFacts(**(plain | changes))


SITUATIONS: list[tuple[dict[str, Any], list[str]]] = [
    # What the run waits for, in its warm-up
    ({}, ["starting"]),
    ({**RUN, "queue": stats()}, ["starting"]),
    ({**WARM, "pool": 7, "pool_target": 50, "queue": stats()}, ["collecting"]),
    ({**WARM, "pool": 50, "pool_target": 50, "allowed": 25, "queue": stats()}, ["empty"]),
    ({**WARM, "queue": stats(asked=25, reserved=3)}, ["clips", "warm-up"]),
    ({**WARM, "queue": stats(asked=25, pending=9)}, ["unanswered", "warm-up"]),
    (
        {**WARM, "queue": stats(asked=25, leased=9, labelers=AT_WORK)},
        ["others", "at work", "warm-up"],
    ),
    (
        {**WARM, "allowed": 25, "answered": 25, "queue": stats(asked=25, answered=25)},
        ["answered"],
    ),
    # Later
    ({**LEARNING, "queue": stats(asked=40)}, ["answered"]),
    ({**LEARNING, "queue": stats(asked=30)}, ["empty"]),
    ({**LEARNING, "queue": stats(asked=40, pending=1, labelers=AT_WORK)}, ["at work"]),
    ({**LEARNING, "queue": stats(asked=100)}, ["spent"]),
    ({**LEARNING, "queue": stats(asked=100, leased=1)}, ["others", "unanswered", "spent"]),
    ({**LEARNING, "queue": stats(state="draining")}, ["draining"]),
    ({**LEARNING, "queue": stats(state="closed")}, ["closed"]),
    ({**RUN, "queue": stats(state="missing")}, ["missing"]),
    # Whoever asks is a labeler
    ({**LEARNING, "paused": "guessing", "queue": stats(pending=1)}, ["paused"]),
    (
        {**LEARNING, "turned_away": True, "queue": stats(asked=9, pending=1)},
        ["others", "unanswered"],
    ),
    ({**LEARNING, "source": "oracle", "queue": stats(asked=30)}, ["teachers", "empty"]),
    # What goes wrong
    ({**LEARNING, "gone": True, "queue": stats(asked=30)}, ["gone"]),
    ({**LEARNING, "gone": True, "queue": stats(asked=30, pending=1)}, ["gone", "unanswered"]),
    ({**LEARNING, "queue_problem": "no service from Redis"}, ["redis"]),
    ({**LEARNING, "silent_seconds": 300.0, "queue": stats(asked=30)}, ["silent", "empty"]),
    ({**LEARNING, "queue": stats(asked=30, backlog=101)}, ["empty", "backlog"]),
    ({**LEARNING, "refused": 2, "queue": stats(asked=30)}, ["empty", "refused"]),
    ({**LEARNING, "set_aside": 2, "queue": stats(asked=30)}, ["empty", "set aside"]),
    ({**LEARNING, "alarms": {"novel": "far"}, "queue": stats(asked=30)}, ["empty", "alarm"]),
    (
        {**LEARNING, "actors": [actor(state="restarting")], "queue": stats(asked=30)},
        ["actor", "empty"],
    ),
    (
        {**LEARNING, "actors": [actor(waiting_for="no service")], "queue": stats(asked=30)},
        ["actor", "empty"],
    ),
    (
        {
            **LEARNING,
            "actors": [actor(version=3), actor(role="reward_model_0", version=2)],
            "queue": stats(asked=30),
        },
        ["actor", "empty"],
    ),
    ({**RUN, "source": "none", "learning": True}, ["control"]),
    ({**LEARNING, "ended": True, "queue": stats(backlog=3), "set_aside": 1}, ["left", "set aside"]),
]


@pytest.mark.parametrize(("facts", "kinds"), SITUATIONS)
def test_what_is_found_in_each_situation(facts: dict[str, Any], kinds: list[str]) -> None:
    findings = diagnose(Facts(**facts))
    assert [finding.kind for finding in findings] == kinds
    for finding in findings:
        assert re.fullmatch(r"[A-Z0-9].*[^.]\.", finding.sentence()), "one whole sentence"


def test_the_table_has_every_kind() -> None:
    assert {kind for _, kinds in SITUATIONS for kind in kinds} == set(get_args(Kind))


def test_labelers_read_neither_names_nor_advice() -> None:
    for facts, _ in SITUATIONS:
        for finding in diagnose(Facts(**facts)):
            if finding.for_labelers:
                assert "ann" not in finding.what.split()
                assert "rlhp " not in finding.what


def test_the_page_has_a_heading_for_whatever_labelers_are_shown() -> None:
    panel = Path(status.__file__).parents[1] / "labeling" / "page" / "static" / "panel.js"
    text = panel.read_text(encoding="utf-8")
    shown = {
        finding.kind
        for facts, _ in SITUATIONS
        for finding in diagnose(Facts(**facts))
        if finding.for_labelers
    }
    assert shown == set(re.findall(r"^  (\w+): \"", text, re.MULTILINE)) - {"ready"}


# The same facts, as the page, the status and the run itself know them


ALIKE: list[tuple[QueueStats, dict[str, Any], str]] = [
    (stats(), {"allowed": 175}, "collecting"),
    (stats(asked=9, reserved=2), {}, "clips"),
    (stats(asked=9, leased=2), {}, "others"),
    (stats(asked=175), {"allowed": 175, "pool": 500}, "answered"),
    (stats(asked=200), {"allowed": 200, "version": 3}, "answered"),
    (stats(asked=150), {"allowed": 200, "version": 3}, "empty"),
    (stats(asked=700, answered=699), {"version": 3}, "spent"),
    (stats(state="draining"), {"version": 3}, "draining"),
]


@pytest.mark.parametrize(("queue", "known", "kind"), ALIKE)
def test_page_status_and_the_run_itself_say_the_same(
    tmp_path: Path, queue: QueueStats, known: dict[str, Any], kind: str
) -> None:
    config = loading.parse(
        {
            "env": {"id": "E"},
            "labels": {"source": "human", "instruction": "Which is better?"},
            "runs_dir": str(tmp_path),
            "name": "demo",
        }
    )
    rundir = RunDir.create(config, "demo")
    rundir.update(state="running")
    pool, target, version = known.get("pool", 120), 350, known.get("version", 0)
    allowed = known.get("allowed", 0)

    info = {
        "source": "human",
        "budget": str(config.labels.budget),
        "phase": "learning" if version else "warm-up",
        "segments": str(pool),
        "segments_wanted": str(target),
        "allowed": str(allowed),
        "reward_version": str(version),
    }
    waiting = waiting_for(facts_of(queue, info))
    assert waiting is not None
    assert waiting.reason == kind

    row = {
        "phase": info["phase"],
        "segments/pool": pool,
        "segments/warmup_target": target,
        "labels/allowed": allowed,
        "reward/version": version,
    }
    on_disk = status.Facts(
        path=rundir.path,
        info=rundir.info(),
        config=config,
        alive=True,
        elsewhere=False,
        now=datetime.now(UTC),
        row=row,
        row_age_seconds=1.0,
        queue=queue,
        queue_problem=None,
    )

    said = RunStatus(
        query_actor=query_actor(pool=pool, warmup_target=target, allowed=allowed),
        reward_trainer=reward_trainer(version=version, answered=queue.answered),
        queue=queue,
    )
    monitor = RunMonitor(rundir, say=print, quiet_seconds=None)

    def of_kind(facts: Facts) -> list[Finding]:
        return [finding for finding in diagnose(facts) if finding.kind == kind]

    (offline,), (live,) = of_kind(on_disk.of_run()), of_kind(monitor.facts(said, env_steps=0))
    assert offline == live
    assert offline.what == waiting.detail
    assert offline.sentence() in status.explain(on_disk)
