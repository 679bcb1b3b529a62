"""Files of a run: written whole or not at all, sealed where a flipped bit must not
pass, and errors that name the path.

`write` and `fsync` of a full or broken disk raise an OSError without a path, of which
nobody can tell what to free. Whatever writes below a run directory does so inside
`naming`, so that such an error leaves with its file.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from rlhp.errors import RlhpError

_SEAL = b"RLHPSEAL"
_DIGEST_BYTES = 32


class Damaged(RlhpError):
    """A file that is not what was written."""


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """An OSError that names no path leaves with this one."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = str(path)
        raise


def expanded(path: str) -> Path:
    """The path that a user named, with `~` put in full. RlhpError where nobody knows
    whose home it means.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError:
        user = path.split("/")[0][1:]
        whose = (
            f"there is no user {user} here"
            if user
            else f"this user (id {os.getuid()}) has no home directory"
        )
        way_out = "write the path in full" + ("" if user else ", or set HOME")
        raise RlhpError(f"{path} begins in a home directory, and {whose}; {way_out}") from None


STATE_DIRECTORY = "RLHP_SECRETS_DIR"


def state_directory() -> Path:
    """What this user's processes keep for each other and for nobody else: RLHP_SECRETS_DIR,
    or ~/.local/state/rlhp. RlhpError for a user without a home.
    """
    folder = os.environ.get(STATE_DIRECTORY)
    return Path(folder) if folder else expanded("~/.local/state/rlhp")


Data = Callable[[IO[bytes]], object] | bytes | memoryview | str


def write_whole(path: Path, data: Data, *, mode: int = 0o644) -> None:
    """Replace `path` durably: a reader sees the old file or the new one, and what fails
    leaves nothing behind.
    """
    torn = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with naming(path):
        try:
            with open(os.open(torn, os.O_RDWR | os.O_CREAT | os.O_TRUNC, mode), "wb") as file:
                if callable(data):
                    data(file)
                else:
                    file.write(data.encode() if isinstance(data, str) else data)
                file.flush()
                os.fsync(file.fileno())
            torn.replace(path)
        except BaseException:
            torn.unlink(missing_ok=True)
            raise
        sync(path.parent)


@contextmanager
def new_directory(path: Path) -> Iterator[Path]:
    """A directory to fill, which becomes `path` at the end of the block, or nothing
    where the block fails.
    """
    torn = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with naming(path):
        shutil.rmtree(torn, ignore_errors=True)
        try:
            torn.mkdir(parents=True)
            yield torn
            torn.rename(path)
        except BaseException:
            shutil.rmtree(torn, ignore_errors=True)
            raise
        sync(path.parent)


def sync(path: Path) -> None:
    """Make a file, or the names in a directory, durable."""
    with naming(path):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def read_regular(path: Path, *, most: int | None = None) -> bytes:
    """The content of a file that somebody names; RlhpError for a pipe, a device or more
    than `most` bytes.

    A pipe would be waited for, perhaps for ever. OSError where there is nothing, or it
    cannot be read.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # opening a pipe would wait too
    # of which `open` would say the descriptor, not the path
    if stat.S_ISDIR(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    with naming(path), open(descriptor, "rb") as file:
        facts = os.fstat(descriptor)
        if not stat.S_ISREG(facts.st_mode):
            raise RlhpError(
                f"{path}: is a pipe or a device and might never end; save it as a file, and name "
                "that one"
            )
        if most is not None and facts.st_size > most:
            raise RlhpError(
                f"{path}: has {facts.st_size:,} bytes, and {most:,} are taken at most; is it the "
                "right file?"
            )
        return file.read()


def sealed(data: bytes) -> bytes:
    """The data with their digest behind them, where a reader of npz or zip files
    overlooks it.
    """
    return data + _SEAL + hashlib.sha256(data).digest()


def unsealed(data: bytes) -> bytes:
    """The inverse; Damaged where a bit differs."""
    end = len(data) - len(_SEAL) - _DIGEST_BYTES
    if end < 0 or data[end : end + len(_SEAL)] != _SEAL:
        raise Damaged(
            f"its {len(data)} bytes do not end with their digest: it was cut short, or never whole"
        )
    if hashlib.sha256(data[:end]).digest() != data[end + len(_SEAL) :]:
        raise Damaged("its content is not what was written")
    return data[:end]
