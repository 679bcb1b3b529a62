"""How many labels may have been asked by now: the schedules of Christiano et al. 2017 and its descendants.

hyperbolic    N0 + (N - N0) ln(1 + T/c) / ln(1 + Tmax/c)      rate ~ c / (T + c), appendix A
constant      N0 + (N - N0) T / Tmax
exponential   N0 + (N - N0) (1 - 0.01^(T/Tmax))               rl-teacher
offline       N, all before learning                          the paper's ablation
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from rlhp.config import LabelsConfig

DEFAULT_C_SHARE = 0.4
"""c as a share of the run: it gives a short run the front-loading that 2e6 gives 5e6 steps."""


@dataclass(frozen=True, slots=True)
class LabelBudget:
    """`allowed(T)`: queries that may have been asked when the policy has learned from T env steps."""

    labels: LabelsConfig
    learning_steps: int
    """Tmax, env steps after warm-up."""

    @property
    def initial(self) -> int:
        """N0, asked about the random policy."""
        if self.labels.schedule == "offline":
            return self.labels.budget
        return round(self.labels.budget * self.labels.initial_share)

    def allowed(self, steps: int) -> int:
        """floor(N(T)), never more than the budget, however fast the labelers are."""
        total, initial = self.labels.budget, self.initial
        limit = max(1, self.learning_steps)
        share = min(1.0, max(0, steps) / limit)
        if self.labels.schedule == "hyperbolic":
            c = self.labels.schedule_c or DEFAULT_C_SHARE * limit
            share = math.log1p(share * limit / c) / math.log1p(limit / c)
        elif self.labels.schedule == "exponential":
            share = (1 - 0.01**share) if share < 1 else 1.0
        return min(total, math.floor(initial + (total - initial) * share + 1e-9))
