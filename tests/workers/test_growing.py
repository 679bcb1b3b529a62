"""A run on a cluster that grows and shrinks under it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.fault_parts import Driver, check_answers, check_versions
from tests.ray_nodes import add, nodes

NODE = {"num_cpus": 2, "resources": {"rollout": 2}}


@pytest.mark.cluster
@pytest.mark.faults
def test_a_new_node_is_used_and_a_lost_one_does_not_hurt(tmp_path: Path) -> None:
    with nodes(NODE) as cluster:
        first = cluster.list_all_nodes()[-1]
        changes: dict[str, dict[str, Any]] = {
            "ray": {"address": cluster.address},
            "rollout": {"num_env_runners": 4, "min_env_runners": 2, "resources": {"rollout": 1}},
            "reward": {"replicas": None},
            "learner": {"num_learners": 0},
        }
        with Driver(tmp_path, **changes) as driver:
            driver.start()
            driver.until(lambda: driver.newest("reward/version") >= 1)
            assert logged(driver, "starts on node") == 1
            driver.goes_on()

            add(cluster, **NODE)
            driver.until(lambda: logged(driver, "4 env runners share a train batch") == 1)
            driver.until(lambda: logged(driver, "starts on node") == 2)
            driver.goes_on()

            cluster.remove_node(first, allow_graceful=False)
            driver.until(lambda: logged(driver, "2 env runners share a train batch") == 1)
            driver.goes_on()
            driver.until(lambda: logged(driver, "its node has no env runner any more") == 1)

            driver.interrupt()
            assert driver.wait() == 130, driver.said()
            assert "env runners share a train batch, 25 rows each" in driver.log()
        check_versions(driver.rows())
        check_answers(driver.path)


def logged(driver: Driver, words: str) -> int:
    return driver.log().count(words)
