"""Arms that are timed in one process, in turns, so that a slow moment of the machine
meets all of them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from rlhp.types import Segment

TURNS = 4

Turn = Callable[[int], int]
"""Takes at least this many env steps; says how many."""


class Sink:
    """Takes whatever segments it is offered."""

    def offer(self, segments: list[Segment]) -> int:
        """All of them."""
        return len(segments)


def sampled(runner: Any) -> Turn:
    """Fragments of an env runner, ours or RLlib's."""
    return lambda steps: sum(
        len(episode) for episode in runner.sample(num_timesteps=steps, explore=True)
    )


def timed(turns: Mapping[str, Turn], *, repeat: int, steps: int) -> list[dict[str, Any]]:
    """A row per arm: env steps, microseconds per env step by the wall and by this
    process's CPU.

    Every arm has TURNS turns of at least `steps`, after one that resets environments
    and warms caches; `repeat` says who begins.
    """
    arms = list(turns)
    taken = dict.fromkeys(arms, 0)
    wall, cpu = dict.fromkeys(arms, 0.0), dict.fromkeys(arms, 0.0)
    for turn in range(TURNS + 1):
        for place in range(len(arms)):
            arm = arms[(place + turn + repeat) % len(arms)]
            began, began_cpu = time.perf_counter(), time.process_time()
            count = turns[arm](steps)
            if turn:
                wall[arm] += time.perf_counter() - began
                cpu[arm] += time.process_time() - began_cpu
                taken[arm] += count
    return [
        {
            "arm": arm,
            "repeat": repeat,
            "env_steps": taken[arm],
            "us_per_step": 1e6 * wall[arm] / taken[arm],
            "cpu_us_per_step": 1e6 * cpu[arm] / taken[arm],
        }
        for arm in arms
    ]
