"""Addresses with passwords in them: what one of Redis may be, and what of any may be
shown or written down.

A password holds whatever characters it likes, also those at which an address is taken
apart. So what is shown leaves out everything up to the last `@`, and an address that
can be read in two ways is refused when it is first read.
"""

from __future__ import annotations

import re
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit, urlunsplit

from rlhp.errors import RlhpError

REDACTED = "***"
_REDIS = ("redis", "rediss", "unix")
_SECRET_NAME = re.compile(
    r"PASSW|PASSPHRASE|SECRET|CREDENTIAL|SIGNATURE|API_?KEY|COOKIE"
    r"|^SIG$|(?:TOKEN|PASS|PWD)(?:_|$)|_KEY(?:_|$)|(?:[A-Z]KEY|AUTH|DSN|_PAT|_SAS)$"
)
_NAMES_A_FILE = re.compile(r"_(?:FILE|PATH|DIR)$|(?:CERT|KEY)FILE$")
_OF_REDIS = re.compile(
    r"\b(?P<scheme>(?:rediss?|valkeys?|unix)://)(?P<whose>.*)@(?P<rest>\S*)", re.IGNORECASE
)
_USER = re.compile(r"[^/@\s:?#]*")
_OF_ANY = re.compile(r"(?P<url>\w+://[^/@\s:]*:)[^\s]+@")
_IN_QUERY = re.compile(r"(?P<key>[?&](?P<name>[^=&?\s]+)=)[^&\s]+")


def is_secret(name: str) -> bool:
    """Whether what is called so, a variable, a key or an option, is a secret by its
    name.
    """
    # githubToken is GITHUB_TOKEN
    word = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).upper().replace("-", "_")
    return bool(_SECRET_NAME.search(word)) and not _NAMES_A_FILE.search(word)


def check(url: str) -> str:
    """The address of a Redis, as it is; RlhpError, which shows no part of a password,
    where it is none.

    redis-py reads most of what is refused here, as something else: another database,
    another host.
    """
    try:
        parts = urlsplit(url)
        known = parts.scheme in _REDIS and parts.port != 0
    except ValueError:
        known = False
    if not known:
        raise RlhpError(
            "a Redis address starts with redis://, rediss:// or unix://, as in "
            f"redis://127.0.0.1:6379/0; got {shown(url)!r} (in a password, a slash is written "
            "%2F, an at sign %40)"
        )
    if re.search(r"[\s\x00-\x1f#]", url) or "@" in parts.path + parts.query:
        raise RlhpError(
            f"the Redis address {shown(url)!r} can be read in two ways: in a password, write an "
            "at sign as %40, / as %2F, ? as %3F, # as %23 and a space as %20, or give it in "
            "RLHP_REDIS_PASSWORD"
        )
    database = dict(parse_qsl(parts.query)).get("db", "0")
    named = (
        [database] if parts.scheme == "unix" else [database, unquote(parts.path).strip("/") or "0"]
    )
    for text in named:
        if not re.fullmatch(r"\d{1,9}", text):
            # 1;password=... is none
            what = repr(text) if re.fullmatch(r"[\w-]*", text) else REDACTED
            raise RlhpError(
                "the database of a Redis address is a number, as in redis://127.0.0.1:6379/0, "
                f"got {what} in {shown(url)!r}; the name of a run is no part of it"
            )
    return url


def check_store(url: str | None) -> str | None:
    """The address of a store, as it is; RlhpError, which shows no part of a key, where
    it holds one.

    It stands in config.yaml and goes to every node.
    """
    if url is not None and (holds_secret(url) or "@" in url.partition("://")[2].partition("/")[0]):
        raise RlhpError(
            f"the address of a store holds no keys, got {shown(url)!r} with some; they come from "
            "the environment, as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or "
            "GOOGLE_APPLICATION_CREDENTIALS"
        )
    return url


def shown(url: str) -> str:
    """The address without user, password and query: fit for logs."""
    scheme, mark, rest = url.partition("://")
    if not mark:
        scheme, rest = "", url
    whose, _, place = rest.rpartition("@")
    # is it a password with a slash, or an @ behind the host? nobody can tell
    if re.search("[/?#]", whose):
        return f"{scheme}{mark}{REDACTED}"
    found = re.split("[?#]", place, maxsplit=1)[0]
    # a password without its @, perhaps
    if not re.fullmatch(r"(?:\[[^\]]*\]|[^:]*?)(?::\d*)?(?:/.*)?", found):
        return f"{scheme}{mark}{REDACTED}"
    return f"{scheme}{mark}{found}"


def without_password(url: str) -> str:
    """The address as it may be written down: user and options, nothing that is a
    secret.
    """
    parts = urlsplit(url)
    user, _, host = parts.netloc.rpartition("@")
    name = user.partition(":")[0]
    query = urlencode(
        [(key, value) for key, value in parse_qsl(parts.query) if not is_secret(key)], safe="/"
    )
    return urlunsplit((parts.scheme, f"{name}@{host}" if name else host, parts.path, query, ""))


def has_password(url: str) -> bool:
    """Whether somebody who reads this address could use it."""
    parts = urlsplit(url)
    return bool(parts.password) or any(is_secret(key) for key, _ in parse_qsl(parts.query))


def holds_secret(word: str) -> bool:
    """Whether `redact` would leave something out of one word, which a password with
    spaces in it does not end.
    """
    joined = re.sub(r"\s", "_", word)
    return redact(joined) != joined


def redact(text: str) -> str:
    """`text` with the passwords of all addresses in it replaced by ***, line by line."""
    return "\n".join(map(_redacted, text.split("\n")))


def _redacted(line: str) -> str:
    line = _OF_REDIS.sub(_without_whose, line)
    line = _OF_ANY.sub(lambda hit: f"{hit['url']}{REDACTED}@", line)
    return _IN_QUERY.sub(
        lambda hit: hit["key"] + REDACTED if is_secret(hit["name"]) else hit[0], line
    )


def _without_whose(hit: re.Match[str]) -> str:
    user, colon, _ = hit["whose"].partition(":")
    if re.search("[/?#]", hit["whose"]):
        return hit["scheme"] + REDACTED
    if not _USER.fullmatch(user):  # a password that holds an @, before any colon
        user, colon = "", ":"
    return f"{hit['scheme']}{user}{colon}{REDACTED * bool(colon)}@{hit['rest']}"
