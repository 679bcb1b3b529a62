"""The warm-up: as many steps as its segments need, whoever answers, and a word where
nothing else was reached.
"""

from __future__ import annotations

import threading
from collections import deque
from contextlib import ExitStack
from pathlib import Path

import pytest

from rlhp import program
from rlhp.config.schema import RunConfig
from rlhp.monitor.console import LiveTable
from rlhp.monitor.rows import RunStatus
from rlhp.preferences.dataset import PreferenceDataset
from rlhp.run.loop import Loop
from rlhp.run.preflight import check, make_dataset, opened_queue
from rlhp.run.services import Services
from rlhp.storage.metrics import MetricsWriter, read_metrics
from rlhp.storage.rundir import RunDir
from tests.program_parts import ENDLESS, Meanwhile
from tests.small_runs import small

pytestmark = pytest.mark.usefixtures("ray_session")

LARGE_BATCH = {"train_batch_size": 600, "total_env_steps": 660}
NEEDED = 75
"""Two segments of five steps for each of five queries, with what three environments
waste on random offsets.
"""


def warmup_steps(rundir: RunDir) -> int:
    rows = read_metrics(rundir.metrics_file)
    return max(int(row["env_steps"]) for row in rows if row["phase"] == "warm-up")


def test_it_takes_the_steps_that_are_missing_and_not_a_train_batch(tmp_path: Path) -> None:
    config = small(runs_dir=str(tmp_path), learner=LARGE_BATCH)
    rundir = RunDir.create(config, "small")
    summary = program.train(config, rundir=rundir, serial=True)
    assert 50 <= warmup_steps(rundir) <= NEEDED
    assert summary.iterations == 1


class Lagging:
    """Services whose numbers are those of two turns ago, as they are in a cluster."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._seen: deque[RunStatus] = deque([RunStatus(), RunStatus()], maxlen=2)
        self.progress = services.progress
        self.settle = services.settle

    def turn(self) -> None:
        self._services.turn()
        self._seen.append(self._services.status())

    def status(self) -> RunStatus:
        return self._seen[0]


def test_it_collects_no_more_where_the_numbers_of_the_others_come_late(tmp_path: Path) -> None:
    config = small(runs_dir=str(tmp_path), learner=LARGE_BATCH)
    rundir = RunDir.create(config, "small")
    facts = check(config)
    with ExitStack() as stack:
        stack.enter_context(rundir.running())
        queue = stack.enter_context(opened_queue(config, rundir, facts, resume=False))
        make_dataset(config, rundir, facts)
        make_learner, services, _ = stack.enter_context(
            program._serial(config, rundir, facts, queue, print)
        )
        metrics = stack.enter_context(MetricsWriter(rundir, tensorboard=False))
        display = stack.enter_context(LiveTable(config=config, rundir=rundir))
        assert services is not None
        Loop(
            config, rundir, make_learner(), Lagging(services), metrics, display, threading.Event()
        ).run()
    assert 50 <= warmup_steps(rundir) <= NEEDED


def test_a_run_that_ends_in_its_warm_up_says_that_nothing_was_trained(tmp_path: Path) -> None:
    config = small(runs_dir=str(tmp_path), learner={"total_env_steps": 30})
    rundir = RunDir.create(config, "small")
    summary = program.train(config, rundir=rundir, serial=True)
    assert (summary.iterations, summary.interrupted) == (0, False)
    assert rundir.info().state == "finished"
    lines = str(summary).splitlines()
    assert ", untrained policy " in lines[1]
    assert lines[2] == (
        f"warning: the policy was never trained: all {summary.env_steps} env steps went into the "
        "warm-up; give more learner.total_env_steps, or a smaller labels.initial_share or "
        "labels.budget"
    )


def test_a_trained_run_says_nothing_of_the_kind(tmp_path: Path) -> None:
    config = small(
        runs_dir=str(tmp_path), labels={"source": "none"}, learner={"total_env_steps": 60}
    )
    summary = program.train(config, rundir=RunDir.create(config, "small"), serial=True)
    assert summary.iterations == 1
    assert "never trained" not in str(summary)
    assert ", trained policy " in str(summary)


def mute(path: Path) -> RunConfig:
    return small(
        runs_dir=str(path), labels={"teacher": {"name": "tests.environments:Mute"}}, learner=ENDLESS
    )


def test_a_teacher_that_skips_every_query_is_asked_on_until_ctrl_c(tmp_path: Path) -> None:
    config = mute(tmp_path)
    rundir = RunDir.create(config, "small")

    def patience(meanwhile: Meanwhile) -> None:
        meanwhile.until((rundir.preferences / "dataset.json").exists)
        meanwhile.until(lambda: PreferenceDataset.open(rundir.path).counts()["drops"] > 12)

    with Meanwhile(patience):
        summary = program.train(config, rundir=rundir, serial=True)
    assert summary.interrupted
    assert (summary.labels_answered, summary.reward_version, summary.iterations) == (0, 0, 0)
    assert summary.env_steps <= NEEDED, "waiting takes no steps"
    log = rundir.log_file.read_text()
    assert log.count("the teacher skipped all 5 queries of a round; others are asked instead") == 1
