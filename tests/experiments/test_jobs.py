"""`rlhp submit` and `rlhp job`: what is refused here, and a real run on a real head
with a Redis of one's own.
"""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from rlhp.cli import main
from rlhp.experiments import jobs
from rlhp.preferences.dataset import PreferenceDataset
from rlhp.queue.embedded import EmbeddedRedis
from rlhp.storage import credentials
from rlhp.storage.metrics import read_metrics
from rlhp.storage.rundir import RunDir
from tests.experiments.job_server import job_server
from tests.fault_parts import SETTINGS

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _no_cluster_of_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*jobs.ADDRESS, credentials.URL, credentials.PASSWORD, credentials.PASSWORD_FILE):
        monkeypatch.delenv(name, raising=False)


def order(config: Path, **changes: Any) -> jobs.Order:
    start: dict[str, Any] = {
        "name": "run",
        "sets": (),
        "working_dir": config.parent,
        "image": None,
        "env": (),
        "reserve": (),
    }
    return jobs.order(config, **{**start, **changes})


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "mine.yaml"
    file.write_text("env: {id: Pendulum-v1}\n")
    return file


def test_a_job_is_the_command_of_a_run_under_its_name(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HERE", "it is")
    made = order(
        config,
        sets=["seed=3", "labels.instruction=a b"],
        env=["HERE", "OTHER=1"],
        reserve=["learner=0.5"],
    )
    assert made.entrypoint == (
        "python -m rlhp train mine.yaml --name run --or-resume --set ray.address=auto --set seed=3 "
        "--set 'labels.instruction=a b'"
    )
    assert made.runtime_env["working_dir"] == str(config.parent)
    assert made.runtime_env["env_vars"] == {
        "RAY_JOB_STOP_WAIT_TIME_S": "120",
        "HERE": "it is",
        "OTHER": "1",
    }
    assert made.reserve == {"learner": 0.5}
    image = order(Path("configs/mine.yaml"), working_dir=None, image="registry/rlhp:1")
    assert set(image.runtime_env) == {"env_vars", "image_uri"}
    assert order(config, name=None).name.startswith("mine-2")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"sets": ["redis.url=redis://:pw@host:1/0"]},
            r"redis\.url=redis://:\*\*\*@host.*: a job's command and files",
        ),
        ({"sets": ["seed=x"]}, "seed: must be a whole number"),
        (
            {"working_dir": ROOT / "docs"},
            "the config lies outside; give --working-dir a directory that holds it",
        ),
        (
            {"env": ["RLHP_REDIS_PASSWORD=pw"]},
            "--env RLHP_REDIS_PASSWORD: whoever reaches the cluster's dashboard",
        ),
        ({"env": ["RLHP_REDIS_URL=redis://:pw@host:1/0"]}, "--env RLHP_REDIS_URL: whoever reaches"),
        ({"env": ["AWS_SECRET"]}, "--env AWS_SECRET: it is not set here"),
        ({"env": ["WANDB_TOKEN=x"]}, "--env WANDB_TOKEN: whoever reaches"),
        (
            {"reserve": ["learner=many"]},
            "--reserve takes NAME=AMOUNT, as learner=1, got 'learner=many'",
        ),
        ({"name": "a/b"}, "--name: letters, digits"),
    ],
)
def test_what_could_not_work_there_is_refused_here(
    config: Path, changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValueError, match=words) as raised:
        order(config, **changes)
    assert ":pw@" not in str(raised.value)


def test_without_a_job_server_the_way_there_is_said(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    address = "http://127.0.0.1:9"
    code = main.run(
        ["submit", str(config), "--working-dir", str(config.parent), "--address", address]
    )
    assert code == main.MISTAKE
    assert f"error: no job server of Ray answers at {address}: " in capsys.readouterr().err


def test_a_run_does_not_go_where_ray_unpacked_its_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unpacked = tmp_path / "runtime_resources/working_dir_files/_ray_pkg_1"
    unpacked.mkdir(parents=True)
    monkeypatch.chdir(unpacked)
    monkeypatch.delenv("RLHP_HOME", raising=False)
    with pytest.raises(
        ValueError,
        match=r"runs_dir=runs would lie in .* set runs_dir to an absolute path .* RLHP_HOME",
    ):
        RunDir.existing("runs", "x")
    monkeypatch.setenv("RLHP_HOME", str(tmp_path))
    assert RunDir.existing("runs", "x") is None


SECRET = secrets.token_hex(12)


@pytest.fixture
def client(tmp_path: Path) -> Iterator[dict[str, str]]:
    """The environment of somebody who may submit; the head knows a Redis and, from a
    file, its password.
    """
    with EmbeddedRedis(tmp_path / "server") as server:
        admin = server.url
        import redis

        with redis.Redis.from_url(admin) as connection:
            connection.config_set("requirepass", SECRET)
        password = tmp_path / "password"
        password.write_text(SECRET + "\n")
        env = {
            "RLHP_REDIS_URL": credentials.without_password(admin),
            "RLHP_REDIS_PASSWORD_FILE": str(password),
            "RLHP_SECRETS_DIR": str(tmp_path / "secrets"),
            "PYTHONPATH": str(ROOT),
        }
        with job_server(tmp_path / "home", cpus=3, env=env) as access:
            yield {**os.environ, **access, "PYTHONPATH": str(ROOT)}


def upload(tmp_path: Path) -> Path:
    """A folder with an environment and a teacher that only the job's own files hold,
    and a config that names them.
    """
    folder = tmp_path / "upload"
    folder.mkdir()
    (folder / "my_parts.py").write_text((ROOT / "tests/environments.py").read_text())
    settings = {name: value for name, value in SETTINGS.items() if name != "name"}
    settings["env"] = {**settings["env"], "id": "my_parts:Drift"}
    settings["rollout"] = {**settings["rollout"], "num_env_runners": 1}
    settings["labels"] = {
        **settings["labels"],
        "budget": 60,
        "initial_share": 0.2,
        "teacher": {"name": "my_parts:ByObservation"},
    }
    settings["reward"] = {**settings["reward"], "replicas": None}
    settings["learner"] = {**settings["learner"], "num_learners": 0}
    settings["checkpoint"] = {"every_env_steps": None}
    (folder / "tiny.yaml").write_text(yaml.dump(settings))
    return folder


def learned(metrics: Path) -> int:
    """Env steps of the newest row that is no warm-up; 0 where there is none."""
    return max(
        (row["env_steps"] for row in read_metrics(metrics) if row["phase"] == "learning"), default=0
    )


@pytest.mark.slow
@pytest.mark.cluster
@pytest.mark.timeout(600)
def test_a_run_is_submitted_once_stopped_and_resumed_and_no_secret_is_written(
    tmp_path: Path, client: dict[str, str]
) -> None:
    folder = upload(tmp_path)

    def rlhp(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "rlhp", *words]
        return subprocess.run(
            command,
            capture_output=True,
            text=True,
            env=client,
            cwd=folder,
            check=False,
            timeout=280,
        )

    first = rlhp("submit", "tiny.yaml", "--name", "far", "--no-wait")
    assert first.returncode == 0, first.stderr
    assert "follow it with rlhp job logs far" in first.stdout
    metrics = tmp_path / "home/runs/far/metrics.jsonl"

    def until_it_learned(*, more_than: int) -> None:
        deadline = time.monotonic() + 200
        while not (metrics.exists() and learned(metrics) > more_than):
            assert time.monotonic() < deadline, rlhp("job", "logs", "far", "--no-wait").stdout
            time.sleep(0.2)

    until_it_learned(more_than=0)
    again = rlhp("submit", "tiny.yaml", "--name", "far", "--no-wait")
    assert (again.returncode, "run far is under way already as job far" in again.stderr) == (
        2,
        True,
    )

    assert rlhp("job", "stop", "far").stdout == "job far: STOPPED\n"
    rundir = RunDir.open(tmp_path / "home/runs/far")
    said = rlhp("job", "logs", "far", "--no-wait").stdout
    assert "stopping after this iteration, with a checkpoint" in said
    assert rundir.info().state == "interrupted", said
    assert list(rundir.checkpoints.glob("step-*")), "its only one is that of the stop"
    stopped_at, answers = (
        learned(metrics),
        {row.query_id for row in PreferenceDataset.open(rundir.path).events()},
    )

    assert "job far.2 at" in rlhp("submit", "tiny.yaml", "--name", "far", "--no-wait").stdout
    until_it_learned(more_than=stopped_at)
    assert rlhp("job", "stop", "far").stdout == "job far.2: STOPPED\n"
    events = [row.query_id for row in PreferenceDataset.open(rundir.path).events()]
    assert answers <= set(events), "an answer was lost"
    assert len(set(events)) == len(events), "a query was asked twice"

    assert [line.split()[:2] for line in rlhp("job", "list").stdout.splitlines()] == [
        ["far", "STOPPED"], ["far.2", "STOPPED"]
    ]  # fmt: skip
    assert (
        "command: python -m rlhp train tiny.yaml --name far --or-resume"
        in rlhp("job", "status", "far").stdout
    )

    session = Path(client["RAY_SESSION"])
    files = [
        each for place in (rundir.path, session) for each in place.rglob("*") if each.is_file()
    ]
    assert len(files) > 30
    found = [str(each) for each in files if SECRET.encode() in each.read_bytes()]
    assert found == [], "the password of Redis, where somebody may read it who should not know it"
    assert SECRET not in said
