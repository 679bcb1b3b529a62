"""Videos of queries, kept beside the queue for whoever shows them: in Redis, in a
directory or in a bucket.

Redis knows every clip: under `clip:<query>:<side>` lies the video itself, or where in
the store it lies. So the queue's scripts, which know those keys alone, decide for any
store when a query may be shown and when its clips go.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Literal, cast

from rlhp.errors import RlhpError, Unreachable
from rlhp.queue.connection import Connection
from rlhp.queue.records import named_in, text
from rlhp.queue.runs import key
from rlhp.storage.remote import filesystem

UNREADY_SECONDS = 600
"""A clip goes after this, unless the queue's `ready` made it stay until its query is
forgotten.
"""

KEY = "clips.store"
Side = Literal["first", "second", "third", "fourth"]
SIDES: tuple[Side, ...] = ("first", "second", "third", "fourth")
"""The candidates of a query, as many of them as it has."""
_ELSEWHERE = b"rlhp-clip-at "


@dataclass(frozen=True, kw_only=True, slots=True)
class Waiting:
    """A query that is not offered before its clips are there."""

    query: str
    candidates: tuple[str, ...]
    """Ids of the segments; `QueryQueue.segments` has their bytes."""
    made_ms: int
    """Unix milliseconds on the server's clock."""


class Clips:
    """Clips of one run.

    clips = queue.clips.kept_in(config.clips.store)
    for waiting in clips.waiting(8):
        for side, segment in zip(SIDES, waiting.candidates):
            clips.store(query=waiting.query, side=side, data=draw(segment))
        queue.ready(query=waiting.query)

    Every method raises QueueUnavailable, a ConnectionError, while Redis is away, and
    `store` while the store is.
    """

    def __init__(self, connection: Connection, *, run: str, store: Folder | None = None) -> None:
        self._connection, self._run, self._store = connection, run, store

    def kept_in(self, store: str | None) -> Clips:
        """The same, for whoever stores them: in Redis, or in `file:///directory` or
        `s3://bucket/prefix`. Readers ask Redis where a clip lies.
        """
        folder = None if store is None else Folder(store, self._run)
        return Clips(self._connection, run=self._run, store=folder)

    def waiting(self, count: int) -> list[Waiting]:
        """At most `count` reserved queries, those asked first in front."""
        with self._connection.client("look for queries without clips") as client:
            names = [text(name) for name in client.zrange(key(self._run, "reserved"), 0, count - 1)]
            facts = [client.hmget(key(self._run, f"q:{name}"), "body", "made") for name in names]
        return [
            Waiting(query=name, candidates=named_in(json.loads(body)), made_ms=int(made))
            for name, (body, made) in zip(names, facts, strict=True)
            if made is not None and body is not None  # it lapsed between the two calls
        ]

    def store(self, *, query: str, side: Side, data: bytes) -> None:
        """Keep the encoded video of one side."""
        value = data
        if self._store is not None:
            value = _ELSEWHERE + self._store.write(f"{query}-{side}", data).encode()
        with self._connection.client("store a clip") as client:
            client.set(key(self._run, f"clip:{query}:{side}"), value, ex=UNREADY_SECONDS)

    def fetch(self, *, query: str, side: Side) -> bytes | None:
        """The encoded video of one side; None where there is none (any more)."""
        with self._connection.client("fetch a clip") as client:
            value = cast("bytes | None", client.get(key(self._run, f"clip:{query}:{side}")))
        if value is None or not value.startswith(_ELSEWHERE):
            return value
        return read(value.removeprefix(_ELSEWHERE).decode())

    def room(self, cap_bytes: int) -> int:
        """Bytes left below the cap, after clips of the queries finished longest ago
        made room (their undo ends).
        """
        return cap_bytes - int(self._connection.script("clip_room", cap_bytes))

    def prune(self) -> int:
        """Delete from the store what Redis has forgotten; how many clips these were.
        Nothing to do in Redis itself.
        """
        if self._store is None:
            return 0
        names = self._store.names()
        with self._connection.client("look for forgotten clips") as client:
            keys = [key(self._run, "clip:" + ":".join(name.rsplit("-", 1))) for name in names]
            gone = [name for name, k in zip(names, keys, strict=True) if not client.exists(k)]
        for name in gone:
            self._store.delete(name)
        return len(gone)


class Folder:
    """Clips of one run below a URL that pyarrow can write to."""

    def __init__(self, url: str, run: str) -> None:
        """RlhpError for a URL that is neither file:// nor s3://."""
        if not url.startswith(("file:///", "s3://")):
            raise RlhpError(
                f"clips.store is file:///directory or s3://bucket/prefix, got {url!r}; leave it "
                "out to keep clips in the run's Redis"
            )
        place, mark, options = url.partition("?")  # of S3: region, endpoint_override and the like
        self._place, self._options = f"{place.rstrip('/')}/{run}", mark + options
        self._filesystem, self._path = filesystem(self._place + self._options, key=KEY)

    def write(self, name: str, data: bytes) -> str:
        """Its URL, once all of it is there; ConnectionError where the store cannot be
        written now.
        """
        target = f"{self._path}/{name}"
        with self._reaching("stored"):
            # an object is there whole or not at all, and there are no directories
            if self._place.startswith("s3:"):
                with self._filesystem.open_output_stream(target) as stream:
                    stream.write(data)
            else:
                self._filesystem.create_dir(self._path, recursive=True)
                with self._filesystem.open_output_stream(f"{target}.tmp") as stream:
                    stream.write(data)
                self._filesystem.move(f"{target}.tmp", target)
        return f"{self._place}/{name}{self._options}"

    def names(self) -> list[str]:
        """Of all clips there."""
        from pyarrow.fs import FileSelector

        with self._reaching("listed"):
            found = self._filesystem.get_file_info(FileSelector(self._path, allow_not_found=True))
        return [
            info.base_name for info in found if info.is_file and not info.base_name.endswith(".tmp")
        ]

    def delete(self, name: str) -> None:
        """One clip; it may be gone."""
        with self._reaching("deleted"), suppress(FileNotFoundError):
            self._filesystem.delete_file(f"{self._path}/{name}")

    @contextmanager
    def _reaching(self, what: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:  # a bucket that is away, a disk that is full: either may pass
            why = str(error).splitlines()[0]
            raise Unreachable(f"no clip can be {what} at {self._place}: {why}") from error


def read(url: str) -> bytes | None:
    """The bytes at a URL of a store; None where there are none (any more)."""
    store, path = filesystem(url, key=KEY)
    try:
        with store.open_input_stream(path) as stream:
            return cast(bytes, stream.read())
    except FileNotFoundError:
        return None


def media_type(data: bytes) -> str:
    """What to tell a browser these bytes are; ValueError for what is no video of ours."""
    for start, name in ((b"\x1aE\xdf\xa3", "video/webm"), (b"\x89PNG", "image/png")):
        if data.startswith(start):
            return name
    if data[4:8] == b"ftyp":
        return "video/mp4"
    raise RlhpError(f"neither WebM, MP4 nor PNG: {len(data)} bytes that start with {data[:8]!r}")
