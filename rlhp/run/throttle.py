"""How far the learner may run ahead of the programs that teach it. It never waits for
people.

A learner that is fast beside its reward trainer learns for long from a reward that is
not fitted yet to what it does now, and what becomes of it then depends on what else the
machine has to do. `reward.max_lag_steps` bounds that, in env steps: of the fits of
answers that have arrived, and, where teachers are programs of this run, of the answers
that the label schedule was to have by now. So a run learns the same beside other work
as on an idle machine, only later.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable

from rlhp.config.schema import RunConfig
from rlhp.monitor.rows import RunStatus
from rlhp.run.services import Services

log = logging.getLogger(__name__)

LOOK_SECONDS, TELL_SECONDS = 0.01, 0.2
PATIENCE_SECONDS = 30.0
"""A reward trainer that is away is back by then, or training goes on without it."""
MILESTONES = 1000
Say = Callable[[str], object]


class Lag:
    """Env steps of this policy that the reward was to know of by now and does not."""

    def __init__(self, config: RunConfig) -> None:
        self._teachers = config.labels.source == "oracle" and config.labels.labelers > 0
        # env steps, queries allowed by then
        self._allowed: deque[tuple[int, int]] = deque(maxlen=MILESTONES)

    def __call__(self, status: RunStatus, *, env_steps: int) -> float:
        """0 or more, from what the other roles said last."""
        lag = 0.0
        trainer = status.reward_trainer
        if trainer is not None and trainer.fitted_steps is not None:
            lag = max(lag, env_steps - trainer.fitted_steps)
        if (
            self._teachers
            and (answered_until := self._answered_until(status, env_steps=env_steps)) is not None
        ):
            lag = max(lag, env_steps - answered_until)
        return lag

    def _answered_until(self, status: RunStatus, *, env_steps: int) -> int | None:
        """Env steps up to which all queries that the schedule allowed are answered;
        None where nothing is known.

        A query actor that was restarted says 0 env steps until it has heard more, which
        is no milestone.
        """
        if status.query_actor is None or status.reward_trainer is None:
            return None
        told, allowed = status.query_actor.env_steps, status.query_actor.allowed
        answered = status.reward_trainer.answered
        while self._allowed and self._allowed[-1][0] > env_steps:
            self._allowed.pop()  # the run went back to a checkpoint
        if not self._allowed or self._allowed[-1][0] < told:
            self._allowed.append((told, allowed))
        elif self._allowed[-1][0] == told and self._allowed[-1][1] < allowed:
            # what an adaptive schedule allows is known a turn later
            self._allowed[-1] = (told, allowed)
        return max((steps for steps, due in self._allowed if due <= answered), default=None)


class LearnerThrottle:
    """Waits, before the next batch, until the reward has caught up; gives up when it
    does not come closer.
    """

    def __init__(
        self,
        config: RunConfig,
        services: Services,
        stop: threading.Event,
        *,
        turn_steps: int,
        patience_seconds: float = PATIENCE_SECONDS,
        say: Say = lambda text: None,
    ) -> None:
        """`turn_steps`: those of the learner, the bound where the config names none."""
        most = config.reward.max_lag_steps
        self._most = turn_steps if most is None else most
        self._lag = Lag(config)
        self._services, self._stop, self._say = services, stop, say
        self._patience_seconds = patience_seconds
        self._given_up = False

    def wait(self, env_steps: int, tell: Callable[[], None]) -> dict[str, float]:
        """Seconds waited, as a part of a row; meanwhile `tell` says how far the run is,
        also to who was restarted.
        """
        started = closer_at = told_at = time.monotonic()
        lag = closest = self._lag(self._services.status(), env_steps=env_steps)
        self._given_up = self._given_up and lag > self._most
        while lag > self._most and not self._given_up and not self._stop.wait(LOOK_SECONDS):
            now = time.monotonic()
            if now - told_at > TELL_SECONDS:
                told_at = now
                tell()
            self._services.turn()
            lag = self._lag(self._services.status(), env_steps=env_steps)
            if lag < closest:
                closest, closer_at = lag, now
            elif now - closer_at > self._patience_seconds:
                self._given_up = True
                text = (
                    f"the reward stays {lag:.0f} env steps behind the policy "
                    f"(reward.max_lag_steps={self._most}) and did not come closer for "
                    f"{self._patience_seconds:.0f} s: training goes on without waiting until it "
                    "has caught up; rlhp status says what it is busy with"
                )
                log.warning(text)
                self._say(f"warning: {text}")
        return {"reward/wait_seconds": time.monotonic() - started, "reward/lag_steps": lag}
