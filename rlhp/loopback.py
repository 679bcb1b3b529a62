"""A Ray that a run starts for itself listens on loopback alone. It has to be told before it is imported.

Left to itself Ray binds to every interface of a machine, also where all of it is on that machine. The way to loopback
is the one it takes on macOS and Windows, where it allows no cluster.
"""

from __future__ import annotations

import os

from rlhp.config import RunConfig

CLUSTERS = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"


def on_loopback(config: RunConfig) -> RunConfig:
    """The config as it is, and Ray told, where the run joins no cluster. Whoever has set the variable knows better."""
    if config.ray.address is None:
        os.environ.setdefault(CLUSTERS, "0")
    return config
