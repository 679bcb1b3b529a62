"""The clip renderer: draws both segments of every query that was admitted, then has the
queue offer it.

    produces   queries that can be shown: both clips are stored, and both play
    waits for  a reserved query, and room for its clips
    woken by   the query actor asking, at its next look
    alone      Redis or the store away: tries again; a clip that cannot be drawn: its query is
               dropped, with why

Only what was admitted is drawn, so drawing costs by the question and not by the step,
and nobody waits for it but the people who are going to answer.
"""

from __future__ import annotations

import logging
from collections import Counter
from typing import Protocol

from rlhp.envs.states import CannotDraw
from rlhp.errors import RlhpError
from rlhp.labeling.clips.painter import Clip
from rlhp.queue.clips import SIDES, Clips, Waiting
from rlhp.queue.queue import QueryQueue
from rlhp.system.roles import RoleStatus

log = logging.getLogger(__name__)

MEGABYTE = 1_000_000
AT_ONCE = 8
"""Queries looked up at a time."""
PRUNE_EVERY = 32
"""Queries between two looks for clips in the store that Redis has forgotten."""
HOPELESS = 10
"""Queries in a row, from the first one on, of which none could be drawn: then none ever
will.
"""


class Draws(Protocol):
    """What a `Painter` does."""

    def clip(self, segment: bytes) -> Clip: ...

    def close(self) -> None: ...


class ClipRenderer:
    """`step` makes the clips of what waits; `status` counts."""

    def __init__(self, queue: QueryQueue, clips: Clips, painter: Draws, *, cap_mb: int) -> None:
        self._queue, self._clips, self._painter = queue, clips, painter
        self._cap_bytes = cap_mb * MEGABYTE
        self._ready = 0
        self._dropped: Counter[str] = Counter()
        self._full = False
        self._clip_bytes = 0
        self._newest: Clip | None = None
        self._since_pruning = PRUNE_EVERY

    def step(self) -> int:
        """Draw one query that waits for its clips; how many it was.

        QueueUnavailable (a ConnectionError) while Redis is away. RuntimeError where
        nothing can ever be drawn.
        """
        waiting = self._clips.waiting(AT_ONCE)
        if not waiting or not self._has_room():
            return 0
        self._prune()
        return sum(self._show(each) for each in waiting)

    def status(self) -> RoleStatus:
        """What it drew so far."""
        newest = self._newest
        drawn = {} if newest is None else {
            "clips/draw_ms": newest.draw_ms / newest.frames,
            "clips/encode_ms": newest.encode_ms,
            "clips/kilobytes": len(newest.data) / 1000,
        }  # fmt: skip
        counts = {"clips/ready": self._ready, "clips/dropped": self._dropped.total()}
        return RoleStatus(metrics={**counts, **drawn})

    def close(self) -> None:
        """End the drawing process."""
        self._painter.close()

    def _show(self, waiting: Waiting) -> int:
        segments = self._queue.segments(waiting.candidates)
        try:
            for side, segment in zip(SIDES, waiting.candidates, strict=False):
                if segment not in segments:
                    raise CannotDraw(f"segment {segment} is not in the queue")
                self._newest = self._painter.clip(segments[segment])
                self._clips.store(query=waiting.query, side=side, data=self._newest.data)
        except CannotDraw as error:
            self._give_up(waiting, str(error))
            return 1
        status = self._queue.ready(query=waiting.query)
        self._ready += status == "ok"
        return 1

    def _give_up(self, waiting: Waiting, why: str) -> None:
        status = self._queue.drop(query=waiting.query, reason=f"no clip: {why}")
        self._dropped[why] += status == "ok"
        if self._dropped[why] == 1:
            log.warning(
                "query %s is dropped, since a clip of it cannot be drawn: %s", waiting.query, why
            )
        if not self._ready and self._dropped.total() >= HOPELESS:
            raise RlhpError(
                f"none of the first {HOPELESS} queries could be drawn, the last because {why}; "
                "cure that and resume the run, or set clips.enabled=false where scripts answer "
                "that need no clips"
            )

    def _has_room(self) -> bool:
        full = self._clips.room(self._cap_bytes) <= 0
        if full and not self._full:
            log.warning(
                "clips fill clips.cap_mb=%d: no more are drawn until queries are answered",
                self._cap_bytes // MEGABYTE,
            )
        self._full = full
        return not full

    def _prune(self) -> None:
        self._since_pruning += 1
        if self._since_pruning > PRUNE_EVERY:
            self._since_pruning = 0
            self._clips.prune()
