"""Runs at a Redis: their names, their keys, and what is said when one is not what it
should be.
"""

from __future__ import annotations

import logging

from rlhp.config.addresses import shown
from rlhp.errors import RlhpError
from rlhp.queue.connection import Connection, Refused, make_client, reaching
from rlhp.queue.records import NAME, text
from rlhp.storage.lease import Held, Owner

SCHEMA = "1"
"""Version of keys and scripts; a run of another version is refused."""

_log = logging.getLogger(__name__)


def key(run: str, name: str) -> str:
    """The key `name` of `run`; the braces are Redis' hash tag: one slot per run."""
    return f"rlhp:{{{run}}}:{name}"


def list_runs(url: str) -> list[str]:
    """Names of the runs at a Redis, sorted, closed ones included."""
    with reaching(url, "list runs"), make_client(url, timeout_seconds=5) as client:
        names = [
            text(found)[6:-6]
            for found in client.scan_iter(match=key("*", "meta"), count=1000, _type="HASH")
        ]
        return sorted(
            name for name in names if client.hget(key(name, "meta"), "kind") == b"rlhp-queue"
        )


def check_name(kind: str, name: str) -> None:
    """ValueError for the name of a run or labeler that could not be part of a key."""
    if not NAME.fullmatch(name):
        raise RlhpError(
            f"the name of a {kind} is 1 to 80 letters, digits or . _ @ + -, the first a letter or "
            f"digit; got {name!r}"
        )


def not_open(run: str, *, url: str) -> RlhpError:
    """What to raise about a run that is not there (any more)."""
    return RlhpError(
        f"run {run} is not at {shown(url)}: it was never opened there, or the server lost its "
        "data since. Start the run first, or go on with rlhp train --resume: answers on disk "
        "count, open queries are asked anew. A server of your own keeps its data with appendonly "
        "yes and maxmemory-policy noeviction"
    )


def refusal(found: str, *, run: str, url: str, config_sha256: str) -> str:
    """What to say where the script `open` found something else under the run's name."""
    kind, _, value = found.partition(":")
    where = f"{key(run, 'meta')} at {shown(url)}"
    if kind == "used":
        return (
            f"{where} belongs to another run of the name {run}: {Owner.from_json(value)}. Two "
            "runs would share one queue and lose answers to each other; choose another name with "
            "--name, or another Redis database"
        )
    if kind == "schema":
        return (
            f"{where} has schema {value or 'none'}, this rlhp needs {SCHEMA}; use the rlhp "
            "that made it"
        )
    if kind == "config":
        return (
            f"{where} belongs to a run of another configuration (sha256 {value[:12]}, this one "
            f"{config_sha256[:12]}); choose another run name, or resume that run"
        )
    return f"{where} was not made by rlhp; choose another run name or another Redis database"


def held(found: str) -> Held | None:
    """Who has the run, where the script `open` found an owner that lives, or may."""
    kind, _, value = found.partition(":")
    if kind != "owned":
        return None
    beat, silent, owner = value.split(" ", 2)
    return Held(owner=Owner.from_json(owner), beat=beat, silent_seconds=int(silent) / 1000)


def warn_about_eviction(connection: Connection) -> None:
    """Log it where the server may throw keys away by itself; one that does not tell
    about itself is believed.
    """
    try:
        with connection.client("read the memory policy") as client:
            policy = client.info("memory").get("maxmemory_policy", "noeviction")
    except Refused as error:
        _log.warning("whether Redis may throw queries and answers away is not known: %s", error)
        return
    if policy != "noeviction":
        _log.warning(
            "Redis at %s may throw queries and answers away (maxmemory-policy %s); set it to "
            "noeviction",
            shown(connection.url),
            policy,
        )
