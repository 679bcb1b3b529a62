"""How often environments are made anew after a failure, and what an env runner that has given up says.

Simulators crash. So an env runner throws its environments away with whatever they had not finished, makes new ones and
goes on, at most `RETRIES` times within `FORGIVEN_STEPS` env steps; then the run ends with the environment's own words.
"""

from __future__ import annotations

import logging
import traceback
from dataclasses import dataclass

from rlhp.errors import RlhpError, RoleBroken, one_line, root
from rlhp.rollout.guard import EnvFailed

log = logging.getLogger(__name__)

RETRIES = 3
FORGIVEN_STEPS = 10_000
"""After so many env steps of an env runner without another one, a failure counts no longer."""


class Failures:
    """Those of one env runner."""

    def __init__(self) -> None:
        self.total = 0
        """Since it was started."""
        self._counted, self._steps = 0, 0

    def count(self, error: EnvFailed) -> None:
        """Another one; EnvFailed where there were too many."""
        if self._steps >= FORGIVEN_STEPS:
            self._counted = 0
        self._counted, self._steps, self.total = self._counted + 1, 0, self.total + 1
        if self._counted > RETRIES:
            raise EnvFailed(f"{error}; it was made anew {RETRIES} times before") from error
        log.warning("made anew, %d of %d: %s", self._counted, RETRIES, error, exc_info=error)

    def passed(self, steps: int) -> None:
        """So many env steps were taken without one."""
        self._steps += steps


@dataclass(frozen=True, slots=True)
class Stopped:
    """What has stopped an env runner for good, in texts: an exception of somebody's may not survive the way to the
    driver."""

    line: str
    trace: str
    ours: bool

    @staticmethod
    def by(error: BaseException) -> Stopped:
        """An error that a user can cure is told in its own words, any other as a fault of ours."""
        first, trace = root(error), "".join(traceback.format_exception(error))
        return (
            Stopped(str(first), trace, False) if isinstance(first, RlhpError) else Stopped(one_line(first), trace, True)
        )

    def error(self) -> Exception:
        """To be raised, here or in the driver, with the traceback as a note for the log."""
        error = RoleBroken(self.line) if self.ours else RlhpError(self.line)
        error.add_note(self.trace)
        return error
