"""A fresh run in the real Redis for each test of this room."""

from __future__ import annotations

import pytest

from rlhp.queue.queue import QueryQueue
from tests.queue.parts import opened


@pytest.fixture
def queue(redis_url: str) -> QueryQueue:
    return opened(redis_url)
