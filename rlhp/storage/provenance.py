"""Where a run comes from: versions, commit, command, process."""

from __future__ import annotations

import os
import platform
import re
import shlex
import socket
import subprocess
import sys
from contextlib import suppress
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

from rlhp.config.addresses import holds_secret, redact

_PACKAGES = (
    "rlhp",
    "ray",
    "torch",
    "gymnasium",
    "mujoco",
    "ale-py",
    "numpy",
    "redis",
    "pyarrow",
    "pydantic",
)


def versions() -> dict[str, str]:
    """Installed versions of what decides a run's numbers."""
    found = {"python": platform.python_version(), "platform": platform.platform()}
    for package in _PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found


def command() -> str:
    """The command line of this process, passwords replaced."""
    return " ".join([Path(sys.argv[0]).name, *map(_shown, sys.argv[1:])])


def _shown(word: str) -> str:
    """One word of the command line; an address in it has no spaces, so its password
    ends with the word.
    """
    return redact(re.sub(r"\s", "_", word)) if holds_secret(word) else shlex.quote(word)


CHECKOUT = Path(__file__).resolve().parents[2]
"""The folder that holds the package: a checkout, or where it is installed."""


def now() -> str:
    """UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def commit() -> tuple[str | None, str]:
    """Commit of the checkout this package runs from, and its uncommitted changes."""
    if not (CHECKOUT / ".git").exists():
        return None, ""
    outputs = []
    for arguments in (["rev-parse", "HEAD"], ["diff", "HEAD"]):
        try:
            done = subprocess.run(
                ["git", "-C", str(CHECKOUT), *arguments],
                capture_output=True,
                timeout=20,
                check=True,
            )
        except (OSError, subprocess.SubprocessError):
            return None, ""
        outputs.append(done.stdout.decode(errors="replace"))
    return outputs[0].strip(), outputs[1]


def process_start(pid: int) -> int | None:
    """Clock ticks from boot to the start of a process, where /proc tells; it tells two
    processes of one id apart.
    """
    with suppress(OSError, ValueError, IndexError):
        return int(
            Path(f"/proc/{pid}/stat")
            .read_text(encoding="utf-8", errors="replace")
            .rpartition(")")[2]
            .split()[19]
        )
    return None


def machine() -> str:
    """Where a process id means the same as here: host, boot, and space of ids, as two
    containers may share a host.
    """
    parts = [socket.gethostname()]
    with suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip())
    with suppress(OSError):
        parts.append(os.readlink("/proc/self/ns/pid"))
    return " ".join(parts)


def alive(pid: int, started: int | None) -> bool:
    """Whether the process `pid` that began at `started` still runs on this machine."""
    if Path("/proc/self/stat").exists():
        return started is not None and process_start(pid) == started
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except OSError:
        return False
    return True
