"""The Grafana dashboard of runs: `python -m rlhp.monitor.grafana >
cluster/grafana.json`.

Panels are named here by our metrics, so a panel of a metric that nobody exports cannot
be written. Prometheus scrapes Ray's exporters (docs/cluster.md); the dashboard asks for
the data source and shows one run or several.
"""

from __future__ import annotations

import json
from typing import Any

from rlhp.storage.metrics import GAUGES, METRICS, prometheus_name

PREFIX = "ray_"
"""What Ray puts in front of every name."""
UNITS = {
    "steps/s": "ops",
    "s": "s",
    "ms": "ms",
    "us": "µs",
    "share": "percentunit",
    "kB": "deckbytes",
}
"""Ours -> Grafana's."""

PANELS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("Progress", "Env steps", ("env_steps",)),
    ("Progress", "Env steps per second", ("env_steps_per_second",)),
    ("Progress", "Seconds since anything moved", ("rlhp_quiet_seconds",)),
    ("Returns", "True return", ("env_runners/episode_return_mean", "eval/episode_return_mean")),
    ("Returns", "Predicted return", ("predicted_return_mean",)),
    (
        "Returns",
        "Does the reward know the task?",
        ("return_correlation", "reward/segment_correlation"),
    ),
    ("Labels", "Labels", ("labels/asked", "labels/answered", "labels/allowed")),
    ("Labels", "Answers per minute", ("labels/per_minute",)),
    ("Labels", "Queue", ("queue/pending", "queue/leased")),
    ("Labels", "Oldest open query", ("queue/oldest_age_seconds",)),
    (
        "Reward model",
        "Fresh accuracy",
        ("reward/fresh_accuracy", "reward/fresh_accuracy_low", "reward/fresh_accuracy_high"),
    ),
    (
        "Reward model",
        "Fresh accuracy by age",
        ("reward/fresh_accuracy_young", "reward/fresh_accuracy_old"),
    ),
    ("Reward model", "Alarms", ("alarms",)),
    ("Reward model", "Accuracy", ("reward/train_accuracy", "reward/heldout_accuracy")),
    ("Reward model", "Loss", ("reward/train_loss", "reward/val_loss")),
    ("Reward model", "Reward version", ("reward/version",)),
    ("Reward model", "Env steps since the version in use", ("reward/staleness_steps",)),
    ("Reward model", "Waiting for predicted rewards", ("reward/predict_wait_ms",)),
    ("Learner", "Policy entropy", ("learner/entropy",)),
    ("Learner", "Value function", ("learner/explained_variance",)),
    ("Learner", "Time per iteration", ("time/sample_seconds", "time/learn_seconds")),
    ("Actors", "Actors that are there", ("rlhp_actor_up",)),
    ("Actors", "Restarts", ("rlhp_actor_restarts",)),
    ("Actors", "Segments nobody took", ("segments/dropped",)),
)
"""Row, title, metrics."""


def dashboard() -> dict[str, Any]:
    """What Grafana imports."""
    panels: list[dict[str, Any]] = []
    row, y, column = "", 0, 0
    for section, title, names in PANELS:
        if section != row:
            y, column, row = y + (8 if column else 0), 0, section
            panels.append(
                {
                    "type": "row",
                    "title": row,
                    "gridPos": {"h": 1, "w": 24, "x": 0, "y": y},
                    "panels": [],
                }
            )
            y += 1
        if column == 3:
            y, column = y + 8, 0
        panels.append(_panel(title, names, {"h": 8, "w": 8, "x": 8 * column, "y": y}))
        column += 1
    for number, panel in enumerate(panels, start=1):
        panel["id"] = number
    run = {
        "name": "run",
        "label": "Run",
        "type": "query",
        "multi": True,
        "includeAll": True,
        "refresh": 2,
        "datasource": {"type": "prometheus", "uid": "${source}"},
        "query": f"label_values({PREFIX}{prometheus_name('env_steps')}, run)",
    }
    source = {"name": "source", "label": "Data source", "type": "datasource", "query": "prometheus"}
    return {
        "title": "rlhp runs",
        "uid": "rlhp-runs",
        "tags": ["rlhp"],
        "schemaVersion": 39,
        "version": 1,
        "refresh": "10s",
        "time": {"from": "now-3h", "to": "now"},
        "templating": {"list": [source, run]},
        "panels": panels,
    }


def _panel(title: str, names: tuple[str, ...], place: dict[str, int]) -> dict[str, Any]:
    unit = UNITS.get(METRICS[names[0]][0], "short") if names[0] in METRICS else "short"
    return {
        "type": "timeseries",
        "title": title,
        "description": " ".join(
            METRICS[name][1] if name in METRICS else GAUGES[name] for name in names
        ),
        "gridPos": place,
        "datasource": {"type": "prometheus", "uid": "${source}"},
        "fieldConfig": {"defaults": {"unit": unit}, "overrides": []},
        "options": {
            "legend": {"displayMode": "list", "placement": "bottom"},
            "tooltip": {"mode": "multi"},
        },
        "targets": [
            _target(name, letter, several=len(names) > 1)
            for letter, name in zip("ABCD", names, strict=False)
        ],
    }


def _target(name: str, letter: str, *, several: bool) -> dict[str, Any]:
    exported = name if name in GAUGES else prometheus_name(name)
    legend = (
        "{{run}} {{actor}}"
        if "actor" in name
        else "{{run}} " + name.rpartition("/")[2]
        if several
        else "{{run}}"
    )
    return {"refId": letter, "expr": f'{PREFIX}{exported}{{run=~"$run"}}', "legendFormat": legend}


if __name__ == "__main__":
    print(json.dumps(dashboard(), indent=1, ensure_ascii=True))
