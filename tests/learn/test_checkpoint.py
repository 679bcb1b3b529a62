"""A checkpoint is whole or not there, and brings back all that learning goes on from."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ray.rllib.core import DEFAULT_MODULE_ID

from rlhp.config import RunConfig
from rlhp.learn.checkpoint import Checkpoints, load_policy
from rlhp.learn.evaluate import policy_act
from rlhp.learn.ppo import PreferencePPO
from rlhp.learn.settings import algorithm_config
from rlhp.rollout.envs import make_vector_env, probe
from tests.small_runs import Basket, action_space, priced, small

pytestmark = pytest.mark.usefixtures("ray_session")
CONFIG = small(learner={"kl_coeff": 0.2, "log_std_init": -1.0, "lr": 1e-2, "lr_final": 0.0, "total_env_steps": 1200})


def algorithm(config: RunConfig = CONFIG, *, resumed: int = 0) -> PreferencePPO:
    """The learner of a serial run, with a reward model that was never fitted."""
    spaces = probe(config.env).spaces
    settings = algorithm_config(config, spaces, action_space=action_space(config), resumed=resumed)
    built: PreferencePPO = settings.build_algo()
    built.env_runner.reward_source = priced(config, spaces)
    built.env_runner.segment_sink = Basket()
    return built


@pytest.fixture(scope="module")
def trained() -> Iterator[PreferencePPO]:
    """A learner after a warm-up and two updates, with a KL coefficient set by hand."""
    built = algorithm()
    built.warm_up(60)
    for _ in range(2):
        built.train()
    learner(built).curr_kl_coeffs_per_module[DEFAULT_MODULE_ID].data.fill_(1.4)
    yield built
    built.stop()


@pytest.fixture(scope="module")
def saved(trained: PreferencePPO, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint of that learner."""
    checkpoints = Checkpoints(tmp_path_factory.mktemp("saved"), keep=2)
    return checkpoints.save(trained, env_steps=180, counters={"iteration": 2, "learning": True})


def learner(built: PreferencePPO) -> Any:
    return built.learner_group._learner


def numbers(state: Any) -> list[np.ndarray]:
    """Every array in a nested state, in order."""
    if isinstance(state, dict):
        return [array for name in sorted(state, key=str) for array in numbers(state[name])]
    if isinstance(state, list | tuple):
        return [array for item in state for array in numbers(item)]
    if isinstance(state, torch.Tensor | np.ndarray | float | int):
        return [np.asarray(state)]
    return []


def assert_equal(one: Any, other: Any) -> None:
    mine, theirs = numbers(one), numbers(other)
    assert len(mine) == len(theirs) > 0
    for left, right in zip(mine, theirs, strict=True):
        np.testing.assert_array_equal(left, right)


def test_a_restored_learner_goes_on_from_where_the_saved_one_was(trained: PreferencePPO, saved: Path) -> None:
    again = algorithm(resumed=1)
    again.restore_from_path(str(saved / "algorithm"))
    for part in ("rl_module", "optimizer"):
        assert_equal(learner(again).get_state(components=part)[part], learner(trained).get_state(components=part)[part])
    kl = learner(again).curr_kl_coeffs_per_module[DEFAULT_MODULE_ID]
    assert float(kl) == pytest.approx(1.4), "RLlib itself would begin with learner.kl_coeff again"
    assert again.env_runner._weights_seq_no == trained.env_runner._weights_seq_no
    assert_equal(
        again.env_runner.module.get_state(), learner(trained).module[DEFAULT_MODULE_ID].get_state(inference_only=True)
    )
    assert_equal(again.env_runner._moments.get_state(), trained.env_runner._moments.get_state())
    lifetime = ("env_runners", "num_env_steps_sampled_lifetime")
    steps = trained.metrics.peek(lifetime)
    assert again.metrics.peek(lifetime) == steps
    again.train()
    assert again.metrics.peek(lifetime) >= steps + 60
    rate = learner(again).get_optimizer(DEFAULT_MODULE_ID).param_groups[0]["lr"]
    assert rate == pytest.approx(1e-2 * (1 - (steps) / 1200), rel=0.2), "the schedule goes on as well"
    again.stop()


def test_exploration_starts_with_the_configured_width(trained: PreferencePPO) -> None:
    fresh = algorithm()
    for module in (learner(fresh).module[DEFAULT_MODULE_ID], fresh.env_runner.module):
        widths = [value for name, value in module.named_parameters() if name.endswith("log_std")]
        assert widths
        assert all((value == -1).all() for value in widths)
    fresh.stop()


def test_a_loaded_policy_acts_as_the_live_one(trained: PreferencePPO, saved: Path) -> None:
    module, moments = load_policy(
        saved / "policy.pt", CONFIG, probe(CONFIG.env).spaces, action_space=action_space(CONFIG)
    )
    assert moments is not None
    vector = make_vector_env(CONFIG.env, num_envs=4, vectorize="sync")
    obs = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    live = policy_act(trained.env_runner.module, trained.env_runner._moments, explore=False, seed=0)(vector)
    loaded = policy_act(module, moments, explore=False, seed=0)(vector)
    np.testing.assert_array_equal(loaded(obs), live(obs))
    assert len({row.tobytes() for row in loaded(obs)}) > 10
    vector.close()


def test_a_policy_that_saw_raw_observations_is_loaded_without_statistics(tmp_path: Path) -> None:
    config = small(learner={"normalize_obs": False})
    built = algorithm(config)
    path = Checkpoints(tmp_path, keep=1).save(built, env_steps=0, counters={})
    built.stop()
    _, moments = load_policy(path / "policy.pt", config, probe(config.env).spaces, action_space=action_space(config))
    assert moments is None


def test_the_policy_file_is_read_without_pickle(saved: Path) -> None:
    data = torch.load(saved / "policy.pt", weights_only=True)
    assert set(data) == {"module", "moments"}


def test_counters_come_back(saved: Path) -> None:
    assert Checkpoints.counters(saved) == {"schema": 1, "env_steps": 180, "iteration": 2, "learning": True}


def test_a_checkpoint_of_another_schema_is_refused(saved: Path, tmp_path: Path) -> None:
    (tmp_path / "rlhp.json").write_text('{"schema": 99}')
    with pytest.raises(ValueError, match=r"checkpoint schema 99, this rlhp reads 1$"):
        Checkpoints.counters(tmp_path)


def test_only_whole_checkpoints_count(saved: Path, tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep=2)
    assert checkpoints.newest() is None
    shutil.copytree(saved, tmp_path / "step-000000180")
    shutil.copytree(saved, tmp_path / ".step-000000400.tmp")
    (tmp_path / "step-000000300" / "algorithm").mkdir(parents=True)
    assert checkpoints.newest() == tmp_path / "step-000000180"


def test_the_newest_few_are_kept_and_what_a_crash_left_is_cleared(trained: PreferencePPO, tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep=2)
    (tmp_path / ".step-000000050.tmp" / "algorithm").mkdir(parents=True)
    for steps in (100, 1000, 20_000):
        checkpoints.save(trained, env_steps=steps, counters={})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-000001000", "step-000020000"]


def test_saving_the_same_step_again_replaces_it(trained: PreferencePPO, tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep=2)
    for turn in range(2):
        checkpoints.save(trained, env_steps=100, counters={"turn": turn})
    assert [Checkpoints.counters(path)["turn"] for path in checkpoints.all()] == [1]


def test_env_runners_elsewhere_learn_weights_and_statistics_with_the_driver(tmp_path: Path) -> None:
    config = small(labels={"source": "none"}, rollout={"num_env_runners": 1})
    spaces = probe(config.env).spaces
    built: PreferencePPO = algorithm_config(config, spaces, action_space=action_space(config)).build_algo()
    built.train()
    built.train()
    policy = learner(built).module[DEFAULT_MODULE_ID].get_state(inference_only=True)
    assert_equal(built.env_runner.module.get_state(), policy)
    (elsewhere,) = built.env_runner_group.foreach_env_runner(
        lambda runner: (runner.module.get_state(), runner._moments.get_state()["known"]), local_env_runner=False
    )
    assert_equal(elsewhere[0], policy)
    assert_equal(elsewhere[1], built.env_runner._moments.get_state()["known"])
    path = Checkpoints(tmp_path, keep=1).save(built, env_steps=0, counters={})
    module, moments = load_policy(path / "policy.pt", config, spaces, action_space=action_space(config))
    assert_equal(module.get_state(), policy)
    assert moments is not None
    assert moments.known["obs"].count == built.env_runner._moments.known["obs"].count > 0
    built.stop()
