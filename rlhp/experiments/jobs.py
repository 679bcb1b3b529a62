"""Runs on a cluster elsewhere, through the Ray Jobs API: submitted, followed, stopped,
from anywhere.

A job's id is the name of its run. A job runs once; the same run submitted again goes on
where it was, as job `NAME.2`. What a job is told (its command, its environment) can be
read by whoever reaches the cluster's dashboard, so secrets are refused here: they
belong to the nodes, as environment or files.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import shlex
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from ray.exceptions import AuthenticationError
from ray.job_submission import JobStatus, JobSubmissionClient

from rlhp.config import addresses, loading
from rlhp.config.schema import RunConfig
from rlhp.errors import RlhpError, Unreachable
from rlhp.storage import credentials, rundir

ADDRESS = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")
"""Ray's own variables for the address of its job server."""
DEFAULT_ADDRESS = "http://127.0.0.1:8265"
EXCLUDES = (
    "/runs",
    "/secrets",
    ".env",
    "/.venv",
    "/.git",
    "/wandb",
    "__pycache__",
    "*.egg-info",
    ".mypy_cache",
    ".ruff_cache",
    "*.mp4",
)
STOP_SECONDS = 120
"""How long a stopped run may take for its present iteration and a last checkpoint;
Ray's own three are too few.
"""
POLL_SECONDS = 1.0
AGENT_SECONDS = 60.0
"""A head that has just been started takes jobs a little later than questions."""
_CHECKED: dict[str, Callable[[str], object]] = {
    "redis.url": addresses.check,
    "checkpoint.store": addresses.check_store,
    "clips.store": addresses.check_store,
}
SUCCEEDED, FAILED, STOPPED = "SUCCEEDED", "FAILED", "STOPPED"
ENDED = (SUCCEEDED, FAILED, STOPPED)


@dataclass(frozen=True, kw_only=True, slots=True)
class Order:
    """What is to be run, and with what."""

    config: Path
    """As the job finds it: relative to the working directory, or a path inside the
    image.
    """
    name: str
    sets: tuple[str, ...] = ()
    working_dir: Path | None = None
    """Uploaded to every node; None: the nodes have all that is needed."""
    image: str | None = None
    """A container image for every process of the job, where nodes have podman."""
    env: Mapping[str, str]
    reserve: Mapping[str, float]
    """Resources of the driver, as {"learner": 1}: they say on which kind of node it
    runs.
    """

    @property
    def entrypoint(self) -> str:
        """The command of the job."""
        sets = [word for text in ("ray.address=auto", *self.sets) for word in ("--set", text)]
        # -m: the uploaded checkout, if it is one, and not what is installed.
        return shlex.join(
            [
                "python",
                "-m",
                "rlhp",
                "train",
                str(self.config),
                "--name",
                self.name,
                "--or-resume",
                *sets,
            ]
        )

    @property
    def runtime_env(self) -> dict[str, Any]:
        """As Ray has it."""
        env_vars = {"RAY_JOB_STOP_WAIT_TIME_S": str(STOP_SECONDS), **self.env}
        found: dict[str, Any] = {"env_vars": env_vars}
        if self.working_dir is not None:
            found |= {"working_dir": str(self.working_dir), "excludes": list(EXCLUDES)}
        if self.image is not None:
            found["image_uri"] = self.image
        return found


def order(
    config: Path,
    *,
    name: str | None,
    sets: Sequence[str],
    working_dir: Path | None,
    image: str | None,
    env: Sequence[str],
    reserve: Sequence[str],
) -> Order:
    """Checked here as far as it can be; ValueError for what could not work there, or
    would show a secret.
    """
    if working_dir is not None:
        settings = loading.load(config, sets=sets)
        _refuse_secrets(settings)
        where = working_dir.resolve()
        if not config.resolve().is_relative_to(where):
            raise RlhpError(
                f"{config}: only {where} is sent to the cluster, and the config lies outside; "
                "give --working-dir a directory that holds it"
            )
        config = config.resolve().relative_to(where)
    elif config.is_file():
        _refuse_secrets(loading.load(config, sets=sets))
    for text in sets:
        key, _, value = text.partition("=")
        if addresses.holds_secret(value) or addresses.is_secret(key.rpartition(".")[2]):
            raise _told_to_everybody(f"--set {key}=...")
        # what can be read in two ways is a password, perhaps
        if key in _CHECKED and value not in ("", "~", "null"):
            _CHECKED[key](value.strip("'\" "))
    return Order(
        config=config,
        name=_name(name, config),
        sets=tuple(sets),
        working_dir=working_dir.resolve() if working_dir is not None else None,
        image=image,
        env=dict(_variable(text) for text in env),
        reserve=dict(_amount(text) for text in reserve),
    )


class Jobs:
    """The jobs of one cluster."""

    def __init__(self, address: str | None = None) -> None:
        """ConnectionError where no job server answers."""
        named = next(
            (os.environ[name] for name in ADDRESS if os.environ.get(name)), DEFAULT_ADDRESS
        )
        self.address = address or named
        for name in (
            "ray.dashboard.modules.dashboard_sdk",
            "ray.dashboard.modules.job.sdk",
            "ray._private.runtime_env.packaging",
        ):
            # they tell of each file that they pack
            logging.getLogger(name).setLevel(logging.WARNING)
        with self._explained():
            self._client = JobSubmissionClient(self.address)

    def submit(self, order: Order) -> str:
        """Start a job; its id. ValueError where that run is under way already."""
        before = self.of(order.name)
        if before and str(before[-1].status) not in ENDED:
            raise RlhpError(
                f"run {order.name} is under way already as job {before[-1].submission_id}; rlhp "
                f"job logs {order.name} follows it, rlhp job stop {order.name} ends it"
            )
        job = order.name if not before else f"{order.name}.{len(before) + 1}"
        deadline = time.monotonic() + AGENT_SECONDS
        while True:
            try:
                with self._explained():
                    self._client.submit_job(
                        entrypoint=order.entrypoint,
                        submission_id=job,
                        runtime_env=order.runtime_env,
                        entrypoint_resources=dict(order.reserve) or None,
                        metadata={"rlhp_run": order.name, "rlhp_config": str(order.config)},
                    )
                return job
            except ValueError as error:
                if "No available agent" not in str(error):
                    raise
                if time.monotonic() > deadline:
                    raise Unreachable(
                        f"the head at {self.address} has had no job agent for {AGENT_SECONDS:g} "
                        "s. Another Ray on that machine may hold its port, 52365: start the head "
                        "with --dashboard-agent-listen-port=PORT (dashboard_agent.log in Ray's "
                        "session directory says so)"
                    ) from error
                time.sleep(POLL_SECONDS)

    def all(self) -> list[Any]:
        """Every job that is a run, oldest first, as Ray describes it."""
        with self._explained():
            found = [job for job in self._client.list_jobs() if "rlhp_run" in (job.metadata or {})]
        return sorted(found, key=lambda job: job.start_time or 0)

    def of(self, run: str) -> list[Any]:
        """The jobs of one run, oldest first."""
        return [job for job in self.all() if job.metadata["rlhp_run"] == run]

    def newest(self, run: str) -> Any:
        """The last job of a run; ValueError where there is none."""
        found = self.of(run)
        if not found:
            runs = sorted({job.metadata["rlhp_run"] for job in self.all()})
            known = f"it knows {', '.join(runs[-5:])}" if runs else "it knows no run"
            raise RlhpError(f"no job of a run named {run!r} at {self.address}; {known}")
        return found[-1]

    def status(self, job: str) -> str:
        """PENDING, RUNNING, SUCCEEDED, FAILED or STOPPED."""
        with self._explained():
            return str(self._client.get_job_status(job))

    def message(self, job: str) -> str:
        """What Ray says about a job's state."""
        with self._explained():
            return str(self._client.get_job_info(job).message or "")

    def follow(self, job: str, say: Callable[[str], None]) -> str:
        """Hand on what the job prints until it ends, over lost connections too; its
        last state.
        """
        printed = 0
        while True:
            printed = asyncio.run(self._tail(job, say, printed))
            status = self.status(job)
            if status in ENDED:
                return status
            time.sleep(POLL_SECONDS)

    def logs(self, job: str) -> str:
        """What the job has printed so far."""
        with self._explained():
            return str(self._client.get_job_logs(job))

    def stop(self, job: str) -> str:
        """End a job as Ctrl-C would, and wait until it has ended; its last state."""
        with self._explained():
            self._client.stop_job(job)
        deadline = time.monotonic() + STOP_SECONDS + 30
        while (status := self.status(job)) not in ENDED and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
        return status

    async def _tail(self, job: str, say: Callable[[str], None], printed: int) -> int:
        seen = 0
        try:
            async for text in self._client.tail_job_logs(job):
                fresh = text[max(0, printed - seen) :]
                seen += len(text)
                if fresh:
                    say(fresh)
        except (RuntimeError, OSError):
            pass  # the connection was lost: what was printed is skipped when it is read again
        return max(seen, printed)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except ConnectionError as error:
            raise Unreachable(
                f"no job server of Ray answers at {self.address}: "
                f"{str(error).splitlines()[0].rstrip('.')}; --address takes that of the head's "
                "dashboard, as http://head:8265 (from outside: ssh -L 8265:localhost:8265)"
            ) from error
        except AuthenticationError as error:
            raise RlhpError(
                f"{self.address}: the cluster wants its token; set RAY_AUTH_MODE=token, and "
                "RAY_AUTH_TOKEN_PATH to a file that holds it (where the head runs it is in "
                "~/.ray/auth_token)"
            ) from error
        except RuntimeError as error:
            raise RlhpError(f"{self.address}: {_last_line(error)}") from error


def show(job: Any) -> str:
    """One line about a job."""
    started = (
        f"{datetime.fromtimestamp(job.start_time / 1000):%Y-%m-%d %H:%M}"
        if job.start_time
        else "not started"
    )
    return (
        f"{job.submission_id}  {JobStatus(job.status).value}  {started}  "
        f"{job.metadata.get('rlhp_config', '')}"
    )


def _refuse_secrets(config: RunConfig) -> None:
    if config.redis.url is not None and credentials.has_password(config.redis.url):
        raise _told_to_everybody(f"redis.url={addresses.redact(config.redis.url)}")


def _told_to_everybody(what: str) -> RlhpError:
    return RlhpError(
        f"{what}: a job's command and files can be read by whoever reaches the dashboard, so a "
        f"password has no place there; give the nodes {credentials.PASSWORD}, or a file that "
        "redis.password_file names"
    )


def _variable(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        if name not in os.environ:
            raise RlhpError(f"--env {name}: it is not set here; give --env {name}=VALUE")
        value = os.environ[name]
    if addresses.is_secret(name) or addresses.holds_secret(value):
        raise RlhpError(
            f"--env {name}: whoever reaches the cluster's dashboard can read a job's environment; "
            "set it on the nodes, where they are started, or name a file there"
        )
    return name, value


def _amount(text: str) -> tuple[str, float]:
    name, _, value = text.partition("=")
    try:
        return name, float(value or 1)
    except ValueError:
        raise RlhpError(f"--reserve takes NAME=AMOUNT, as learner=1, got {text!r}") from None


def _name(name: str | None, config: Path) -> str:
    if name is not None:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}", name):
            raise RlhpError(
                f"--name: letters, digits, '.', '_' and '-', at most 80 of them, got {name!r}"
            )
        return name
    return rundir.timed(config.stem)


def _last_line(error: Exception) -> str:
    """Of a reply of the job server, which carries its whole traceback."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[-1].strip() if lines else type(error).__name__
