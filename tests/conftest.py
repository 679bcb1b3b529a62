"""Settings of every test: one thread per process, a quiet Ray, and no skip where
nothing may be missing.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from collections.abc import Generator, Iterator

import pytest
from hypothesis import HealthCheck, settings
from xdist.scheduler import LoadScopeScheduling

from rlhp.queue.embedded import EmbeddedRedis
from rlhp.system.ray_setup import CLUSTERS
from tests.ray_session import ray_session

__all__ = ["ray_session"]

SECRETS = tempfile.mkdtemp(prefix="rlhp-test-secrets-")
atexit.register(shutil.rmtree, SECRETS, ignore_errors=True)
SETTINGS = {
    "OMP_NUM_THREADS": "1",  # read when torch is imported, and handed on to Ray's actors
    "MKL_NUM_THREADS": "1",
    # as a serial run sets it: the same bits wherever in memory an array lies
    "MKL_CBWR": "AUTO,STRICT",
    "RAY_USAGE_STATS_ENABLED": "0",
    # Ray's coming default; the present one warns in every actor
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "MPLBACKEND": "Agg",
    "RLHP_SECRETS_DIR": SECRETS,  # instead of this user's own
}
CROWDED = (
    "tests/cluster/",
    "tests/experiments/",
    "tests/labeling/page/browser/",
    "tests/test_faults.py",
    "tests/test_learning.py",
    "tests/test_people.py",
    "tests/workers/test_growing.py",
)
"""Tests that start a whole program on several nodes, kill its processes, or drive a
browser.
"""
for _name, _value in SETTINGS.items():
    os.environ.setdefault(_name, _value)

# The same examples on every machine, and no verdict from a wall clock.
settings.register_profile(
    "rlhp", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("rlhp")


@pytest.fixture(autouse=True)
def _clusters_are_allowed() -> Iterator[None]:
    """A command that runs in this process tells its own Ray to stay on loopback, and
    the next test may want nodes.
    """
    os.environ.pop(CLUSTERS, None)
    yield
    os.environ.pop(CLUSTERS, None)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that start many processes come first, so that the longest part of the work
    does not come last.
    """
    items.sort(key=lambda item: not item.nodeid.startswith(CROWDED))


class ByFile(LoadScopeScheduling):  # type: ignore[misc]
    """Where tests run side by side a file stays together, and all tests that start many
    processes share one worker.

    So no two of them fill the machine at the same time.
    """

    def _split_scope(self, nodeid: str) -> str:
        return "many processes" if nodeid.startswith(CROWDED) else nodeid.split("::", 1)[0]


def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> ByFile:
    """Of `pytest -n 2`."""
    return ByFile(config, log)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """With RLHP_REQUIRE_ALL=1 a skipped test fails, unless it is marked `optional`."""
    report = yield
    if item.get_closest_marker("optional") is None and not hasattr(report, "wasxfail"):
        _refuse_skip(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """The same for a file that is skipped as a whole, as by `pytest.importorskip`."""
    report = yield
    _refuse_skip(report)
    return report


def _refuse_skip(report: pytest.TestReport | pytest.CollectReport) -> None:
    if report.skipped and os.environ.get("RLHP_REQUIRE_ALL") == "1":
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"RLHP_REQUIRE_ALL=1 forbids skips, and this test was skipped: {reason}"


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real Redis for all tests of this process that name their own runs."""
    with EmbeddedRedis(tmp_path_factory.mktemp("redis") / "server") as server:
        yield server.url
