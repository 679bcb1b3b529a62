"""The address of a Redis of one's own, and its secrets, which never enter a run
directory.

    the address    redis.url, else RLHP_REDIS_URL
    the password   in the address, else RLHP_REDIS_PASSWORD, else the first line of the file that
                   RLHP_REDIS_PASSWORD_FILE or redis.password_file names
    certificates   redis.ca_file, cert_file and key_file become part of the address

A driver and its roles are several processes on one machine, and only the first may have
the environment that names a password. So a complete address is kept between them in a
file of this user's alone, in RLHP_SECRETS_DIR or ~/.local/state/rlhp, one per run
directory.
"""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from pathlib import Path
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit

from rlhp.config.addresses import check, has_password, without_password
from rlhp.config.schema import RedisConfig
from rlhp.errors import RlhpError
from rlhp.files import STATE_DIRECTORY, expanded, read_regular, state_directory, write_whole

URL = "RLHP_REDIS_URL"
PASSWORD = "RLHP_REDIS_PASSWORD"
PASSWORD_FILE = "RLHP_REDIS_PASSWORD_FILE"
__all__ = ["address", "complete", "forget", "has_password", "keep", "kept", "without_password"]
_TLS = {"ca_file": "ssl_ca_certs", "cert_file": "ssl_certfile", "key_file": "ssl_keyfile"}


def address(redis: RedisConfig) -> str | None:
    """The complete address of the server that is named; None where none is, and an
    embedded one is started.

    ValueError for a password file that cannot be read.
    """
    url = redis.url or os.environ.get(URL)
    if url is None:
        return None
    parts = urlsplit(check(url))
    user, _, host = parts.netloc.rpartition("@")
    name, _, password = user.partition(":")
    name = name or quote(redis.username or "", safe="")
    if not password and (found := _password(redis)) is not None:
        password = quote(found, safe="")
    netloc = f"{name}{':' if password else ''}{password}@{host}" if name or password else host
    query = dict(parse_qsl(parts.query))
    for key, option in _TLS.items():
        file = getattr(redis, key)
        if file is not None:
            query.setdefault(option, str(expanded(file).absolute()))
    return urlunsplit((parts.scheme, netloc, parts.path, urlencode(query, safe="/"), ""))


def complete(url: str) -> str:
    """An address given on the command line, with the password that the environment
    names where it has none.
    """
    found = address(RedisConfig(url=check(url)))
    assert found is not None
    return found


def keep(rundir: Path, url: str) -> None:
    """Remember the complete address for the other processes of a run; nothing is kept
    of one without a password.
    """
    file = _kept(rundir)
    if not has_password(url):
        forget(rundir)
        return
    try:
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_whole(file, url + "\n", mode=0o600)
    except OSError as error:
        raise RlhpError(
            f"{file}: the address of Redis cannot be kept for the other processes of the run: "
            f"{error.strerror}; set {STATE_DIRECTORY} to a directory of yours, or give the "
            "password as redis.password_file"
        ) from None


def kept(rundir: Path) -> str | None:
    """What `keep` was told last."""
    with suppress(OSError, RlhpError):  # without a home directory nothing was kept
        return _kept(rundir).read_text(encoding="utf-8").strip()
    return None


def forget(rundir: Path) -> None:
    """Keep nothing for this run any more."""
    with suppress(OSError, RlhpError):
        _kept(rundir).unlink()


def _kept(rundir: Path) -> Path:
    return (
        state_directory() / f"{hashlib.sha256(str(rundir.resolve()).encode()).hexdigest()[:32]}.url"
    )


def _password(redis: RedisConfig) -> str | None:
    word = os.environ.get(PASSWORD)
    if word:
        return word
    name = os.environ.get(PASSWORD_FILE) or redis.password_file
    if not name:
        return None
    try:
        lines = read_regular(expanded(name), most=65536).decode().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not a text file"
        raise RlhpError(
            f"{name}: the password of Redis cannot be read: {why}; redis.password_file and "
            f"{PASSWORD_FILE} name a file whose first line it is"
        ) from None
    if not lines or not lines[0].strip():
        raise RlhpError(
            f"{name}: the password of Redis is its first line, which is empty; write it there"
        )
    return lines[0].strip()
