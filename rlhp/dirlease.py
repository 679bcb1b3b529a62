"""One process at a time runs what is in a directory, also where two hosts share its disk.

`owner.json` says who: its content is the owner, its time of change the last heartbeat. Times are those of the disk's
own server, so the clocks of two hosts need not agree.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from rlhp.owner import Held, Owner, acquire, beating, taken_over

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
        """Hold it for the length of the block; RlhpError where somebody else does, as `rlhp.owner.acquire` has it."""
        owner = Owner.here(self._directory)
        acquire(lambda replaces: self._claim(owner, replaces), what=str(self._directory), take_over=take_over, say=say)
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
        if found is not None and found[0].token not in (owner.token, replaces) and not found[0].is_this_process:
            return Held(owner=found[0], beat=str(found[1]), silent_seconds=(self._now() - found[1]) / 1e9)
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
            with self._file.open(encoding="utf-8", errors="replace") as stream:  # opened: a stat alone may be cached
                return Owner.from_json(stream.read()), os.fstat(stream.fileno()).st_mtime_ns
        except FileNotFoundError:
            return None

    def _now(self) -> int:
        file = self._directory / f".now.{os.getpid()}"
        try:
            file.write_bytes(b"")
            return file.stat().st_mtime_ns
        finally:
            file.unlink(missing_ok=True)
