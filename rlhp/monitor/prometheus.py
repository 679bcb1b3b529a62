"""The metrics of a run as Prometheus has them, through the exporter that Ray runs on
every node.

Ray puts `ray_` in front: `env_runners/episode_return_mean` is
`ray_rlhp_env_runners_episode_return_mean{run="NAME"}`. All of them are gauges set by
the driver, so one scrape of its node shows the run. `cluster/grafana.json` is a Grafana
dashboard of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ray.util.metrics import Gauge

from rlhp.monitor.actors import ActorFacts
from rlhp.storage.metrics import GAUGES, METRICS, prometheus_name
from rlhp.system.roles import ENV_RUNNER, LEARNER, numbered, spoken

UNNAMED = (ENV_RUNNER, LEARNER)
"""Roles whose actors RLlib starts: they have no numbers of their own."""


class Exporter:
    """`row` after each row of metrics, `actors` now and then."""

    def __init__(self, run: str) -> None:
        self._run = run
        self._gauges: dict[str, Gauge] = {}

    def row(self, row: Mapping[str, Any], *, quiet_seconds: float = 0.0) -> None:
        """Every number of the row; a text or a None leaves its gauge as it was."""
        for name, value in row.items():
            if name in METRICS and isinstance(value, (int, float)) and not isinstance(value, bool):
                self._gauge(prometheus_name(name), METRICS[name][1], ("run",)).set(
                    float(value), {"run": self._run}
                )
        quiet = "rlhp_quiet_seconds"
        self._gauge(quiet, GAUGES[quiet], ("run",)).set(quiet_seconds, {"run": self._run})

    def actors(self, actors: Sequence[ActorFacts]) -> None:
        """Who is there, and how often it was started again; env runners are told apart
        by their processes' order.
        """
        numbers: dict[str, int] = {}
        for each in actors:
            numbers[each.role] = number = numbers.get(each.role, -1) + 1
            name = numbered(each.role, number) if each.role in UNNAMED else each.role
            tags = {"run": self._run, "actor": spoken(name), "node": each.node}
            for gauge, value in (
                ("rlhp_actor_up", float(each.here)),
                ("rlhp_actor_restarts", float(each.restarts)),
            ):
                self._gauge(gauge, GAUGES[gauge], ("run", "actor", "node")).set(value, tags)

    def _gauge(self, name: str, description: str, tags: tuple[str, ...]) -> Gauge:
        if name not in self._gauges:
            self._gauges[name] = Gauge(name, description=description, tag_keys=tags)
        return self._gauges[name]
