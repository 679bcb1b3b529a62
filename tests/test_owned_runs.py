"""A run that somebody else has taken over ends, and leaves the answers to whoever that is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from rlhp import program
from rlhp.errors import RlhpError
from rlhp.queue.embedded import EmbeddedRedis
from rlhp.storage.lease import Owner, TakenOver
from rlhp.storage.rundir import RunDir
from tests.small_runs import small

pytestmark = pytest.mark.usefixtures("ray_session")


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    with EmbeddedRedis(tmp_path / "redis") as server:
        yield server.url


def test_a_run_that_was_taken_over_ends_and_the_new_owner_has_the_queue(tmp_path: Path, url: str) -> None:
    config = small(name="same", runs_dir=str(tmp_path / "one"), redis={"url": url})
    rundir = RunDir.create(config, "same")
    other = Owner.here("/far/same")

    with redis.Redis.from_url(url, decode_responses=True) as client:

        def replaced(row: dict[str, Any]) -> None:
            client.hset("rlhp:{same}:meta", mapping={"owner": other.token, "owner_who": other.to_json()})

        with pytest.raises(TakenOver, match="/far/same"):
            program.train(rundir.config(), rundir=rundir, serial=True, watch=replaced)
        assert client.hget("rlhp:{same}:meta", "owner") == other.token
        assert client.hget("rlhp:{same}:meta", "state") == "open", "it is not closed to the new owner's labelers"
        assert rundir.info().state == "failed"

        second = RunDir.create(config.model_copy(update={"runs_dir": str(tmp_path / "two")}), "same")
        with pytest.raises(RlhpError, match=r"another run of the name same: process \d+ on .* in /far/same"):
            program.train(second.config(), rundir=second, serial=True)
        assert not (second.preferences / "dataset.json").exists()
