"""What Ray has to be told before it is imported: where it may write, and to listen on
loopback.

Ray needs the home directory of this user and one for sockets and logs, and the first
already when it is imported. It looks at neither before it needs it, so whoever is about
to import it asks here.

Left to itself Ray binds to every interface of a machine, also where all of it is on
that machine. The way to loopback is the one it takes on macOS and Windows, where it
allows no cluster.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from rlhp.config.schema import RunConfig
from rlhp.errors import RlhpError

LONGEST_SOCKET = 107 if sys.platform.startswith("linux") else 103
"""Bytes in the path of a socket: the kernel's limit."""
_IN_SESSION = len(f"/ray/session_2026-01-01_00-00-00_000000_{os.getpid()}/sockets/plasma_store")
"""Bytes that Ray adds to its directory."""
_TOKEN_SAID = ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")


def refuse(*, starts_ray: bool) -> None:
    """ValueError where Ray cannot be imported or, with `starts_ray`, not be started for
    want of a directory.
    """
    for problem, way_out in problems(starts_ray=starts_ray):
        raise RlhpError(f"{problem}; {way_out}")


def problems(*, starts_ray: bool) -> Iterator[tuple[str, str]]:
    """What is wrong with these directories, and the way out; nothing that is made
    stays.
    """
    try:
        home = Path.home()
    except RuntimeError:
        yield (
            f"this user (id {os.getuid()}) has no home directory, which Ray needs",
            "set HOME to a directory that can be written",
        )
    else:
        if starts_ray and (why := _unwritable_home(home)):
            yield (
                f"Ray keeps a token in {home / '.ray'}, which cannot be written ({why})",
                "set HOME to a directory that can be",
            )
    if starts_ray:
        yield from _temporary()


def _unwritable_home(home: Path) -> str | None:
    token = home / ".ray" / "auth_token"
    if any(os.environ.get(name) for name in _TOKEN_SAID) or os.access(token, os.R_OK):
        return None
    folder = token.parent
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return _unwritable(folder)


def _temporary() -> Iterator[tuple[str, str]]:
    name = "RAY_TMPDIR" if "RAY_TMPDIR" in os.environ or "TMPDIR" not in os.environ else "TMPDIR"
    folder = Path(os.environ.get(name, "/tmp")).absolute()
    length = len(os.fsencode(folder))
    if length > LONGEST_SOCKET - _IN_SESSION:
        yield (
            f"Ray's sockets would lie below {folder}, whose name is {length} bytes long where "
            f"{LONGEST_SOCKET - _IN_SESSION} fit",
            "set RAY_TMPDIR to a shorter one, as /tmp",
        )
        return
    nearest = folder
    while not nearest.exists() and nearest != nearest.parent:
        nearest = nearest.parent
    if why := _unwritable(nearest):
        yield (
            f"Ray's sockets and logs would lie below {folder}, which cannot be written ({why})",
            "set RAY_TMPDIR to a directory that can be",
        )


def _unwritable(folder: Path) -> str | None:
    """Why no directory can be made there; None where it can."""
    try:
        tempfile.TemporaryDirectory(prefix=".rlhp-", dir=folder).cleanup()
    except OSError as error:
        return error.strerror or type(error).__name__
    return None


CLUSTERS = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"


def on_loopback(config: RunConfig) -> RunConfig:
    """The config as it is, and Ray told, where the run joins no cluster. Whoever has
    set the variable knows better.
    """
    if config.ray.address is None:
        os.environ.setdefault(CLUSTERS, "0")
    return config
