"""Code that a config names fails in the middle of a run: one line for people, the whole
traceback in the log.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from rlhp import program
from rlhp.config.schema import RunConfig
from rlhp.errors import RlhpError
from rlhp.storage.metrics import read_metrics
from rlhp.storage.rundir import RunDir
from rlhp.types import Answer, Query
from tests.environments import Drift
from tests.small_runs import small

pytestmark = pytest.mark.usefixtures("ray_session")

HERE = "tests.test_env_failures:"


class Faulty(Drift):
    """Fails at one step, or at all steps from that on, of those that this process
    takes.

    `how` is what happens then: `raises`, `nan` (is paid) or `longer` (is observed).
    `home` is the one process in which it can be made.
    """

    taken = 0

    def __init__(
        self, *, first: int, last: int = 10**9, how: str = "raises", home: int | None = None
    ) -> None:
        super().__init__()
        if home not in (None, os.getpid()):
            raise OSError("no license for a second simulator")
        self._first, self._last, self._how = first, last, how

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        obs, paid, terminated, truncated, info = super().step(action)
        Faulty.taken += 1
        if self._first <= Faulty.taken <= self._last:
            if self._how == "raises":
                raise RuntimeError("the simulator has gone")
            paid = float("nan") if self._how == "nan" else paid
            obs = np.append(obs, obs) if self._how == "longer" else obs
        return obs, paid, terminated, truncated, info


class Scored(Drift):
    """Has a score of its own in `info`, and lists whose length changes."""

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        obs, paid, terminated, truncated, _ = super().step(action)
        return obs, paid, terminated, truncated, {"score": 99, "near": np.arange(self.steps % 4)}


class Tired:
    """Answers five queries, and no more."""

    def __init__(self) -> None:
        self.answered = 0

    def answer(self, query: Query) -> Answer | None:
        self.answered += 1
        if self.answered > 5:
            raise LookupError("I have seen enough")
        return Answer.FIRST


class Moody(nn.Module):
    """Prices a number of batches, and no more."""

    def __init__(self, *, obs_size: int, action_size: int) -> None:
        super().__init__()
        self.linear = nn.Linear(obs_size + action_size, 1)
        self.priced = 0

    def forward(self, obs: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
        self.priced += 1
        if self.priced > 12:
            raise ArithmeticError("no more numbers")
        rewards: torch.Tensor = self.linear(torch.cat([obs, actions], 1)).squeeze(1)
        return rewards


@pytest.fixture(autouse=True)
def _none_taken() -> None:
    Faulty.taken = 0


def faulty(folder: Path, *, runners: int = 0, **kwargs: Any) -> RunConfig:
    return small(
        runs_dir=str(folder),
        env={"id": HERE + "Faulty", "kwargs": kwargs},
        rollout={"num_env_runners": runners},
        clips={"policy_seconds": 0},
    )


def failed(config: RunConfig, *, serial: bool = True) -> tuple[str, str]:
    """The line of a run that fails, and its log."""
    rundir = RunDir.create(config, "faulty")
    with pytest.raises(RlhpError) as caught:
        program.train(config, rundir=rundir, serial=serial)
    line, info = str(caught.value), rundir.info()
    assert "\n" not in line
    assert info.state == "failed"
    assert line[:50] in str(info.error)
    return line, rundir.log_file.read_text()


# Serial


def test_an_environment_that_fails_once_is_made_anew_and_the_run_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = faulty(tmp_path, first=100, last=100)
    rundir = RunDir.create(config, "faulty")
    summary = program.train(config, rundir=rundir, serial=True)
    assert summary.env_steps == 480
    assert summary.labels_answered == 20
    assert read_metrics(rundir.metrics_file)[-1]["env_runners/failures"] == 1
    log = rundir.log_file.read_text()
    assert "made anew, 1 of 3: env.id=" in log
    assert "RuntimeError: the simulator has gone" in log
    out, err = capsys.readouterr()
    assert "failed and was made anew" in out + err


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("raises", "step failed with RuntimeError: the simulator has gone"),
        ("nan", "step: reward: expected a finite number"),
        ("longer", "step: the observation: expected shape (3,), got (6,)"),
    ],
)
def test_one_that_goes_on_failing_ends_the_run_in_one_line(
    how: str, words: str, tmp_path: Path
) -> None:
    line, log = failed(faulty(tmp_path, first=100, how=how))
    assert f"env.id='{HERE}Faulty': {words}" in line
    assert "made anew 3 times before" in line
    assert log.count("made anew, ") == 3
    assert "driver ends with an error" in log
    assert how != "raises" or 'raise RuntimeError("the simulator has gone")' in log, (
        "the whole traceback"
    )


def test_what_is_in_info_is_nobody_s_business(tmp_path: Path) -> None:
    config = small(
        runs_dir=str(tmp_path), env={"id": HERE + "Scored"}, learner={"total_env_steps": 120}
    )
    rundir = RunDir.create(config, "scored")
    program.train(config, rundir=rundir, serial=True)
    assert read_metrics(rundir.metrics_file)[-1]["env_runners/episode_return_mean"] < 0, (
        "what was paid, not the score"
    )


def test_a_teacher_that_fails_ends_the_run_in_one_line(tmp_path: Path) -> None:
    config = small(runs_dir=str(tmp_path), labels={"teacher": {"name": HERE + "Tired"}})
    line, log = failed(config)
    assert f"teacher {HERE}Tired failed 5 times in a row" in line
    assert "LookupError: I have seen enough" in line
    assert 'raise LookupError("I have seen enough")' in log


def test_a_reward_module_that_fails_ends_the_run_in_one_line(tmp_path: Path) -> None:
    config = small(runs_dir=str(tmp_path), reward={"module": HERE + "Moody", "use_action": True})
    line, log = failed(config)
    assert f"reward.module='{HERE}Moody' failed on observations [" in line
    assert "ArithmeticError: no more numbers" in line
    assert 'raise ArithmeticError("no more numbers")' in log


# Distributed


@pytest.mark.slow
@pytest.mark.parametrize("first", [30, 200])
def test_an_env_runner_tells_the_driver_why_it_stops(first: int, tmp_path: Path) -> None:
    """In the warm-up, and while learning."""
    line, log = failed(faulty(tmp_path, runners=1, first=first), serial=False)
    assert (
        f"env.id='{HERE}Faulty': step failed with RuntimeError: the simulator has gone (env "
        "runner 1, " in line
    )
    assert "made anew 3 times before" in line
    assert 'raise RuntimeError("the simulator has gone")' in log


@pytest.mark.slow
def test_an_environment_that_cannot_be_made_in_an_env_runner_says_so(tmp_path: Path) -> None:
    config = faulty(tmp_path, runners=1, first=10**9, home=os.getpid())
    line, log = failed(
        config.model_copy(update={"labels": small(labels={"source": "none"}).labels}), serial=False
    )
    assert f"env.id='{HERE}Faulty' could not be made" in line
    assert "OSError: no license for a second simulator" in line
    assert 'raise OSError("no license for a second simulator")' in log
