"""The actors of a run as they were last seen: where each is, how often it was started
again, and what it says of itself.

The driver writes them to `actors.json` every few seconds, so that `rlhp status` knows
them without joining the Ray cluster.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from rlhp.files import write_whole
from rlhp.system.roles import (
    QueryActorStatus,
    RewardModelStatus,
    RewardTrainerStatus,
    RoleStatus,
    spoken,
)

QUIET_ROLE_SECONDS = 10.0
"""A role whose thread has turned since is not called busy."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ActorFacts:
    """One Ray actor."""

    run: str
    role: str
    """Its name in `rlhp.system.roles`: `env_runner`, `reward_model_0`, ..."""
    name: str
    """By which Ray finds it; empty for those of RLlib."""
    state: str
    """Ray's word, in small letters: alive, restarting, pending_creation,
    dependencies_unready. Ours is away: Ray has not noticed yet that it does not answer.
    """
    node: str
    """Its address; empty while it has none."""
    pid: int
    restarts: int
    note: str = ""
    """What it is at: the version it serves, what it waits for."""
    waiting_for: str | None = None
    """The connection that it said it waits for."""
    fatal: str | None = None
    """The error that it said it stopped at."""
    version: int | None = None
    """The reward version that it said it has."""

    @property
    def here(self) -> bool:
        """Whether it can be spoken to."""
        return self.state == "alive"


def table(actors: Sequence[ActorFacts]) -> list[str]:
    """Lines for people, headings first; empty without actors."""
    if not actors:
        return []
    rows = [("actor", "node", "process", "state", "restarts", "")]
    rows += [
        (spoken(a.role), a.node or "-", str(a.pid or "-"), a.state, str(a.restarts), a.note)
        for a in actors
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    return [
        "  ".join([*(row[k].ljust(width) for k, width in enumerate(widths)), row[5]]).rstrip()
        for row in rows
    ]


def write(file: Path, actors: Sequence[ActorFacts]) -> None:
    """Whole or not at all."""
    facts = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "actors": [asdict(each) for each in actors],
    }
    write_whole(file, json.dumps(facts) + "\n")


def read(file: Path) -> tuple[list[ActorFacts], datetime | None]:
    """The actors and when they were seen; none and None where nobody wrote, or another
    rlhp did.
    """
    with suppress(OSError, ValueError, TypeError, KeyError):
        facts: Mapping[str, object] = json.loads(file.read_text(encoding="utf-8"))
        listed = facts["actors"]
        assert isinstance(listed, list)
        return [ActorFacts(**actor) for actor in listed], datetime.fromisoformat(str(facts["at"]))
    return [], None


def told(actor: ActorFacts, status: RoleStatus | None) -> ActorFacts:
    """The actor with what it says of itself, where it said anything."""
    if status is None:
        return actor
    version = (
        status.version if isinstance(status, RewardModelStatus | RewardTrainerStatus) else None
    )
    words = [] if version is None else [f"version {version}"]
    if isinstance(status, QueryActorStatus):
        words.append(f"{status.pool} segments")
    if status.beat is not None and time.time() - status.beat > QUIET_ROLE_SECONDS:
        words.append(f"busy for {time.time() - status.beat:.0f} s")
    if status.waiting_for is not None:
        words.append(f"waits: {status.waiting_for}")
    return replace(
        actor,
        state="away" if actor.here and not status.alive else actor.state,
        note=", ".join(words),
        waiting_for=status.waiting_for,
        fatal=status.fatal,
        version=version,
    )
