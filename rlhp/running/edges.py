"""What the training loop holds of everything else: the others of a run, a display, and the way to go on exactly."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Protocol


class Services(Protocol):
    """Everything beside the learner: queue, query actor, reward trainer, reward models, labelers."""

    def progress(
        self,
        *,
        env_steps: int,
        warmup_steps: int,
        learning: bool,
        lowest_return: float,
        episodes: Sequence[tuple[float, int]],
        fresh_accuracy: float | None,
    ) -> None:
        """Tell the others how far the run is, as `QueryActor.progress` has it. Never blocks."""

    def settle(self, nodes: Iterable[str]) -> None:
        """Env runners are on these nodes of the cluster now."""

    def turn(self) -> None:
        """Whatever the driver owes the others once per iteration; raises when one of them failed for good."""

    def status(self) -> dict[str, Any]:
        """The last known numbers of all of them. Never blocks."""


class Exact(Protocol):
    """What a serial run needs to go on bit for bit, as `rlhp.running.exact` has it."""

    def save(self, *, loop: dict[str, Any]) -> dict[str, Any] | None: ...

    def restore(self) -> dict[str, Any] | None: ...


class Display(Protocol):
    """Where a person watches."""

    def update(self, row: dict[str, Any]) -> None: ...

    def message(self, text: str) -> None: ...
