"""From RLlib's results and the roles' numbers to rows of metrics, by the names of
`rlhp.storage.metrics.METRICS`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rlhp.system.memory import resident_mb

LEARNER = {
    "policy_loss": "learner/policy_loss",
    "vf_loss": "learner/vf_loss",
    "entropy": "learner/entropy",
    "mean_kl_loss": "learner/kl",
    "vf_explained_var": "learner/explained_variance",
}
RUNNERS = {
    "predict_wait_ms": "reward/predict_wait_ms",
    "predict_us_per_step": "reward/predict_us_per_step",
    "predicted_mean": "reward/predicted_mean",
    "predicted_std": "reward/predicted_std",
    "segments_dropped": "segments/dropped",
    "segments_short": "segments/short",
    "game_score_mean": "env_runners/game_score_mean",
    "memory_mb": "memory/env_runner_mb",
    "env_failures": "env_runners/failures",
}
"""RLlib's name, or that of our env runner -> ours."""
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


def learner_row(result: Mapping[str, Any], *, kl: bool) -> dict[str, Any]:
    """What one training iteration says about the learner; `kl` where its penalty is on,
    since else RLlib says 0.
    """
    learner = result.get("learners", {}).get("default_policy", {})
    timers = result.get("timers", {})
    row: dict[str, Any] = {name: number(learner.get(key)) for key, name in LEARNER.items()}
    if not kl:
        del row["learner/kl"]
    row["time/sample_seconds"] = number(timers.get("env_runner_sampling_timer"))
    row["time/learn_seconds"] = number(timers.get("learner_update_timer"))
    row["memory/learner_mb"] = number(resident_mb())
    return row


def runner_row(runners: Mapping[str, Any]) -> dict[str, Any]:
    """What the env runners say, as far as they say it."""
    row = {name: number(runners.get(key)) for key, name in RUNNERS.items()}
    return {name: value for name, value in row.items() if value is not None}


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
