"""A real Redis for the tests of this room, and a fresh run in it for each."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest
import redis

from rlhp.query.queue import QueryQueue
from rlhp.query.server import EmbeddedRedis
from tests.labeling.parts import opened


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    server = EmbeddedRedis(tmp_path_factory.mktemp("redis") / "server")
    yield server.start()
    server.stop()


@pytest.fixture
def queue(redis_url: str) -> QueryQueue:
    return opened(redis_url)


@pytest.fixture
def closed_connections() -> Iterator[None]:
    """Closes what a test connected: a kept traceback may hold a client until the collector finds the socket first."""
    yield
    for client in [each for each in gc.get_objects() if type(each) is redis.Redis]:
        client.close()
