"""One small Ray for all tests of a session: starting one takes longer than most tests."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session")
def ray_session() -> Iterator[None]:
    """A local Ray of three logical CPUs in the project's namespace; whoever finds one
    running leaves it alone.
    """
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    os.environ["PYTHONPATH"] = os.pathsep.join(
        [os.getcwd(), *filter(None, [os.environ.get("PYTHONPATH")])]
    )
    for noisy in ("ray.rllib", "ray.tune", "ray.train"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    with warnings.catch_warnings():
        # of Ray's own imports and of the sockets that it leaves open
        warnings.simplefilter("ignore")
        import ray  # late: it reads the environment that conftest.py has set

        from rlhp.system.ray import NAMESPACE

        ray.init(
            address="local",  # even where somebody runs one on this machine
            num_cpus=3,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            namespace=NAMESPACE,
        )
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ray.shutdown()
