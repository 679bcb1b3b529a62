"""Where a run lives: the sections for Redis and Ray."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from rlhp import addresses
from rlhp.configlabeling import Section


class RedisConfig(Section):
    """Where queries and answers live."""

    url: str | None = Field(
        default=None, description="`redis://`, `rediss://` or `unix://`; null starts an embedded server in the run."
    )
    username: str | None = Field(default=None, description="ACL user of that server; null: the default user.")
    password_file: str | None = Field(
        default=None,
        description="File whose first line is the password; RLHP_REDIS_PASSWORD and RLHP_REDIS_PASSWORD_FILE say the "
        "same from the environment. Never written into the run directory.",
    )
    ca_file: str | None = Field(
        default=None, description="PEM file of the authority that signed the server's certificate (`rediss://`)."
    )
    cert_file: str | None = Field(default=None, description="PEM file of our certificate, where the server wants one.")
    key_file: str | None = Field(default=None, description="PEM file of its key.")
    durable: Literal["everysec", "always"] = Field(default="everysec", description="Embedded: when AOF is synced.")
    connect_timeout_seconds: float = Field(default=10, gt=0, description="How long a start waits for the server.")

    @field_validator("url")
    @classmethod
    def _readable(cls, url: str | None) -> str | None:
        return None if url is None else addresses.check(url)


class RayConfig(Section):
    """Which Ray cluster."""

    address: str | None = Field(default=None, description="null starts a local Ray; `auto` or `host:port` joins one.")
    num_cpus: int | None = Field(default=None, ge=1, description="Logical CPUs of a local Ray; null fits the run.")
    wait_seconds: float = Field(
        default=20,
        ge=0,
        description="How long a start waits for room on the cluster, before it ends with what is missing. Where an "
        "autoscaler has to start machines, give it their time, as in 900.",
    )
    max_restarts: int = Field(
        default=5,
        ge=0,
        description="How often in a row, with no new checkpoint between, a lost learner is started again from the last "
        "checkpoint before the run gives up.",
    )
    stall_seconds: float = Field(
        default=300,
        gt=0,
        description="Without a new env step for that long, env runners and learners are killed and started again; "
        "longer than the longest iteration. Waiting for answers or for a reward model does not count.",
    )
