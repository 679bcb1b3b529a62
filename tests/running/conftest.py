"""A real Redis for the tests of this room."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from rlhp.query.server import EmbeddedRedis


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with EmbeddedRedis(tmp_path_factory.mktemp("redis") / "server") as server:
        yield server.url
