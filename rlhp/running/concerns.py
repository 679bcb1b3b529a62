"""What somebody should be told who does not look at the curves: nothing moves, or the reward is being cheated.

nothing moves     no env step, no answer and no reward version for `watch.quiet_seconds`: said once, with what the
                  run seems to wait for, and again after twice that time
reward hacking    over the last eight reward versions the predicted return rose while held-out agreement with the
                  answers fell, each by more than two standard errors between the halves: the policy found what the
                  ensemble likes and people do not (Christiano et al. 2017, section 3.3; Ibarz et al. 2018). Worth
                  a look at the films, and more answers about what the policy does now
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

import numpy as np

log = logging.getLogger(__name__)

VERSIONS = 8
"""Over which the two trends are compared, half against half."""
LEAST_FALL = 0.03
"""Of held-out accuracy: less than that is no news, however sure."""
LOOK_EVERY_SECONDS = 1.0
PROGRESS = ("env_steps", "labels/answered", "reward/version")


class Concerns:
    """`look` at every row of metrics; a thread of its own notices when there are none."""

    def __init__(
        self,
        say: Callable[[str], object],
        *,
        quiet_seconds: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`quiet_seconds` None: silence is no concern, and there is no thread."""
        self._say, self._quiet, self._clock = say, quiet_seconds, clock
        self._row: dict[str, Any] = {}
        self._progress: tuple[Any, ...] = ()
        self._since, self._said = clock(), 1
        self._versions: deque[tuple[float, float]] = deque(maxlen=VERSIONS)
        self._hacking = False
        self._closed = threading.Event()
        if quiet_seconds is not None:
            threading.Thread(target=self._run, name="concerns", daemon=True).start()

    def look(self, row: Mapping[str, Any]) -> None:
        """A new row of metrics."""
        before = self._row.get("reward/version", 0)
        self._row |= {name: value for name, value in row.items() if value is not None}
        progress = tuple(self._row.get(name, 0) for name in PROGRESS)
        if progress != self._progress:
            self._progress, self._since, self._said = progress, self._clock(), 1
        predicted, agreement = (self._row.get(name) for name in ("predicted_return_mean", "reward/heldout_accuracy"))
        if self._row.get("reward/version", 0) > before and predicted is not None and agreement is not None:
            self._versions.append((float(predicted), float(agreement)))
            self._look_for_hacking()

    def quiet(self) -> float:
        """Seconds since anything moved."""
        return self._clock() - self._since

    def check(self) -> None:
        """Say so if nothing has moved for too long."""
        if self._quiet is None or self.quiet() < self._quiet * self._said:
            return
        self._said *= 2
        self._tell(
            f"nothing has moved for {self.quiet():.0f} s (no env step, no answer, no reward version): {self._why()}"
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Look no more."""
        self._closed.set()

    def _run(self) -> None:
        while not self._closed.wait(LOOK_EVERY_SECONDS):
            self.check()

    def _why(self) -> str:
        row = self._row
        waiting = int(row.get("queue/pending", 0) + row.get("queue/leased", 0))
        if not row:
            return "nothing was measured yet, Ray may be short of resources"
        if row.get("phase") == "warm-up" and waiting:
            return f"{waiting} queries wait for answers, and learning waits for them"
        if row.get("phase") == "warm-up":
            return "the warm-up waits for the query actor or for the reward trainer"
        return "an iteration is stuck, perhaps waiting for a reward model or for a node"

    def _look_for_hacking(self) -> None:
        found = len(self._versions) == VERSIONS and rises_and_falls(list(self._versions))
        if found and not self._hacking:
            predicted, agreement = zip(*self._versions, strict=True)
            self._tell(
                f"over the last {VERSIONS} reward versions the predicted return rose from {predicted[0]:.3g} to "
                f"{predicted[-1]:.3g}, and held-out agreement fell from {agreement[0]:.0%} to {agreement[-1]:.0%}: the "
                "policy may exploit the reward model. Look at its film, and ask more (labels.budget)"
            )
        self._hacking = found

    def _tell(self, text: str) -> None:
        log.warning(text)
        self._say(f"warning: {text}")


def rises_and_falls(history: Sequence[tuple[float, float]]) -> bool:
    """Whether the first number rose and the second fell from the first half to the second, beyond chance."""
    values = np.array(history)
    half = len(values) // 2
    change = values[half:].mean(0) - values[:half].mean(0)
    error = np.sqrt(values[half:].var(0, ddof=1) / (len(values) - half) + values[:half].var(0, ddof=1) / half)
    rose = change[0] > 2 * error[0] and not math.isclose(change[0], 0.0, abs_tol=1e-12)
    return bool(rose and -change[1] > max(2 * error[1], LEAST_FALL))
