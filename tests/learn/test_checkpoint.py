"""A checkpoint is whole or not there, and brings back all that learning goes on from."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ray.rllib.core import DEFAULT_MODULE_ID

from rlhp.config.schema import RunConfig
from rlhp.envs.make import make_vector_env, probe
from rlhp.errors import RlhpError
from rlhp.learn import checkpoint
from rlhp.learn.checkpoint import Checkpoints
from rlhp.learn.evaluate import policy_act
from rlhp.learn.ppo.algorithm import PreferencePPO
from rlhp.learn.ppo.entry import loaded
from rlhp.learn.ppo.rllib import algorithm_config
from rlhp.storage.remote import Mirror
from tests.labeling.clips.bucket import bucket
from tests.small_runs import Basket, action_space, priced, small

pytestmark = pytest.mark.usefixtures("ray_session")
CONFIG = small(
    learner={
        "kl_coeff": 0.2,
        "log_std_init": -1.0,
        "lr": 1e-2,
        "lr_final": 0.0,
        "total_env_steps": 1200,
    }
)


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


def test_a_restored_learner_goes_on_from_where_the_saved_one_was(
    trained: PreferencePPO, saved: Path
) -> None:
    again = algorithm(resumed=1)
    Checkpoints.restore(saved, again)
    for part in ("rl_module", "optimizer"):
        assert_equal(
            learner(again).get_state(components=part)[part],
            learner(trained).get_state(components=part)[part],
        )
    kl = learner(again).curr_kl_coeffs_per_module[DEFAULT_MODULE_ID]
    assert float(kl) == pytest.approx(1.4), "RLlib itself would begin with learner.kl_coeff again"
    assert again.env_runner._weights_seq_no == trained.env_runner._weights_seq_no
    assert_equal(
        again.env_runner.module.get_state(),
        learner(trained).module[DEFAULT_MODULE_ID].get_state(inference_only=True),
    )
    assert_equal(again.env_runner._moments.get_state(), trained.env_runner._moments.get_state())
    lifetime = ("env_runners", "num_env_steps_sampled_lifetime")
    steps = trained.metrics.peek(lifetime)
    assert again.metrics.peek(lifetime) == steps
    again.train()
    assert again.metrics.peek(lifetime) >= steps + 60
    rate = learner(again).get_optimizer(DEFAULT_MODULE_ID).param_groups[0]["lr"]
    assert rate == pytest.approx(1e-2 * (1 - (steps) / 1200), rel=0.2), (
        "the schedule goes on as well"
    )
    again.stop()


def test_exploration_starts_with_the_configured_width(trained: PreferencePPO) -> None:
    fresh = algorithm()
    for module in (learner(fresh).module[DEFAULT_MODULE_ID], fresh.env_runner.module):
        widths = [value for name, value in module.named_parameters() if name.endswith("log_std")]
        assert widths
        assert all((value == -1).all() for value in widths)
    fresh.stop()


def test_a_loaded_policy_acts_as_the_live_one(trained: PreferencePPO, saved: Path) -> None:
    module, moments = loaded(
        Checkpoints.policy(saved),
        CONFIG,
        probe(CONFIG.env).spaces,
        action_space=action_space(CONFIG),
    )
    assert moments is not None
    vector = make_vector_env(CONFIG.env, num_envs=4, vectorize="sync")
    obs = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    live = policy_act(
        trained.env_runner.module, trained.env_runner._moments, explore=False, seed=0
    )(vector)
    again = policy_act(module, moments, explore=False, seed=0)(vector)
    np.testing.assert_array_equal(again(obs), live(obs))
    assert len({row.tobytes() for row in again(obs)}) > 10
    vector.close()


def test_a_policy_that_saw_raw_observations_is_loaded_without_statistics(tmp_path: Path) -> None:
    config = small(learner={"normalize_obs": False})
    built = algorithm(config)
    path = Checkpoints(tmp_path, keep=1).save(built, env_steps=0, counters={})
    built.stop()
    _, moments = loaded(
        Checkpoints.policy(path),
        config,
        probe(config.env).spaces,
        action_space=action_space(config),
    )
    assert moments is None


def test_the_policy_file_is_read_without_pickle(saved: Path) -> None:
    data = torch.load(saved / "policy.pt", weights_only=True)
    assert set(data) == {"module", "moments"}


def test_no_file_of_a_checkpoint_can_run_code(saved: Path) -> None:
    for file in saved.glob("*.pt"):
        torch.load(file, weights_only=True)
    assert {file.suffix for file in saved.iterdir()} == {".pt", ".json"}


def test_counters_come_back(saved: Path) -> None:
    counters = Checkpoints.counters(saved)
    assert set(counters.pop("files")) == {"algorithm.pt", "policy.pt"}
    assert counters == {
        "schema": 3,
        "algorithm": "ppo",
        "env_steps": 180,
        "true_return": None,
        "iteration": 2,
        "learning": True,
    }


def test_a_checkpoint_of_another_schema_is_refused(saved: Path, tmp_path: Path) -> None:
    (tmp_path / "rlhp.json").write_text('{"schema": 99}')
    with pytest.raises(ValueError, match=r"checkpoint schema 99, this rlhp reads 3; go on with"):
        Checkpoints.counters(tmp_path)


def test_a_checkpoint_that_names_no_algorithm_is_ppos(saved: Path, tmp_path: Path) -> None:
    path = shutil.copytree(saved, tmp_path / "step-000000180")
    facts = Checkpoints.counters(path)
    del facts["algorithm"]
    (path / "rlhp.json").write_text(json.dumps(facts | {"sha256": checkpoint._digest(facts)}))
    assert Checkpoints(tmp_path, keep=1).newest() == path
    Checkpoints.refuse_other(path, "ppo")
    with pytest.raises(RlhpError, match=r"a checkpoint of learner\.algorithm=ppo, which") as caught:
        Checkpoints.refuse_other(path, "sac")
    assert str(path) in str(caught.value)


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "a file is missing": (lambda path: (path / "policy.pt").unlink(), "policy.pt is missing"),
    "a file was cut short": (
        lambda path: os.truncate(path / "algorithm.pt", 1000),
        "algorithm.pt has 1000 bytes",
    ),
    "a bit fell over": (
        lambda path: flip(path / "algorithm.pt"),
        "algorithm.pt is not what was written",
    ),
    "its facts were cut short": (
        lambda path: os.truncate(path / "rlhp.json", 90),
        "rlhp.json cannot be read",
    ),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_used(
    what: str, saved: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    spoil, said = DAMAGE[what]
    shutil.copytree(saved, tmp_path / "step-000000120")
    spoil(shutil.copytree(saved, tmp_path / "step-000000180"))
    checkpoints = Checkpoints(tmp_path, keep=2)
    assert checkpoints.newest() == tmp_path / "step-000000120"
    assert said in caplog.text
    assert "step-000000180 is not used" in caplog.text


def flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


def test_only_whole_checkpoints_count(saved: Path, tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep=2)
    assert checkpoints.newest() is None
    shutil.copytree(saved, tmp_path / "step-000000180")
    shutil.copytree(saved, tmp_path / ".step-000000400.tmp")
    (tmp_path / "step-000000300").mkdir(parents=True)
    assert checkpoints.newest() == tmp_path / "step-000000180"


def test_the_best_is_kept_beside_the_newest(trained: PreferencePPO, tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep=1, keep_best=True)
    for steps, true_return in ((100, -3.0), (200, 5.0), (300, None), (400, 1.0)):
        checkpoints.save(trained, env_steps=steps, counters={}, true_return=true_return)
    assert [path.name for path in checkpoints.all()] == ["step-000000200", "step-000000400"]
    assert checkpoints.best() == tmp_path / "step-000000200"
    assert checkpoints.newest() == tmp_path / "step-000000400", "a run goes on from the newest"


def test_copies_in_a_bucket_are_those_of_the_directory_and_come_back(
    trained: PreferencePPO, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "id")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    with bucket() as server:
        url = server.url("models/rlhp")
        there = Checkpoints(tmp_path / "here", keep=2, mirror=Mirror(url, "run"))
        for steps in (100, 200, 300):
            there.save(trained, env_steps=steps, counters={"turn": steps})
        there.close()
        prefix = "models/rlhp/run"
        finished = sorted(key for key in server.objects if key.endswith("/rlhp.json"))
        assert finished == [f"{prefix}/step-000000{steps}/rlhp.json" for steps in (200, 300)]
        server.objects[f"{prefix}/step-000000400/algorithm.pt"] = b"cut short"

        elsewhere = Checkpoints(tmp_path / "elsewhere", keep=2, mirror=Mirror(url, "run"))
        path = elsewhere.fetch()
        assert path == tmp_path / "elsewhere" / "step-000000300"
        assert Checkpoints.counters(path)["turn"] == 300
        again = algorithm(resumed=1)
        Checkpoints.restore(path, again)
        assert_equal(
            learner(again).get_state(components="rl_module"),
            learner(trained).get_state("rl_module"),
        )
        again.stop()


def test_a_store_that_is_away_holds_nobody_up(
    trained: PreferencePPO, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("in the way")
    checkpoints = Checkpoints(
        tmp_path / "here", keep=2, mirror=Mirror(f"file://{tmp_path}/file", "run")
    )
    checkpoints.save(trained, env_steps=100, counters={})
    checkpoints.close()
    assert f"checkpoints are not copied to file://{tmp_path}/file/run" in caplog.text
    assert checkpoints.newest() is not None


@pytest.mark.parametrize(
    ("url", "said"),
    [("/tmp/x", "is file:///directory"), ("gs://", "checkpoint.store=.* cannot be used")],
)
def test_what_is_no_place_for_checkpoints_is_refused(url: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Mirror(url, "run")


def test_the_newest_few_are_kept_and_what_a_crash_left_is_cleared(
    trained: PreferencePPO, tmp_path: Path
) -> None:
    checkpoints = Checkpoints(tmp_path, keep=2)
    (tmp_path / ".step-000000050.tmp").mkdir(parents=True)
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
    built: PreferencePPO = algorithm_config(
        config, spaces, action_space=action_space(config)
    ).build_algo()
    built.train()
    built.train()
    policy = learner(built).module[DEFAULT_MODULE_ID].get_state(inference_only=True)
    assert_equal(built.env_runner.module.get_state(), policy)
    (elsewhere,) = built.env_runner_group.foreach_env_runner(
        lambda runner: (runner.module.get_state(), runner._moments.get_state()["known"]),
        local_env_runner=False,
    )
    assert_equal(elsewhere[0], policy)
    assert_equal(elsewhere[1], built.env_runner._moments.get_state()["known"])
    path = Checkpoints(tmp_path, keep=1).save(built, env_steps=0, counters={})
    module, moments = loaded(
        Checkpoints.policy(path), config, spaces, action_space=action_space(config)
    )
    assert_equal(module.get_state(), policy)
    assert moments is not None
    assert moments.known["obs"].count == built.env_runner._moments.known["obs"].count > 0
    built.stop()


def test_a_run_goes_on_with_another_number_of_env_runners(
    trained: PreferencePPO, saved: Path
) -> None:
    config = small(rollout={"num_env_runners": 2})
    spaces = probe(config.env).spaces
    wider: PreferencePPO = algorithm_config(
        config, spaces, action_space=action_space(config)
    ).build_algo()
    Checkpoints.restore(saved, wider)
    policy = learner(trained).module[DEFAULT_MODULE_ID].get_state(inference_only=True)
    facts = wider.env_runner_group.foreach_env_runner(
        lambda runner: (
            runner.module.get_state(),
            runner._moments.get_state()["known"],
            runner._weights_seq_no,
        ),
        local_env_runner=False,
    )
    assert len(facts) == 2
    for weights, known, version in facts:
        assert_equal(weights, policy)
        assert_equal(known, trained.env_runner._moments.get_state()["known"])
        assert version == trained.env_runner._weights_seq_no
    wider.stop()
