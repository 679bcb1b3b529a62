"""From the roles' numbers and recent episodes to rows of metrics, by the names of
`rlhp.storage.metrics.METRICS`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

HIDDEN = {
    "env_steps",
    "path",
    "fatal",
    "ours",
    "waiting_for",
    "beat",
    "reward/fit_seconds",
    "reward/fitted_steps",
    "labels/trainable",
    "labels/duplicates",
}
"""Status entries for `rlhp status`, not for the curves."""

Episode = tuple[float, float, int]
"""True return, predicted return (NaN where nobody predicted all of it), length."""


def status_row(status: Mapping[str, Any], *, env_steps: int) -> dict[str, Any]:
    """What the other roles say, with the age of the reward version in env steps."""
    row = {name: value for name, value in status.items() if name not in HIDDEN}
    published = row.pop("reward/published_steps", None)
    if published is not None and row.get("reward/version"):
        # A run that goes on from a checkpoint may be behind its reward: then that is
        # not stale at all.
        row["reward/staleness_steps"] = max(0, env_steps - published)
    return row


def memory_numbers(statuses: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """Memory by role, of several replicas the most, from what each process says of
    itself.
    """
    most: dict[str, float] = {}
    for name, status in statuses.items():
        role = name.rstrip("0123456789 ").replace(" ", "_")
        megabytes = number(status.get("memory_mb"))
        if megabytes is not None:
            most[f"memory/{role}_mb"] = max(megabytes, most.get(f"memory/{role}_mb", 0.0))
    return most


def returns_row(episodes: Sequence[Episode]) -> dict[str, Any]:
    """Means over recent episodes, and how well true and predicted returns agree."""
    if not episodes:
        return {}
    true, predicted, lengths = (np.array(column) for column in zip(*episodes, strict=True))
    row: dict[str, Any] = {
        "env_runners/episode_return_mean": float(true.mean()),
        "env_runners/episode_len_mean": float(lengths.mean()),
    }
    priced = np.isfinite(predicted)  # none that began in the warm-up, none of the control arm
    if priced.any():
        true, predicted = true[priced], predicted[priced]
        row["predicted_return_mean"] = float(predicted.mean())
        if len(true) > 2:
            # returns that are almost all the same
            with np.errstate(invalid="ignore", divide="ignore"):
                found = float(np.corrcoef(true, predicted)[0, 1])
            if np.isfinite(found):
                row["return_correlation"] = found
    return row


def number(value: Any) -> float | None:
    """A finite float, or None."""
    if value is None:
        return None
    plain = float(value)
    return plain if np.isfinite(plain) else None
