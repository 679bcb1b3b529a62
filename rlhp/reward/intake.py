"""The way of an answer from the queue to the disk: stored, then acknowledged, so that a crash delivers it again.

events -> rows -> preferences/events -> ack
            \\-> set aside, where an entry makes no row: the answers behind it are stored all the same
"""

from __future__ import annotations

from typing import Any, Protocol

from rlhp.reward.dataset import PreferenceDataset
from rlhp.reward.events import storable

CONSUMER = "reward-trainer"


class AnswerSource(Protocol):
    """The answer stream: read through a consumer group, acknowledged when durable."""

    def events(self, *, consumer: str, count: int = 256, block_ms: int | None = None) -> list[Any]: ...

    def ack(self, stream_ids: Any) -> Any: ...

    def set_aside(self, reasons: Any) -> Any:
        """Acknowledge entries that make no row, by stream id, and keep them with the reason."""

    def check_owner(self) -> None:
        """TakenOver where the run is another process's by now."""


def take_in(answers: AnswerSource, dataset: PreferenceDataset) -> int:
    """Store the next answers; how many there were."""
    events = answers.events(consumer=CONSUMER)
    if not events:
        return 0
    rows, odd = storable(events)
    dataset.add_events(rows)
    if odd:
        answers.set_aside(odd)
    answers.ack([event.stream_id for event in events if event.stream_id not in odd])
    return len(events)


def take_in_all(answers: AnswerSource, dataset: PreferenceDataset) -> None:
    """Store all that the queue holds."""
    while take_in(answers, dataset):
        pass
