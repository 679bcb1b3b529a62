"""Several Ray nodes on this machine, with a head that runs nothing, as on a cluster."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

STORE = 150 * 1024 * 1024
QUIET = {"include_dashboard": False}


@contextmanager
def nodes(*workers: dict[str, Any], head: dict[str, Any] | None = None) -> Iterator[Any]:
    """A `ray.cluster_utils.Cluster` whose head has no CPU; each worker is the arguments
    of `add_node`.
    """
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    with warnings.catch_warnings():
        # of Ray's own imports and of the sockets that it leaves open
        warnings.simplefilter("ignore")
        from ray.cluster_utils import Cluster

        cluster = Cluster(
            initialize_head=True,
            head_node_args={"num_cpus": 0, "object_store_memory": STORE, **QUIET, **(head or {})},
        )
        try:
            for worker in workers:
                add(cluster, **worker)
            yield cluster
        finally:
            cluster.shutdown()


def add(cluster: Any, **worker: Any) -> Any:
    """One more node, which has joined when this returns."""
    return cluster.add_node(**{"object_store_memory": STORE, **worker})
