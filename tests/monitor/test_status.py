"""`rlhp status`: the reason why nothing is happening, for runs that go on, ended or
died.
"""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from rlhp.config import loading
from rlhp.monitor.status import Facts, explain, gather, report
from rlhp.preferences.dataset import PreferenceDataset
from rlhp.queue.embedded import EmbeddedRedis
from rlhp.queue.queue import QueryQueue
from rlhp.queue.records import LabelerStats
from rlhp.storage.metrics import MetricsWriter
from rlhp.storage.rundir import RunDir
from rlhp.types import Answer
from tests.preferences.dataset_samples import answer, header, segment
from tests.queue.parts import stats

NOW = datetime(2026, 1, 2, 12, 0, tzinfo=UTC)
LEARNING = {"env_steps": 5000, "phase": "learning", "reward/version": 3, "labels/allowed": 200}


@pytest.fixture
def rundir(tmp_path: Path) -> RunDir:
    config = loading.parse({"env": {"id": "E"}, "runs_dir": str(tmp_path), "name": "demo"})
    return RunDir.create(config, "demo")


def facts(rundir: RunDir, *, state: str = "running", **changes: Any) -> Facts:
    started = (NOW - timedelta(hours=2)).isoformat()
    info = dataclasses.replace(rundir.info(), state=state, pid=77, started=started, ended=started)  # type: ignore[arg-type]
    plain = Facts(
        path=Path("runs/demo"),
        info=info,
        config=rundir.config(),
        alive=state == "running",
        elsewhere=False,
        now=NOW,
        row=LEARNING,
        row_age_seconds=3.0,
        queue=stats(asked=200, answered=200, done=200),
        queue_problem=None,
    )
    return dataclasses.replace(plain, **changes)


def test_nobody_answers(rundir: RunDir) -> None:
    queue = stats(
        pending=39,
        leased=1,
        oldest_age_seconds=190.0,
        asked=200,
        labelers={"ann": LabelerStats(idle_seconds=310)},
    )
    assert explain(facts(rundir, queue=queue)) == [
        "demo runs as process 77, started 2 h ago.",
        "Waiting for labels: 40 queries open, oldest 3 min, no labeler seen for 5 min; "
        "start one with rlhp label runs/demo.",
    ]
    never = dataclasses.replace(queue, labelers={})
    assert "no labeler was ever seen" in explain(facts(rundir, queue=never))[1]


def test_labelers_at_work(rundir: RunDir) -> None:
    labelers = {name: LabelerStats(idle_seconds=1) for name in ("b", "a")} | {
        "gone": LabelerStats(idle_seconds=999)
    }
    queue = stats(pending=1, oldest_age_seconds=4.0, asked=200, labelers=labelers)
    assert (
        explain(facts(rundir, queue=queue))[1]
        == "2 labelers at work (a, b): 1 query open, oldest 4 s."
    )


def test_the_budget_is_spent(rundir: RunDir) -> None:
    sentence = (
        "The label budget is spent: all 700 queries of the run are asked, 695 answered; a larger "
        "labels.budget asks more."
    )
    assert explain(facts(rundir, queue=stats(asked=700, answered=695)))[1:] == [sentence]


def test_the_schedule_holds_queries_back(rundir: RunDir) -> None:
    assert explain(facts(rundir))[1:] == [
        "All 200 queries that the schedule allows by now are asked and none is open: more come "
        "while the policy learns."
    ]


def test_redis_is_away(rundir: RunDir) -> None:
    sentences = explain(
        facts(rundir, queue=None, queue_problem="ping: no service from Redis at redis://h")
    )
    assert sentences[1] == (
        "The queue cannot be asked: ping: no service from Redis at redis://h; training goes on "
        "with the answers it has."
    )


def test_warm_up_collects_then_waits(rundir: RunDir) -> None:
    row = {
        "phase": "warm-up",
        "env_steps": 900,
        "segments/pool": 120,
        "segments/warmup_target": 350,
    }
    assert explain(facts(rundir, row=row, queue=stats()))[1:] == [
        "A random policy collects segments to ask about: 120/350."
    ]
    row["segments/pool"] = 350
    sentences = explain(facts(rundir, row=row, queue=stats(asked=70, answered=50, pending=20)))
    assert sentences[1].startswith("Waiting for labels: 20 queries open")
    assert sentences[2] == "Learning starts after the first 70 answers: 70 asked, 50 answered."


def test_a_process_that_is_gone(rundir: RunDir) -> None:
    assert explain(facts(rundir, alive=False, row_age_seconds=600.0)) == [
        "demo died: it was process 77, its last metrics are 10 min old.",
        "The process of the run is gone without a word: nothing is asked until it goes on; "
        "continue with rlhp train --resume runs/demo.",
    ]


def test_metrics_that_stand_still(rundir: RunDir) -> None:
    assert explain(facts(rundir, row_age_seconds=240.0))[1].startswith(
        "The last metrics are 4 min old: "
    )
    assert explain(facts(rundir, row=None, row_age_seconds=None, queue=None))[1].startswith(
        "Its processes are being started, and nothing is measured yet"
    )


def test_a_trainer_that_does_not_read_the_answers(rundir: RunDir) -> None:
    assert explain(facts(rundir, queue=stats(asked=200, backlog=150)))[-1] == (
        "150 answers wait for the reward trainer, which may be busy or gone."
    )


def test_answers_that_are_nowhere_on_disk_are_told_whatever_state_the_run_is_in(
    rundir: RunDir,
) -> None:
    left = explain(facts(rundir, state="finished", queue=stats(backlog=7)))
    assert left[1:] == [
        "7 answers are at the queue and not on disk; rlhp train --resume runs/demo stores them."
    ]
    for state in ("running", "finished"):
        odd = explain(facts(rundir, state=state, queue=stats(asked=200, set_aside=3)))[-1]
        assert odd.startswith("3 entries of the answer log made no row and are set aside")
        assert "run.log" in odd
        assert "rlhp:{demo}:aside" in odd
    assert "maxmemory" in explain(facts(rundir, state="running", row={"queue/refused": 2.0}))[-1]
    assert (
        "set aside"
        in explain(facts(rundir, state="finished", queue=None, row={"queue/set_aside": 2}))[-1]
    )


@pytest.mark.parametrize(
    ("state", "sentence"),
    [
        (
            "created",
            "demo was set up but never started; continue with rlhp train --resume runs/demo.",
        ),
        ("finished", "demo finished 2 h ago; see rlhp eval runs/demo and rlhp plot runs/demo."),
        ("interrupted", "demo was stopped 2 h ago; continue with rlhp train --resume runs/demo."),
        (
            "failed",
            "demo failed 2 h ago: None; look into runs/demo/run.log, then continue with rlhp train",
        ),
    ],
)
def test_a_run_that_does_not_go_on(rundir: RunDir, state: str, sentence: str) -> None:
    (found,) = explain(facts(rundir, state=state))
    assert found.startswith(sentence)


def test_the_control_arm_asks_nobody(rundir: RunDir) -> None:
    config = rundir.config(sets=["labels.source=none"])
    assert explain(facts(rundir, config=config, queue=None))[1:] == [
        "This is the control arm: it trains on the env reward and asks nobody."
    ]


def test_the_table_shows_the_last_numbers(rundir: RunDir) -> None:
    queue = stats(
        asked=200, answered=190, pending=10, labelers={"ann": LabelerStats(ok=190, idle_seconds=2)}
    )
    text = report(facts(rundir, queue=queue))
    for words in (
        "5,000 of 300,000",
        "200 asked, 190 answered of 700",
        "10 waiting, 0 leased",
        "190 answers, heard of 2 s",
    ):
        assert words in text


@pytest.fixture
def server(rundir: RunDir) -> Iterator[str]:
    with EmbeddedRedis(rundir.redis) as embedded:
        rundir.write_redis_url(embedded.url)
        yield embedded.url


def test_a_running_run_is_asked_through_its_queue(rundir: RunDir, server: str) -> None:
    with rundir.running(), MetricsWriter(rundir, tensorboard=False) as metrics:
        assert gather(rundir).queue_problem == "the run was not opened there yet"
        queue = QueryQueue(server, run="demo")
        queue.open(cap=10, config_sha256="x")
        queue.put(
            query="q",
            candidates=("a", "b"),
            body={},
            payloads={"a": b"1", "b": b"2"},
        )
        metrics.write({**LEARNING, "labels/asked": None})
        metrics.write({"env_steps": 6000, "labels/allowed": None})
        found = gather(rundir)
    assert found.row == {**LEARNING, "env_steps": 6000}
    assert found.queue is not None
    assert found.queue.pending == 1
    assert "Waiting for labels: 1 query open" in report(found)


def test_labelers_are_judged_and_pardons_heeded(rundir: RunDir, server: str) -> None:
    dataset = PreferenceDataset.create(rundir.preferences, header=header())
    s = [segment(number) for number in range(8)]
    dataset.add_segments(s)
    failed: dict[str, Any] = {"purpose": "gold", "gold_answer": Answer.SECOND}
    dataset.add_events(
        [answer(s[n], s[n + 1], labeler="bob", query_id=f"g{n}", **failed) for n in range(0, 8, 2)]
    )
    dataset.add_events(
        [answer(s[0], s[1]), answer(s[2], s[3], labeler="teacher-0", labeler_kind="teacher")]
    )
    text = report(gather(rundir))
    assert "bob      4        0/4 (0% to 49%)  -" in text
    assert "bob: checks and shared answers look like guessing, 625 to 1." in text
    assert "teacher-0" not in text, "nobody doubts teachers"
    with rundir.running():
        queue = QueryQueue(server, run="demo")
        queue.open(cap=10, config_sha256="x")
        queue.pauses.pardon("bob")
        assert [(each.name, each.state) for each in gather(rundir).labelers][1] == ("bob", "ok")


def test_a_killed_run_says_so(rundir: RunDir) -> None:
    code = (
        "import os, signal, sys; from rlhp.storage.rundir import RunDir\n"
        "with RunDir.open(sys.argv[1]).running(): os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", code, str(rundir.path)], check=False)
    found = gather(rundir)
    assert found.queue_problem == "it has no address yet"
    assert explain(found)[0].startswith("demo died: it was process ")


def test_a_server_that_is_away_is_told_at_once(rundir: RunDir) -> None:
    rundir.write_redis_url("redis://:secret@127.0.0.1:1/0")
    with rundir.running():
        problem = gather(rundir).queue_problem
    assert problem is not None
    assert problem.startswith("ping: no service from Redis at redis://127.0.0.1:1/0: ")
    assert gather(rundir).queue_problem is None, "a finished run has no server to ask"
