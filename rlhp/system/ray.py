"""The Ray that a run lives in: a local one that fits, or the cluster that the config
names; quietly.

Code of a user's own: Ray puts the driver's working directory on the import path of
every process it starts for a run. On another node that helps only where the same
directory is there, as on a shared disk. Elsewhere the modules are installed on every
node, or travel with the job: `ray job submit --working-dir . -- rlhp train ...`.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray

from rlhp.config.schema import RunConfig
from rlhp.errors import RlhpError, Unreachable

NAMESPACE = "rlhp"


NOISY = (
    "ray.rllib",
    "ray.tune",
    "ray.train",
    "ray._common.deprecation",
    "ray._private.authentication",
)
"""Python loggers that speak of RLlib's own habits, and of parts of Ray that a run does
not use.
"""
SAYS_IT_TWICE = "ray.rllib.utils.actor_manager"
"""Whole tracebacks of env runners that were lost or gave up: ours go to the run's log.
"""
NOISE = (b"Set ray log level from environment variable", b"gcs_client.cc")
"""What Ray's C++ side says about being told to be silent, and about a head it cannot
join, which we say in a line.
"""
ANSWER_SECONDS = 10.0
STARTS = 4
SLOW_START = "timed out during startup"

log = logging.getLogger(__name__)


def hush() -> None:
    """Only errors of Ray's Python side reach the terminal; call it before RLlib builds
    anything.
    """
    for name in NOISY:
        logging.getLogger(name).setLevel(logging.ERROR)
    logging.getLogger(SAYS_IT_TWICE).setLevel(logging.CRITICAL)


@contextmanager
def ray_cluster(config: RunConfig, *, cpus: int) -> Iterator[None]:
    """Join the cluster that the config names, or start a local one; leave it as it was
    found.

    A Ray that already runs in this process is used as it is. `cpus` is the size of a
    local one.
    """
    hush()
    if ray.is_initialized():
        yield
        return
    address = config.ray.address
    local = {} if address else {"num_cpus": config.ray.num_cpus or cpus, "include_dashboard": False}
    # RLlib keeps the arguments of restartable env runners in the object store, which
    # Ray calls an error each time.
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    # Ray puts every worker behind everything else; env runners are as urgent as the
    # learner that waits for them.
    os.environ.setdefault("RAY_worker_niceness", "0")
    try:
        with _without_noise(), _explained(address), _own_signals():
            # With no address Ray would look for a cluster on this machine, and refuse
            # to be given CPUs if there is one.
            _init(address=address or "local", **local)
        yield
    finally:
        ray.shutdown()


def _init(**options: Any) -> None:
    """Ray allows a node half a minute to come up, which a machine that does much else
    may need.
    """
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    _start(options)
    if threading.current_thread() is threading.main_thread():
        for number, handler in handlers.items():  # Ray's own end the process at once
            signal.signal(number, handler)


def _start(options: dict[str, Any]) -> None:
    for attempt in range(1, STARTS + 1):
        try:
            ray.init(
                namespace=NAMESPACE, log_to_driver=False, logging_level=logging.ERROR, **options
            )
            return
        except Exception as error:  # Ray raises no class of its own here
            if SLOW_START not in str(error) or attempt == STARTS:
                raise
            log.warning("Ray did not come up in time, start %d of %d", attempt, STARTS)


@contextmanager
def _own_signals() -> Iterator[None]:
    """Ray makes SIGTERM an exit at once, without a checkpoint: what was to be done
    about it is put back.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _explained(address: str | None) -> Iterator[None]:
    try:
        yield
    except ConnectionError as error:
        raise Unreachable(
            f"ray.address={address}: {error}. Ask `ray status` there whether it runs; a cluster "
            "that wants a token is joined with RAY_AUTH_MODE=token and the cluster's own token "
            "in this environment"
        ) from error


def refuse_silence(address: str) -> None:
    """RlhpError for what is no address, and at once where nobody listens there: Ray
    would try for many minutes.
    """
    if address in ("auto", "local"):
        return
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if (
        not host
        or "/" in host
        or not (port.isascii() and port.isdigit())
        or not 0 < int(port) < 65536
    ):
        raise RlhpError(
            f"ray.address is HOST:PORT of a Ray head, ray://HOST:PORT or auto, got {address!r}; "
            "correct it"
        )
    if address.startswith("ray://"):
        return  # a server of Ray's client, which waits for nobody
    try:
        socket.create_connection((host, int(port)), timeout=ANSWER_SECONDS).close()
    except (OSError, UnicodeError) as error:  # the latter for a name that no host can have
        raise Unreachable(
            f"ray.address={address}: nothing answers there ({error}); start the head with `ray "
            "start --head`, or leave ray.address empty for a local Ray"
        ) from error


@contextmanager
def _without_noise() -> Iterator[None]:
    """Hold back what this process writes to stderr, then write it all but the lines of
    `NOISE`.

    The C++ side writes past Python, so the file descriptor is what has to be turned;
    into a file, since a process that is started meanwhile may keep it for good.
    """
    terminal = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(terminal, 2)
            os.close(terminal)
            held.seek(0)
            for line in held:
                if not any(noise in line for noise in NOISE):
                    os.write(2, line)
