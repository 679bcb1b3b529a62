"""Teachers of a user's own that cannot work, or take their time."""

from __future__ import annotations

import os
import sys

from rlhp.types import Answer, Query


class Fails:
    """Fails on every query."""

    def answer(self, query: Query) -> Answer | None:
        raise RuntimeError("the camera is unplugged")


class Quits:
    """Ends its process at the first query, with a last word."""

    def answer(self, query: Query) -> Answer | None:
        print("goodbye", file=sys.stderr, flush=True)
        os._exit(3)


class First:
    """Always prefers the first."""

    def answer(self, query: Query) -> Answer | None:
        return Answer.FIRST
