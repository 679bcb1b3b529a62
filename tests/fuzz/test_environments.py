"""Whatever an environment does, a run of it ends well or in one line, on trial, in one
process and in many.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from rlhp import program
from rlhp.config.schema import EnvConfig, RunConfig
from rlhp.envs.make import EnvFacts, probe
from rlhp.errors import RlhpError
from rlhp.labeling.clips.views import check_drawable
from rlhp.run.preflight import check
from rlhp.storage.rundir import RunDir
from tests.fuzz.plans import LIMITS, plans
from tests.fuzz.scale import times
from tests.fuzz.strange_envs import Plan
from tests.small_runs import small

pytestmark = [pytest.mark.fuzz, pytest.mark.timeout(1800)]

STRANGE = "tests.fuzz.strange_envs:Strange"
SOURCES = ["none", "oracle"] if times(1) > 1 else ["none"]
"""A run that asks has five processes more to start, each of which takes as long as all
the rest.
"""
NAMES = itertools.count()


def few(count: int) -> settings:
    """So many whole runs, which take too long to be shrunk."""
    phases = [Phase.explicit, Phase.generate]
    return settings(
        max_examples=times(count), suppress_health_check=list(HealthCheck), phases=phases
    )


def one_line(error: RlhpError) -> str:
    """The message, which is one line that somebody can read."""
    text = str(error)
    assert text.strip()
    assert "\n" not in text
    assert len(text) < 1500
    return text


def run(config: RunConfig, folder: Path, *, serial: bool) -> None:
    """To its end or to one line, which is in the log with what it came from."""
    try:
        facts = check(config)
    except RlhpError as error:
        one_line(error)
        return
    assert isinstance(facts, EnvFacts)
    rundir = RunDir.create(config, "strange")
    try:
        summary = program.train(config, rundir=rundir, serial=serial)
    except RlhpError as error:
        one_line(error)
        assert rundir.info().state == "failed"
        assert "driver ends with an error" in rundir.log_file.read_text()
    else:
        assert summary.env_steps >= config.learner.total_env_steps
        assert rundir.info().state == "finished"


def tiny(
    folder: Path, plan: Plan, keys: dict[str, Any], *, runners: int, source: str, normalize: bool
) -> RunConfig:
    """A run of a few hundred env steps."""
    labels: dict[str, Any] = {"source": source, "budget": 8, "teacher": {"name": "oracle"}}
    if source == "none":
        labels = {"source": "none"}
    return small(
        runs_dir=str(folder),
        name=f"strange-{next(NAMES)}",
        env={"id": STRANGE, "kwargs": plan, "max_episode_steps": None, **keys},
        rollout={"num_env_runners": runners, "num_envs_per_env_runner": 2},
        query={"segment_length": 1},
        labels=labels,
        reward={"members": 2, "pretrain_epochs": 1, "use_action": True},
        learner={
            "total_env_steps": 160, "train_batch_size": 40, "minibatch_size": 20, "num_epochs": 1,
            "normalize_obs": normalize,
        },
        evaluation={"episodes": 1},
        clips={"policy_seconds": 0},
    )  # fmt: skip


@settings(max_examples=times(500), suppress_health_check=list(HealthCheck))
@given(plan=plans(late=False), keys=LIMITS)
def test_a_trial_knows_the_environment_or_refuses_it_in_one_line(
    plan: Plan, keys: dict[str, Any]
) -> None:
    config = EnvConfig(id=STRANGE, kwargs=plan, **keys)
    for look in (probe, check_drawable):
        try:
            look(config)
        except RlhpError as error:
            one_line(error)


@pytest.mark.usefixtures("ray_session")
def test_a_serial_run_ends_well_or_in_one_line(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("serial")

    @few(20)
    @given(plans(late=True), LIMITS, st.sampled_from(["oracle", "none"]), st.booleans())
    def every(plan: Plan, keys: dict[str, Any], source: str, normalize: bool) -> None:
        run(
            tiny(folder, plan, keys, runners=0, source=source, normalize=normalize),
            folder,
            serial=True,
        )

    every()


@pytest.mark.usefixtures("ray_session")
def test_a_distributed_run_ends_well_or_in_one_line(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("distributed")

    @few(3)
    @given(plans(late=True), LIMITS, st.sampled_from(SOURCES))
    def every(plan: Plan, keys: dict[str, Any], source: str) -> None:
        run(
            tiny(folder, plan, keys, runners=1, source=source, normalize=True), folder, serial=False
        )

    every()
