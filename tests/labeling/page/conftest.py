"""A run for people at a real Redis, and a page on it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from rlhp.query.queue import QueryQueue
from tests.labeling.page.parts import Tab, human_run, served


@pytest.fixture
def queue(redis_url: str) -> Iterator[QueryQueue]:
    with human_run(redis_url) as queue:
        yield queue


@pytest.fixture
def tab(queue: QueryQueue) -> Iterator[Tab]:
    with served(queue) as link, Tab(link) as tab:
        yield tab
