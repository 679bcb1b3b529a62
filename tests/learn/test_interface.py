"""A run knows its learner by `rlhp.learn.interface` alone: another one than PPO is
trained, saved, resumed and played by the same program.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import rlhp
from rlhp import program
from rlhp.config import loading, schema
from rlhp.config.schema import RunConfig
from rlhp.errors import RlhpError
from rlhp.learn import registry
from rlhp.learn.checkpoint import Checkpoints
from rlhp.storage.rundir import RunDir
from tests.program_parts import newest, repeatable, rows, run
from tests.reinforce import ReinforceAlgorithm, ReinforceConfig
from tests.small_runs import SMALL, small

pytestmark = pytest.mark.usefixtures("ray_session")


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a new learner in the package would add to two tables."""
    monkeypatch.setitem(schema.LEARNERS, "reinforce", ReinforceConfig)
    monkeypatch.setitem(registry.ALGORITHMS, "reinforce", ReinforceAlgorithm())


def settings(path: Path, *, steps: int = 360, **changes: Any) -> RunConfig:
    learner = {"algorithm": "reinforce", "total_env_steps": steps}
    return RunConfig.model_validate({**SMALL, "learner": learner, "runs_dir": str(path), **changes})


def weights(rundir: RunDir) -> np.ndarray:
    found: np.ndarray = Checkpoints.policy(newest(rundir))["weights"]
    return found


def test_another_learner_is_trained_on_preferences_saved_and_played(tmp_path: Path) -> None:
    rundir, summary = run(settings(tmp_path))
    assert rundir.info().state == "finished"
    assert summary.env_steps == 360
    assert summary.labels_answered == summary.labels_asked > 5
    assert summary.reward_version >= 2
    history = rows(rundir)
    assert history[0]["phase"] == "warm-up"
    assert history[-1]["phase"] == "learning"
    assert np.isfinite(history[-1]["learner/policy_loss"])
    assert history[-1]["predicted_return_mean"] != history[-1]["env_runners/episode_return_mean"]
    assert (weights(rundir) != 0).any()
    assert Checkpoints.counters(newest(rundir))["algorithm"] == "reinforce"
    again = rlhp.evaluate(rundir.path, episodes=2, explore=False, seed=1_000_003)
    assert again["true_return_mean"] == pytest.approx(summary.true_return)
    assert rlhp.Run(rundir.path).policy()(np.zeros(3, np.float32)).shape == (2,)


def test_it_learns_from_the_env_reward_in_the_control_arm(tmp_path: Path) -> None:
    rundir, summary = run(settings(tmp_path, steps=120, labels={"source": "none"}))
    assert (summary.env_steps, summary.iterations) == (120, 2)
    assert (weights(rundir) != 0).any()


def test_its_resumed_run_is_the_run_that_was_never_stopped(tmp_path: Path) -> None:
    config = settings(tmp_path, checkpoint={"every_env_steps": 120, "keep": 9})
    rundir, _ = run(config)
    history, learned = repeatable(rundir), weights(rundir)
    for late in ("step-000000240", "step-000000360"):
        shutil.rmtree(rundir.checkpoints / late)
    run(config, resume=rundir)
    assert repeatable(rundir) == history
    np.testing.assert_array_equal(weights(rundir), learned)


def test_a_checkpoint_of_another_algorithm_is_refused_and_its_run_left_as_it_is(
    tmp_path: Path,
) -> None:
    rundir, _ = run(settings(tmp_path, steps=120, labels={"source": "none"}))
    before = rundir.config_file.read_bytes()
    other = small(runs_dir=str(tmp_path), labels={"source": "none"})
    with pytest.raises(RlhpError, match=r"a checkpoint of learner\.algorithm=reinforce") as caught:
        program.train(other, rundir=rundir, resume=True, serial=True)
    assert str(caught.value).endswith("set learner.algorithm=reinforce, or begin a new run")
    assert "\n" not in str(caught.value)
    assert rundir.config_file.read_bytes() == before
    rundir.config_file.write_text(loading.dump(other))
    with pytest.raises(RlhpError, match=r"a checkpoint of learner\.algorithm=reinforce"):
        program.evaluate(rundir, episodes=1, explore=False, seed=0)


def test_a_key_of_another_algorithm_names_the_algorithm_whose_it_is() -> None:
    with pytest.raises(RlhpError) as caught:
        loading.parse(SMALL, sets=["learner.algorithm=reinforce"])
    (line,) = str(caught.value).splitlines()
    assert line == (
        "learner.hidden and 3 more: of learner.algorithm=ppo, got [8] with "
        "learner.algorithm=reinforce; take them out, or set learner.algorithm=ppo"
    )
    with pytest.raises(RlhpError) as caught:
        loading.parse(SMALL, sets=["learner.baseline=false"])
    assert str(caught.value) == (
        "learner.baseline: of learner.algorithm=reinforce, got false (--set learner.baseline) "
        "with learner.algorithm=ppo; take it out, or set learner.algorithm=reinforce"
    )


def test_a_key_that_two_algorithms_have_is_checked_by_the_one_that_runs() -> None:
    data = {"env": {"id": "E"}, "learner": {"algorithm": "reinforce", "lr": 0.5}}
    config = loading.parse(data)
    assert loading.flat(config)["learner.lr"] == 0.5
    assert "learner.clip" not in loading.flat(config)
    assert loading.parse(loading._plain(config)) == config
    with pytest.raises(RlhpError, match=r"^learner\.lr: must be greater than 0, got -1"):
        loading.parse(data, sets=["learner.lr=-1"])
    with pytest.raises(RlhpError, match=r"unknown key.* with learner\.algorithm=reinforce; did"):
        loading.parse(data, sets=["learner.basline=true"])
