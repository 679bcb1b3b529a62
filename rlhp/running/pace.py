"""How far the learner may run ahead of the machines that teach it. People are never waited for.

A learner that is fast beside its reward trainer learns for long from a reward that is not fitted yet to what it does
now. `reward.max_lag_steps` bounds that, in env steps: of the fits that `reward.label_uses_per_step` owes, and, where
teachers are programs of this run, of the answers that the label schedule was to have by now.
"""

from __future__ import annotations

import logging
import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Mapping
from typing import Any

from rlhp.config import RunConfig
from rlhp.query.budget import LabelBudget
from rlhp.running.edges import Services

log = logging.getLogger(__name__)

LOOK_SECONDS = 0.05
PATIENCE_SECONDS = 30.0
"""A reward trainer that is away is back by then, or training goes on without it."""


def lag_steps(status: Mapping[str, Any], config: RunConfig, *, env_steps: int, warmup_steps: int) -> float:
    """Env steps of this policy that the reward does not know of yet and was to know; 0 or more."""
    reward = config.reward
    lag = 0.0
    if (fitted := status.get("reward/fitted_steps")) is not None:
        batch = reward.batch_size / reward.label_uses_per_step  # less than a gradient step is owed to nobody
        lag = max(lag, env_steps - fitted - batch)
    if config.labels.source == "oracle" and config.labels.labelers and "labels/answered" in status:
        learned = env_steps - warmup_steps
        budget = LabelBudget(config.labels, config.learner.total_env_steps - warmup_steps)
        if (answered := int(status["labels/answered"])) < budget.allowed(learned):
            due = bisect_left(range(learned), answered + 1, key=budget.allowed)
            lag = max(lag, learned - due)
    return lag


class Pace:
    """Waits, before the next batch, until the reward has caught up; gives up when it does not come closer."""

    def __init__(
        self,
        config: RunConfig,
        services: Services,
        stop: threading.Event,
        *,
        patience_seconds: float = PATIENCE_SECONDS,
    ) -> None:
        self._config, self._services, self._stop = config, services, stop
        self._patience_seconds = patience_seconds
        self._given_up = False

    def wait(self, env_steps: int, warmup_steps: int, tell: Callable[[], None]) -> dict[str, float]:
        """Seconds waited, as a part of a row; meanwhile `tell` says how far the run is, also to who was restarted."""
        most = self._config.reward.max_lag_steps
        if most is None:
            return {}
        started = closer_at = time.monotonic()
        lag = closest = self._lag(env_steps, warmup_steps)
        self._given_up = self._given_up and lag > most
        while lag > most and not self._given_up and not self._stop.wait(LOOK_SECONDS):
            tell()
            self._services.turn()
            lag = self._lag(env_steps, warmup_steps)
            now = time.monotonic()
            if lag < closest:
                closest, closer_at = lag, now
            elif now - closer_at > self._patience_seconds:
                self._given_up = True
                log.warning("the reward stays %.0f env steps behind the policy: training goes on without it", lag)
        return {"reward/wait_seconds": time.monotonic() - started}

    def _lag(self, env_steps: int, warmup_steps: int) -> float:
        return lag_steps(self._services.status(), self._config, env_steps=env_steps, warmup_steps=warmup_steps)
