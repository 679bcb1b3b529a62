"""A fresh run in the real Redis for each test of this room."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from rlhp.queue.queue import QueryQueue
from tests.queue.parts import Meddler, opened


@pytest.fixture
def queue(redis_url: str) -> QueryQueue:
    return opened(redis_url)


@pytest.fixture
def meddler(queue: QueryQueue) -> Iterator[Meddler]:
    meddler = Meddler(queue)
    yield meddler
    meddler.close()
