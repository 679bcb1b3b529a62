"""A fresh run in the real Redis for each test of this room."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from rlhp.queue.queue import QueryQueue
from tests.labeling.parts import opened


@pytest.fixture
def queue(redis_url: str) -> Iterator[QueryQueue]:
    with opened(redis_url) as queue:
        yield queue
