"""Who runs a run: one process at a time, at its queue and in its directory.

An owner holds a lease that it renews by a heartbeat. Another one is refused while the
lease lasts, unless the owner is known to be dead; once it has taken over, the first is
told so at its next call and ends.

    owner = Owner.here(directory)
    acquire(claim, owner, take_over=False)  # claim(replaces) -> None: ours now; else who has it

A directory is leased by its file `owner.json`, also where two hosts share its disk: the
content is the owner, the time of change the last heartbeat. Times are those of the
disk's own server, so the clocks of two hosts need not agree.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Self

from rlhp.errors import RlhpError
from rlhp.files import read_regular
from rlhp.storage import provenance

log = logging.getLogger(__name__)

LEASE_SECONDS = 60.0
"""An owner that was not heard of for so long may be replaced by anybody."""
BEAT_SECONDS = 5.0
WATCH_SECONDS = 3 * BEAT_SECONDS
"""For so long a silent owner is watched even so: the clock that says how long it is
silent may have been set ahead.
"""
LOOK_EVERY_SECONDS = 0.5


class TakenOver(RlhpError):
    """Another process owns the run by now."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Owner:
    """The process that runs a run."""

    token: str
    """Drawn for each start; what is shown with every call."""
    host: str
    machine: str
    """The machine on which its process id means anything, as `provenance.machine` has
    it.
    """
    pid: int
    pid_started: int | None
    directory: str | None
    """The run's directory; None where a queue was opened without one."""
    since: str

    @classmethod
    def here(cls, directory: str | Path | None = None) -> Self:
        """This process, as a new owner."""
        return cls(
            token=secrets.token_hex(8),
            host=socket.gethostname(),
            machine=provenance.machine(),
            pid=os.getpid(),
            pid_started=provenance.process_start(os.getpid()),
            directory=None if directory is None else str(directory),
            since=provenance.now(),
        )

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The inverse of `to_json`; what is missing is unknown, so that somebody is
        named even where it is damaged.
        """
        try:
            found = json.loads(text)
        except (ValueError, RecursionError):
            found = None
        unknown: dict[str, Any] = {
            "token": "",
            "host": "an unknown host",
            "machine": "",
            "pid": 0,
            "pid_started": None,
            "directory": None,
            "since": "an unknown time",
        }
        names = {field.name for field in fields(cls)}
        return cls(
            **unknown
            | {name: found[name] for name in names & set(found if isinstance(found, dict) else ())}
        )

    def to_json(self) -> str:
        """One line."""
        return json.dumps(asdict(self))

    @property
    def is_here(self) -> bool:
        """Whether it runs, or ran, where this process can look for it."""
        return self.machine == provenance.machine()

    @property
    def dead(self) -> bool:
        """Whether its process is known to be gone; False where nobody here can know."""
        return self.is_here and not provenance.alive(self.pid, self.pid_started)

    @property
    def is_this_process(self) -> bool:
        """Whether this process is the owner, under whatever token."""
        return self.is_here and self.pid == os.getpid()

    def __str__(self) -> str:
        where = "" if self.directory is None else f" in {self.directory}"
        return f"process {self.pid} on {self.host}{where}, since {self.since}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Held:
    """Somebody else has it."""

    owner: Owner
    beat: str
    """Differs with each heartbeat."""
    silent_seconds: float
    """Since the last one, by the clock of whoever keeps it."""


def acquire(
    claim: Callable[[str], Held | None],
    *,
    what: str,
    take_over: bool = False,
    wait: bool = True,
    say: Callable[[str], object] = print,
) -> None:
    """Make `what` ours: at once where nobody has it, where its owner is known to be
    dead, or with `take_over`.

    `claim(token)` takes it if nobody has it, or if the owner with this token does. An
    owner that cannot be looked for is watched (with `wait`) for as long as its lease
    can last; RlhpError as soon as it is heard of, or at once without.
    """
    held = first = claim("")
    began = time.monotonic()
    while held is not None:
        assert first is not None
        alive = held.owner.is_here and not held.owner.dead
        unheard = (held.owner.token, held.beat) == (first.owner.token, first.beat)
        watched = time.monotonic() - began
        silent = unheard and watched >= (
            WATCH_SECONDS if held.silent_seconds >= LEASE_SECONDS else LEASE_SECONDS
        )
        if held.owner.dead or (not alive and (take_over or silent)):
            held = claim(held.owner.token)
            continue
        if alive or not unheard or not wait:
            raise RlhpError(f"{what} belongs to {held.owner}; {_way_out(held.owner)}")
        if held is first:
            say(
                f"{what} belongs to {held.owner}, and nobody here can look for it: waiting "
                "whether it is heard of"
            )
        time.sleep(LOOK_EVERY_SECONDS)
        held = claim("")


def taken_over(owner: Owner) -> TakenOver:
    """What to raise in a process whose run is this owner's by now."""
    return TakenOver(
        f"another process has taken the run over: {owner}. This one ends and stores nothing more; "
        "what was answered waits for the other. Stop that one before this one is resumed"
    )


@contextmanager
def beating(beat: Callable[[], object], *, name: str) -> Iterator[None]:
    """Call `beat` from a thread for the length of the block, until it finds that
    somebody else has taken over.

    A server or a disk that is away is waited for: meanwhile nobody can take anything
    over.
    """
    ended = threading.Event()

    def run() -> None:
        while not ended.wait(BEAT_SECONDS):
            try:
                beat()
            # whoever asks, reads or writes next is told so too, and ends the run
            except TakenOver as error:
                log.warning("%s: %s", name, error)
                return
            except OSError:
                continue

    thread = threading.Thread(target=run, name=name, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _way_out(owner: Owner) -> str:
    if owner.is_here:
        return "stop that process first, or choose another name"
    return (
        "choose another name, or wait until that one has ended or was silent for "
        f"{LEASE_SECONDS:.0f} s. Known to be dead, it is replaced at once by: rlhp train --resume "
        "RUN --take-over"
    )


FILE = "owner.json"


class DirectoryLease:
    """The lease on one directory.

    with lease.held(take_over=False) as owner:
        ...  # lease.check() now and then: TakenOver once somebody else has it
    """

    def __init__(self, directory: Path) -> None:
        self._directory, self._file = directory, directory / FILE
        self.owner: Owner | None = None
        """This process, while it holds the lease."""

    @contextmanager
    def held(self, *, take_over: bool, say: Callable[[str], object]) -> Iterator[Owner]:
        """Hold it for the length of the block; RlhpError where somebody else does, as
        `acquire` has it.
        """
        owner = Owner.here(self._directory)
        acquire(
            lambda replaces: self._claim(owner, replaces),
            what=str(self._directory),
            take_over=take_over,
            say=say,
        )
        self.owner = owner
        try:
            with beating(self._beat, name="directory lease"):
                yield owner
        finally:
            self.owner = None
            if self._is(owner):
                self._file.unlink(missing_ok=True)

    def check(self) -> None:
        """TakenOver where somebody else has taken the directory over."""
        if self.owner is not None and not self._is(self.owner):
            found = self._read()
            assert found is not None
            raise taken_over(found[0])

    def _claim(self, owner: Owner, replaces: str) -> Held | None:
        found = self._read()
        if (
            found is not None
            and found[0].token not in (owner.token, replaces)
            and not found[0].is_this_process
        ):
            return Held(
                owner=found[0], beat=str(found[1]), silent_seconds=(self._now() - found[1]) / 1e9
            )
        temporary = self._file.with_name(f".{FILE}.{owner.token}")
        temporary.write_text(owner.to_json() + "\n", encoding="utf-8")
        temporary.replace(self._file)
        return None  # where two do so at once, the first is told at its next check

    def _beat(self) -> None:
        self.check()
        with suppress(FileNotFoundError):
            os.utime(self._file)

    def _is(self, owner: Owner) -> bool:
        found = self._read()
        return found is None or found[0].token == owner.token

    def _read(self) -> tuple[Owner, int] | None:
        try:
            text = read_regular(self._file, most=65536).decode(errors="replace")
            # fresh: the file has just been opened
            return Owner.from_json(text), self._file.stat().st_mtime_ns
        except FileNotFoundError:
            return None

    def _now(self) -> int:
        file = self._directory / f".now.{os.getpid()}"
        try:
            file.write_bytes(b"")
            return file.stat().st_mtime_ns
        finally:
            file.unlink(missing_ok=True)
