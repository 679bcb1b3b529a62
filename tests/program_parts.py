"""Small serial runs, what they leave on disk, and what a person does beside one."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from rlhp import program
from rlhp.config.schema import RunConfig
from rlhp.learn.checkpoint import Checkpoints
from rlhp.queue.queue import QueryQueue
from rlhp.run.summary import Summary
from rlhp.storage.metrics import read_metrics
from rlhp.storage.rundir import RunDir

ON_THE_CLOCK = {
    "wall_seconds",
    "env_steps_per_second",
    "labels/per_minute",
    "queue/oldest_age_seconds",
    "reward/predict_wait_ms",
    "reward/predict_us_per_step",
    "time/sample_seconds",
    "time/learn_seconds",
    "memory/learner_mb",
    "memory/env_runner_mb",
}
ENDLESS = {"total_env_steps": 10**7}


def run(config: RunConfig, *, resume: RunDir | None = None) -> tuple[RunDir, Summary]:
    """Train serially, in a new run directory or on in an old one."""
    rundir = resume or RunDir.create(config, "small")
    return rundir, program.train(config, rundir=rundir, resume=resume is not None, serial=True)


def rows(rundir: RunDir) -> list[dict[str, Any]]:
    return read_metrics(rundir.metrics_file)


def repeatable(rundir: RunDir) -> list[dict[str, Any]]:
    """The rows without what a clock decides."""
    return [
        {name: value for name, value in row.items() if name not in ON_THE_CLOCK}
        for row in rows(rundir)
    ]


def newest(rundir: RunDir) -> Path:
    found = Checkpoints(rundir.checkpoints, keep=2).newest()
    assert found is not None
    return found


def policy(rundir: RunDir) -> dict[str, torch.Tensor]:
    weights: dict[str, torch.Tensor] = torch.load(newest(rundir) / "policy.pt", weights_only=True)[
        "module"
    ]
    return weights


def queue_of(rundir: RunDir) -> QueryQueue:
    url = rundir.redis_url()
    assert url is not None
    return QueryQueue(url, run=rundir.name)


class Meanwhile:
    """What a person does beside a run in the main thread; its first failure ends the
    run and fails the test.
    """

    def __init__(self, act: Callable[[Meanwhile], None]) -> None:
        self.over = threading.Event()
        self.error: BaseException | None = None
        self._act = act
        self._thread = threading.Thread(target=self._run, name="meanwhile", daemon=True)

    def until(self, holds: Callable[[], object], *, seconds: float = 60.0) -> None:
        """Waits for what the run brings about."""
        for _ in range(int(seconds / 0.05)):
            if holds():
                return
            assert not self.over.wait(0.05), "the run ended first"
        raise AssertionError("waited in vain")

    def _run(self) -> None:
        try:
            self._act(self)
        except BaseException as error:
            self.error = error
        finally:
            if not self.over.is_set():
                os.kill(os.getpid(), signal.SIGINT)

    def __enter__(self) -> Meanwhile:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self._thread.join(30)
        if self.error is not None:
            raise self.error
