"""A run that somebody else has taken over ends, and leaves the answers to whoever that
is.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from rlhp import program
from rlhp.cli import main
from rlhp.errors import RlhpError
from rlhp.learn.ppo.algorithm import PreferencePPO
from rlhp.queue.embedded import EmbeddedRedis
from rlhp.storage import lease, provenance
from rlhp.storage.lease import Owner, TakenOver
from rlhp.storage.rundir import RunDir
from tests.small_runs import small

pytestmark = pytest.mark.usefixtures("ray_session")


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    with EmbeddedRedis(tmp_path / "redis") as server:
        yield server.url


def test_a_run_that_was_taken_over_ends_and_the_new_owner_has_the_queue(
    tmp_path: Path, url: str
) -> None:
    config = small(name="same", runs_dir=str(tmp_path / "one"), redis={"url": url})
    rundir = RunDir.create(config, "same")
    other = Owner.here("/far/same")

    with redis.Redis.from_url(url, decode_responses=True) as client:

        def replaced(row: dict[str, Any]) -> None:
            client.hset(
                "rlhp:{same}:meta", mapping={"owner": other.token, "owner_who": other.to_json()}
            )

        with pytest.raises(TakenOver, match="/far/same"):
            program.train(rundir.config(), rundir=rundir, serial=True, watch=replaced)
        assert client.hget("rlhp:{same}:meta", "owner") == other.token
        assert client.hget("rlhp:{same}:meta", "state") == "open", (
            "it is not closed to the new owner's labelers"
        )
        assert rundir.info().state == "failed"

        second = RunDir.create(
            config.model_copy(update={"runs_dir": str(tmp_path / "two")}), "same"
        )
        with pytest.raises(
            RlhpError, match=r"another run of the name same: process \d+ on .* in /far/same"
        ):
            program.train(second.config(), rundir=second, serial=True)
        assert not (second.preferences / "dataset.json").exists()


def test_a_resume_that_is_refused_changes_nothing_of_the_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rundir = RunDir.create(
        small(name="same", runs_dir=str(tmp_path), labels={"source": "none"}), "same"
    )
    parent = os.getppid()  # a process that is there
    rundir.update(state="running", pid=parent, pid_started=provenance.process_start(parent))
    before = {file.name: file.read_bytes() for file in rundir.path.iterdir()}
    assert main.run(["train", "--resume", str(rundir.path), "--serial", "--set", "seed=7"]) == 2
    assert f"process {parent}" in capsys.readouterr().err
    assert {file.name: file.read_bytes() for file in rundir.path.iterdir()} == before


def test_a_driver_that_stood_still_meanwhile_writes_neither_rows_nor_checkpoints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = small(name="same", runs_dir=str(tmp_path), labels={"source": "none"})
    rundir = RunDir.create(config, "same")
    train = PreferencePPO.train
    rows: list[bytes] = []

    def replaced(algorithm: PreferencePPO) -> Any:
        result = train(algorithm)
        if rundir.has_rows:
            rows.append(rundir.metrics_file.read_bytes())
            (rundir.path / lease.FILE).write_text(Owner.here("/far/same").to_json())
        return result

    monkeypatch.setattr(PreferencePPO, "train", replaced)
    with pytest.raises(TakenOver, match="/far/same"):
        program.train(rundir.config(), rundir=rundir, serial=True)
    assert len(rows) == 1
    assert rundir.metrics_file.read_bytes() == rows[0]
    assert all(path.name == "step-000000000" for path in rundir.checkpoints.iterdir())
