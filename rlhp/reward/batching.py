"""Requests of many env runners, priced together.

Whoever comes while another request is being priced waits, and the next one to begin takes along all that wait: their
rows fill whole blocks, which a GPU takes about as long for as for a few rows. Since rows are priced in blocks of one
shape, nobody's reward depends on who else asked.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from rlhp.types import Array

Score = Callable[[Array, Array], Array]
"""Observations [B, *O], encoded actions [B, A] -> scores [M, B]."""


@dataclass(slots=True, eq=False)
class _Request:
    score: Score
    obs: Array
    actions: Array
    scores: Array | None = None
    error: Exception | None = None


class Together:
    """For any number of threads; one of them works at a time."""

    def __init__(self) -> None:
        self._waiting: list[_Request] = []
        self._list = threading.Lock()
        self._work = threading.Lock()
        self.rounds = 0
        """How often was worked; fewer than the requests where some were taken along."""
        self.seconds = 0.0
        """For how long."""

    def __call__(self, score: Score, obs: Array, actions: Array) -> Array:
        """`score(obs, actions)`, perhaps as a part of what others ask of the same `score`."""
        mine = _Request(score, obs, actions)
        with self._list:
            self._waiting.append(mine)
        with self._work:
            if mine.scores is None and mine.error is None:
                with self._list:
                    served = [request for request in self._waiting if request.score == score]
                    self._waiting = [request for request in self._waiting if request.score != score]
                started = time.perf_counter()
                _serve(score, served)
                self.seconds += time.perf_counter() - started
                self.rounds += 1
        if mine.error is not None:
            raise mine.error
        assert mine.scores is not None
        return mine.scores


def _serve(score: Score, requests: list[_Request]) -> None:
    try:
        if len(requests) == 1:
            requests[0].scores = score(requests[0].obs, requests[0].actions)
            return
        scores_MB = score(
            np.concatenate([request.obs for request in requests]),
            np.concatenate([request.actions for request in requests]),
        )
    except Exception as error:  # it belongs to all of them, and each raises it
        for request in requests:
            request.error = error
        return
    edges = np.cumsum([len(request.obs) for request in requests])[:-1]
    for request, part in zip(requests, np.split(scores_MB, edges, axis=1), strict=True):
        request.scores = part
