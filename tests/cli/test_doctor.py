"""The doctor: this machine passes, and what is wrong comes with a way out."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest

from rlhp.cli import doctor
from rlhp.cli.doctor import Check
from rlhp.config import loading
from rlhp.storage.metrics import MetricsWriter
from rlhp.storage.rundir import RunDir


def levels(checks: Iterator[Check]) -> dict[str, str]:
    return {check.subject: check.level for check in checks}


def test_this_machine_is_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RLHP_REDIS_URL", raising=False)
    (redis,) = doctor.redis_server()
    assert redis.level == "ok"
    assert redis.finding.endswith("starts")
    (torch,) = doctor.torch_()
    assert metadata.version("torch") in torch.finding
    for check in (doctor.python, doctor.processors, doctor.disk, doctor.shared_memory):
        assert all(found.level in ("ok", "warn") and found.finding for found in check())


def test_a_check_that_cannot_be_made_has_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RLHP_REDIS_URL", "redis://:secret@127.0.0.1:1/0")
    (check,) = doctor._guarded("redis server", doctor.redis_server)
    assert check.level == "fail"
    assert check.finding.startswith("ping: no service from Redis at redis://127.0.0.1:1/0")
    assert "secret" not in str(check)


def test_a_line_shows_the_way_out_below() -> None:
    check = Check(level="warn", subject="disk", finding="1.0 GiB free", way_out="free some")
    assert str(check) == "warn  disk         1.0 GiB free\n                   -> free some"


def test_a_valid_configuration_and_its_environment_pass() -> None:
    config = loading.parse({"env": {"id": "Pendulum-v1"}}, sets=["rollout.num_env_runners=1"])
    assert levels(doctor.config(config)) == {"config": "ok", "env": "ok"}


def test_a_configuration_this_machine_is_too_small_for(tmp_path: Path) -> None:
    config = loading.parse({"env": {"id": "CartPole-v1"}}, sets=["rollout.num_env_runners=5000"])
    found = list(doctor.config(config))
    assert [(check.subject, check.level) for check in found] == [
        ("config", "ok"),
        ("env", "warn"),
        ("cpus", "warn"),
    ]
    assert "env.hide_termination" in found[1].way_out
    assert found[2].finding.startswith("5000 env runners want 5000 CPUs, this machine has ")


def test_an_environment_that_returns_what_it_must_not_is_found_out(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(
        "env: {id: 'tests.envs.test_guard:Changed', kwargs: {what: longer}, max_episode_steps: "
        "60}\n"
    )
    (check,) = (found for found in doctor.examine(file) if found.level == "fail")
    assert (
        "env.id='tests.envs.test_guard:Changed': step: the observation: expected shape (1,)"
        in check.finding
    )
    file.write_text(
        "env: {id: 'tests.envs.test_guard:Draws', kwargs: {shape: null}, max_episode_steps: 60}\n"
        "labels: {source: human}\n"
    )
    (check,) = (found for found in doctor.examine(file) if found.level == "fail")
    assert "env.id='tests.envs.test_guard:Draws': render: expected a picture" in check.finding


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    sets = [f"runs_dir={tmp_path}", "name=a", "rollout.num_env_runners=1"]
    return RunDir.create(loading.parse({"env": {"id": "Pendulum-v1"}}, sets=sets), "a")


def test_a_run_is_checked_for_what_it_left(run: RunDir) -> None:
    assert levels(doctor.run(run.path)) == {
        "run": "ok",
        "metrics": "warn",
        "config": "ok",
        "env": "ok",
    }
    with MetricsWriter(run, tensorboard=False) as metrics:
        metrics.write({"env_steps": 1})
    (run.preferences / "segments").mkdir(parents=True)
    found = {check.subject: check for check in doctor.run(run.path)}
    assert found["metrics"].level == "ok"
    assert found["preferences"].level == "fail"
    assert str(run.preferences) in found["preferences"].finding


def test_a_broken_configuration_is_one_failed_line_per_problem(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("env: {id: E}\nlearner: {lr: -1}\nqqq: 1\n")
    found = list(doctor.examine(file))
    assert [check.level for check in found] == ["fail", "fail"]
    assert [check.finding.partition(":")[0] for check in found] == ["learner.lr", "qqq"]


def test_versions_other_than_asked_for_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "rlhp-9.9.dist-info"
    folder.mkdir()
    asked = ["numpy>=999", "click>=8", "not-there-at-all", "nor-this; extra == 'dev'"]
    lines = [
        "Metadata-Version: 2.1",
        "Name: rlhp",
        "Version: 9.9",
        *(f"Requires-Dist: {text}" for text in asked),
    ]
    (folder / "METADATA").write_text("\n".join(lines) + "\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    (check,) = doctor.packages()
    assert check.level == "fail"
    assert (
        check.finding
        == f"numpy is {metadata.version('numpy')}, not >=999; not-there-at-all is missing"
    )
