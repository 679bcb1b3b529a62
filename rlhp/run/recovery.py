"""The learner's side is built anew from the last checkpoint when it is lost: nobody has
to be awake for it.

RLlib starts env runners again and nothing else: a dead learner ends its algorithm, and
a silent one stops it without a word (`rlhp.run.watchdog`). Query actor, reward trainer,
reward models, labelers and Redis live on meanwhile, so answers go on coming in, and the
reward is the newest one afterwards.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from ray.exceptions import RayError, RayTaskError

from rlhp.config.schema import RunConfig
from rlhp.errors import RoleFailed
from rlhp.learn.interface import Learner
from rlhp.run.loop import Loop
from rlhp.run.services import ClusterServices, Services
from rlhp.run.watchdog import Stalled, StallWatchdog

log = logging.getLogger(__name__)

FIRST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 30.0
"""Between two attempts in a row: a machine that was lost takes a while to be noticed, a
new one to come.
"""


def run(loop: Loop, build: Callable[[], Learner]) -> None:
    """`loop.run()` to its end, with another learner from `build` each time the present
    one is lost.

    At most `ray.max_restarts` times in a row without a newer checkpoint; then
    RoleFailed. An error that a learner raised is not a loss: it would raise it again.
    """
    in_a_row, reached = 0, -1
    lost: Exception | None = None
    while True:
        try:
            if lost is not None:
                _begin_again(loop, build)
            loop.run()
            return
        except (RayError, Stalled, TimeoutError) as error:
            if isinstance(error, RayTaskError):
                raise
            lost = error
        saved = loop.saved_steps()
        in_a_row, reached = (in_a_row + 1, reached) if saved <= reached else (1, saved)
        most = loop.config.ray.max_restarts
        why = f"{type(lost).__name__}: {str(lost).strip().splitlines()[0]}"
        log.warning("the learner was lost", exc_info=lost)
        if in_a_row > most:
            raise RoleFailed(
                f"the learner was lost {in_a_row} times in a row with no new checkpoint between, "
                f"the last time: {why} (ray.max_restarts={most}); see {loop.rundir.log_file}, "
                f"then: rlhp train --resume {loop.rundir.path}"
            ) from lost
        whence = (
            f"the checkpoint at {saved} env steps"
            if saved >= 0
            else "the start, with all answers given so far"
        )
        loop.display.message(
            f"the learner was lost ({why}); going on from {whence} (restart {in_a_row} of {most})"
        )
        loop.stop.wait(min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2 ** (in_a_row - 1)))


def watchdog(config: RunConfig, services: Services | None, *, serial: bool) -> StallWatchdog:
    """Nobody needs to be watched who shares this process."""
    if serial or config.rollout.num_env_runners + config.learner.num_learners == 0:
        return StallWatchdog(None)
    if not isinstance(services, ClusterServices):
        return StallWatchdog(config.ray.stall_seconds)
    return StallWatchdog(config.ray.stall_seconds, excuse=services.waits_for)


def _begin_again(loop: Loop, build: Callable[[], Learner]) -> None:
    loop.learner.abandon()
    loop.rundir.update(restarts=loop.rundir.info().restarts + 1)
    loop.begin_again(build())
