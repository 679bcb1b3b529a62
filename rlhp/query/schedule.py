"""How many labels may have been asked by now: the schedules of Christiano et al. 2017
and its descendants.

hyperbolic    N0 + (N - N0) ln(1 + T/c) / ln(1 + Tmax/c)      rate ~ c / (T + c), appendix A
constant      N0 + (N - N0) T / Tmax
exponential   N0 + (N - N0) (1 - 0.01^(T/Tmax))               rl-teacher
offline       N, all before learning                          the paper's ablation
adaptive      the hyperbolic one, twice as fast where the reward is no better than chance on
              fresh answers, and half as fast where it predicts nearly all of them; what is left
              is spread over the rest of the run
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from rlhp.config.schema import LabelsConfig

DEFAULT_C_SHARE = 0.4
"""c as a share of the run: it gives a short run the front-loading that 2e6 gives 5e6
steps.
"""


@dataclass(frozen=True, slots=True)
class LabelBudget:
    """`allowed(T)`: queries that may have been asked when the policy has learned from T
    env steps.
    """

    labels: LabelsConfig
    learning_steps: int
    """Tmax, env steps after warm-up."""

    @property
    def initial(self) -> int:
        """N0, asked about the random policy."""
        return self.labels.initial_queries

    def allowed(self, steps: int) -> int:
        """floor(N(T)), never more than the budget, however fast the labelers are."""
        return min(self.labels.budget, math.floor(self.curve(steps) + 1e-9))

    def curve(self, steps: int) -> float:
        """N(T), not rounded; of the adaptive schedule where nothing is known of fresh
        answers.
        """
        total, initial = self.labels.budget, self.initial
        limit = max(1, self.learning_steps)
        share = min(1.0, max(0, steps) / limit)
        if self.labels.schedule in ("hyperbolic", "adaptive"):
            c = self.labels.schedule_c or DEFAULT_C_SHARE * limit
            share = math.log1p(share * limit / c) / math.log1p(limit / c)
        elif self.labels.schedule == "exponential":
            share = (1 - 0.01**share) if share < 1 else 1.0
        return initial + (total - initial) * share


FEWEST_FRESH = 10
"""Decisive answers before fresh accuracy changes the pace."""
EVEN, PER_DOUBLING, FASTEST = 0.75, 0.15, 2.0
"""At this fresh accuracy the pace is that of the hyperbolic schedule. It doubles where
accuracy is so much lower and halves where it is so much higher, and goes no further.
"""


class AdaptiveSchedule:
    """How many queries the adaptive schedule allows by now: it goes by the way that
    fresh accuracy took.
    """

    def __init__(self) -> None:
        self._steps = 0
        self._allowed: float | None = None

    def allowed(
        self, budget: LabelBudget, steps: int, *, asked: int, accuracy: float | None
    ) -> int:
        """After `steps` of learning, with this fresh accuracy (None: not known) since
        the last call.

        `asked` is where one begins that knows nothing of the calls before, as after a
        restart.
        """
        total = budget.labels.budget
        if self._allowed is None:
            self._steps, self._allowed = steps, float(max(budget.initial, asked))
        before, now = budget.curve(self._steps), budget.curve(steps)
        if now > before:
            share = min(1.0, (now - before) / (total - before))
            self._allowed = total - (total - self._allowed) * (1 - share) ** haste(accuracy)
            self._steps = steps
        return min(total, math.floor(self._allowed + 1e-9))

    def now(self, budget: LabelBudget) -> int:
        """What the last call said; before the first, the initial queries."""
        return budget.initial if self._allowed is None else math.floor(self._allowed + 1e-9)

    def state(self) -> dict[str, Any]:
        """Plain data."""
        return {"steps": self._steps, "allowed": self._allowed}

    def set_state(self, state: dict[str, Any]) -> None:
        """The inverse of `state`."""
        self._steps, self._allowed = state["steps"], state["allowed"]


def haste(accuracy: float | None) -> float:
    """How many times as fast as the hyperbolic schedule is asked at this fresh
    accuracy.
    """
    if accuracy is None:
        return 1.0
    return float(FASTEST ** min(1.0, max(-1.0, (EVEN - accuracy) / PER_DOUBLING)))
