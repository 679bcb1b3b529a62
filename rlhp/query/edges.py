"""What the query actor needs of others: a store for segments, and the asking side of a queue."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Protocol

from rlhp.reward.events import EventRow
from rlhp.types import Segment


class SegmentStore(Protocol):
    """Where segments are made durable before anyone is asked about them."""

    def add_segments(self, segments: Sequence[Segment]) -> Any: ...

    def asked_pairs(self) -> set[str]: ...

    def refresh(self) -> None: ...

    def events(self) -> list[EventRow]: ...

    def segments(self, ids: Iterable[str]) -> list[Segment]: ...


class Queue(Protocol):
    """The side of the query queue that asks."""

    def put(
        self,
        *,
        query: str,
        first: str,
        second: str,
        body: Any,
        payloads: Any,
        want: int,
        only: str | None,
        hidden: Any,
        ready: bool,
    ) -> str: ...

    def stats(self) -> Any: ...
