"""One real Redis for the tests of this room, and a fresh run in it for each."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from rlhp.query.queue import QueryQueue
from rlhp.query.server import EmbeddedRedis
from tests.query.parts import Meddler, opened


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with EmbeddedRedis(tmp_path_factory.mktemp("redis") / "server") as server:
        yield server.url


@pytest.fixture
def queue(redis_url: str) -> QueryQueue:
    return opened(redis_url)


@pytest.fixture
def meddler(queue: QueryQueue) -> Iterator[Meddler]:
    meddler = Meddler(queue)
    yield meddler
    meddler.close()
