"""Metrics as Ray hands them to Prometheus, and the list of actors, from a real Ray."""

from __future__ import annotations

import time
import urllib.request
from collections.abc import Callable

import pytest
import ray

from rlhp.monitor.cluster_status import list_actors
from rlhp.monitor.prometheus import Exporter
from rlhp.system.ray import NAMESPACE
from rlhp.system.roles import RoleStatus
from tests.run.roles import query_actor

pytestmark = pytest.mark.usefixtures("ray_session")


class Role:
    """An actor that dies when it is told to."""

    def status(self) -> RoleStatus:
        return RoleStatus(pid=0)

    def die(self) -> None:
        import os

        os._exit(1)


def until(holds: Callable[[], object], *, seconds: float = 60.0) -> None:
    for _ in range(int(seconds / 0.1)):
        if holds():
            return
        time.sleep(0.1)
    raise AssertionError("waited in vain")


def scrape() -> str:
    """What Prometheus would read from this node."""
    (node,) = ray.nodes()
    with urllib.request.urlopen(
        f"http://127.0.0.1:{node['MetricsExportPort']}/metrics", timeout=10
    ) as reply:
        return str(reply.read().decode())


def test_actors_are_counted_and_exported_with_the_metrics() -> None:
    actor = (
        ray.remote(max_restarts=-1, num_cpus=0)(Role)
        .options(name="demo:query_actor", namespace=NAMESPACE)
        .remote()
    )
    ray.get(actor.status.remote())
    (found,) = list_actors(run="demo", statuses={"query_actor": query_actor(pool=3)})
    assert (found.role, found.state, found.restarts, found.note) == (
        "query_actor",
        "alive",
        0,
        "3 segments",
    )
    assert found.pid > 0
    assert found.node == ray.nodes()[0]["NodeManagerAddress"]
    actor.die.remote()
    until(lambda: list_actors(run="demo")[0].restarts == 1 and list_actors(run="demo")[0].here)
    assert list_actors(run="other") == []

    exporter = Exporter("demo")
    exporter.row(
        {"env_steps": 120, "reward/version": 2, "phase": "learning", "labels/asked": None},
        quiet_seconds=3.0,
    )
    exporter.actors(list_actors(run="demo"))
    until(lambda: "ray_rlhp_reward_version{" in scrape() and "ray_rlhp_actor_restarts{" in scrape())
    lines = {
        line.partition("{")[0]: line
        for line in scrape().splitlines()
        if line.startswith("ray_rlhp_")
    }
    assert {
        "ray_rlhp_env_steps",
        "ray_rlhp_quiet_seconds",
        "ray_rlhp_actor_up",
        "ray_rlhp_actor_restarts",
    } <= set(lines)
    assert 'run="demo"' in lines["ray_rlhp_env_steps"]
    assert lines["ray_rlhp_env_steps"].endswith(" 120.0")
    assert 'actor="query actor"' in lines["ray_rlhp_actor_restarts"]
    assert lines["ray_rlhp_actor_restarts"].endswith(" 1.0")
    assert not any("phase" in name or "asked" in name for name in lines)
    ray.kill(actor)
