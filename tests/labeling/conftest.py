"""A real Redis for the tests of this room, and a fresh run in it for each."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from rlhp.query.queue import QueryQueue
from rlhp.query.server import EmbeddedRedis
from tests.labeling.parts import opened


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    server = EmbeddedRedis(tmp_path_factory.mktemp("redis") / "server")
    yield server.start()
    server.stop()


@pytest.fixture
def queue(redis_url: str) -> Iterator[QueryQueue]:
    with opened(redis_url) as queue:
        yield queue
