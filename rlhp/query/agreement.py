"""How well the reward model ranks what the policy does now, by the env rewards of the candidate pool.

Correlating whole episodes mixes the versions that priced them, and a new version shifts them all; here one version
prices every segment. For whoever reads the metrics: nothing is chosen by it. Without env rewards in segments (people
answer) there is nothing to compare with.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from rlhp.types import Array, Segment

SEGMENTS = 256
"""Of the pool, evenly over it: oldest to newest."""
EVERY = 20
"""Looks of the query actor between two measurements of one version: the pool changes too."""

Returns = Callable[[list[tuple[Segment, Segment]]], tuple[Array | None, int | None]]
"""Predicted returns [M, C, 2] of pairs and the version they come from."""


class Agreement:
    """`correlation` as of the last `look` that measured; None before there is one."""

    def __init__(self) -> None:
        self.correlation: float | None = None
        self._looks = 0

    def state(self) -> dict[str, Any]:
        """Plain data."""
        return {"looks": self._looks, "correlation": self.correlation}

    def set_state(self, state: dict[str, Any]) -> None:
        """The inverse of `state`."""
        self._looks, self.correlation = state["looks"], state["correlation"]

    def look(self, pool: Sequence[Segment], *, returns: Returns) -> None:
        """Measure now and then. It draws nothing, so no choice of queries depends on it."""
        self._looks += 1
        if self._looks % EVERY != 1:
            return
        usable = [segment for segment in pool if segment.env_reward is not None]
        chosen = usable[:: max(1, len(usable) // SEGMENTS)][:SEGMENTS]
        chosen = chosen[: len(chosen) // 2 * 2]
        if len(chosen) < 4:
            return
        predicted, _ = returns(list(zip(chosen[::2], chosen[1::2], strict=True)))
        if predicted is None:
            return
        true = np.array([segment.true_return for segment in chosen])
        sums = predicted.reshape(len(predicted), -1)  # [M, C, 2] -> first, second, first, second: as they were chosen
        spread = sums.std(1, keepdims=True)
        mean = (sums / np.where(spread > 0, spread, 1.0)).mean(0)  # members have scales of their own
        with np.errstate(invalid="ignore", divide="ignore"):  # a reward that is almost the same everywhere
            found = float(np.corrcoef(true, mean)[0, 1])
        if np.isfinite(found):
            self.correlation = found
