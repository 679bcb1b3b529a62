"""A table on disk: a directory of immutable Parquet parts, each complete or absent.

A part is written under a name that readers ignore, synced, renamed and its directory
synced: once `append` returns, the rows survive a crash; until then, no reader has seen
any of them. One process writes a table, any number reads it, and no locks are taken.

    part-00000007-1f0c93ab.parquet             what one `append` wrote
    part-00000000to00000063-77aa01c2.parquet   has the rows of those that it names, which are
                                               about to be removed

Many small parts of a table become one, so that a dataset of any age opens quickly.

    64 parts of one append each -> one part        64 of those -> one part, which stays

The new part is durable before the first old one is removed, and names them all: who is
killed in between leaves rows twice on disk, which readers see once (`Parts.look`) and
the table's next writer removes (`Parts.append`). A reader whose part is gone looks
again.
"""

from __future__ import annotations

import json
import logging
import os
import re
import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import IO, Any, NamedTuple, TypeVar

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.fs
import pyarrow.parquet as pq

from rlhp.files import Damaged, write_whole

Result = TypeVar("Result")

DAMAGE = (ValueError, TypeError, IndexError, OverflowError, pa.ArrowException)
"""What reading and decoding the rows of a damaged part may raise."""


class MovedAway(Damaged):
    """A part that was listed is gone: merged into another one since, or moved away."""


LOOKS = 20
"""At a directory whose parts are gone when they are to be read, before one of them is
taken for damaged.
"""
NAME = re.compile(r"part-(?P<first>\d{8})(?:to(?P<last>\d{8}))?-[0-9a-f]{8}\.parquet")
_REPLACES = b"rlhp.replaces"
_LOCAL = pyarrow.fs.LocalFileSystem()
_FORMAT = ds.ParquetFileFormat(
    default_fragment_scan_options=ds.ParquetFragmentScanOptions(page_checksum_verification=True)
)


class Parts:
    """The parts of one table, and which of them this process has taken up.

    for name in parts.look().unseen:
        use(read(parts.directory / name, schema=schema))
        parts.take(name)
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.seen: set[str] = set()
        self._replaces: dict[str, frozenset[str]] = {}
        # None: nothing written yet, so the writer's part is not taken
        self._next: int | None = None

    def look(self) -> Look:
        """What is there now and was not taken up. What another part has the rows of
        counts as not there.
        """
        names = list_parts(self.directory)
        self._replaces = {name: self.replaced(name) for name in names if is_merged(name)}
        merged = frozenset().union(*self._replaces.values())
        return Look(
            unseen=[name for name in names if name not in self.seen and name not in merged],
            lost=not self.seen <= merged.union(names),
        )

    def replaced(self, name: str) -> frozenset[str]:
        """The parts whose rows this one has, those included that were merged into
        these.
        """
        found = self._replaces.get(name)
        return replaced(self.directory / name) if found is None else found

    def take(self, name: str) -> None:
        """The rows of this part are taken up, and so are those of the parts that it
        replaces.
        """
        self.seen -= self.replaced(name)
        self.seen.add(name)

    def append(self, tables: Iterable[pa.Table], *, schema: pa.Schema) -> str:
        """Write one part, a row group per table; durable when it returns. Its name.

        The first call makes this process the table's writer: it removes what a crashed
        writer left half done.
        """
        if self._next is None:
            self.directory.mkdir(exist_ok=True)
            remove_torn(self.directory)
            names = list_parts(self.directory)
            for name in filter(is_merged, names):
                remove(self.directory, self.replaced(name))
            numbers = [
                int(match["last"] or match["first"])
                for match in map(NAME.fullmatch, names)
                if match
            ]
            self._next = max(numbers, default=-1) + 1
        name = new_name(self._next)
        write_whole(self.directory / name, lambda file: _write(file, tables, schema))
        self._next += 1
        self.seen.add(name)
        return name


class Look(NamedTuple):
    """What a directory of parts holds that is new to somebody."""

    unseen: list[str]
    """Names, in the order in which their rows were written."""
    lost: bool
    """Whether a part that was taken up is gone, and no other part has its rows."""


def new_name(first: int, last: int | None = None) -> str:
    """Of a part, or of one that has the rows of many. By its name it comes where the
    first of them came.

    The random end keeps a writer that was thought dead from overwriting the part of its
    successor.
    """
    numbers = f"{first:08d}" if last is None else f"{first:08d}to{last:08d}"
    return f"part-{numbers}-{secrets.token_hex(4)}.parquet"


def is_merged(name: str) -> bool:
    """Whether this part replaces others."""
    match = NAME.fullmatch(name)
    return match is not None and match["last"] is not None


def replaced(path: Path) -> frozenset[str]:
    """The parts that a merged part names; MovedAway where it is gone itself."""

    def load() -> frozenset[str]:
        return frozenset(json.loads((pq.read_schema(path).metadata or {}).get(_REPLACES, b"[]")))

    return _named(path, load)


def write_merged(
    path: Path, tables: Iterable[pa.Table], *, schema: pa.Schema, replaces: Iterable[str]
) -> None:
    """A part that says which ones it has the rows of; durable when this returns."""
    named = schema.with_metadata({_REPLACES: json.dumps(sorted(replaces))})
    write_whole(path, lambda file: _write(file, tables, named))


def remove(directory: Path, names: Iterable[str]) -> None:
    """Remove parts whose rows another one has."""
    for name in names:
        (directory / name).unlink(missing_ok=True)


def list_parts(directory: Path) -> list[str]:
    """Names of the parts, in the order in which they were written.

    Looked up until two looks agree: one alone, while parts are merged, may see neither
    the new part nor an old one.
    """
    names = None
    while names != (names := _scan(directory)):
        pass
    return names


def _scan(directory: Path) -> list[str]:
    if not directory.is_dir():  # some copies leave empty directories out
        return []
    names = (entry.name for entry in os.scandir(directory))
    return sorted(name for name in names if name.endswith(".parquet") and name[0] not in "._")


def read(
    path: Path,
    *,
    schema: pa.Schema,
    columns: Sequence[str] | None = None,
    row_group: int | None = None,
) -> pa.Table:
    """Rows of one part in exactly this schema; ValueError naming the file if it is
    damaged or gone.

    The schema is passed, never taken from the file: a part that lacks a later column
    has nulls there.
    """
    groups = None if row_group is None else [row_group]

    def load() -> pa.Table:
        fragment = _FORMAT.make_fragment(str(path), filesystem=_LOCAL, row_groups=groups)
        return fragment.to_table(schema=schema, columns=columns, use_threads=False)

    return _named(path, load)


def row_group_sizes(path: Path, *, schema: pa.Schema) -> list[int]:
    """Rows per row group; ValueError if the file is damaged or its columns mean
    something else than the schema's.
    """

    def load() -> list[int]:
        with pq.ParquetFile(path) as file:
            _check_columns(file.schema_arrow, schema)
            return [
                file.metadata.row_group(index).num_rows
                for index in range(file.metadata.num_row_groups)
            ]

    return _named(path, load)


def unknown_columns(path: Path, *, schema: pa.Schema) -> list[str]:
    """Columns of the part that the schema does not have, which no reader would show."""
    return sorted(set(pq.read_schema(path).names) - set(schema.names))


def remove_torn(directory: Path) -> list[str]:
    """Remove the half-written files of a crashed writer; only the table's writer may.
    Their names.
    """
    torn = [entry.name for entry in os.scandir(directory) if entry.name.startswith(".part-")]
    for name in torn:
        (directory / name).unlink(missing_ok=True)
    return torn


def write_json(path: Path, value: Any) -> None:
    """Write plain data durably, replacing what was there."""
    write_whole(path, json.dumps(value, indent=2) + "\n")


def damaged(path: Path, reason: object) -> Damaged:
    """The error about a part that cannot be used."""
    detail = str(reason).strip().splitlines()[0] if str(reason).strip() else type(reason).__name__
    return Damaged(f"{path} is damaged ({detail}); move that file away: every other part is intact")


def _write(file: IO[bytes], tables: Iterable[pa.Table], schema: pa.Schema) -> None:
    words = [field.name for field in schema if pa.types.is_dictionary(field.type)]
    writer = pq.ParquetWriter(
        file,
        schema,
        compression="lz4",
        use_dictionary=words,
        write_statistics=False,
        write_page_checksum=True,
    )
    with writer:
        for table in tables:
            writer.write_table(table)


def _check_columns(stored: pa.Schema, schema: pa.Schema) -> None:
    missing = [field for field in schema if field.name not in stored.names]
    unknown = set(stored.names) - set(schema.names)
    for field in missing:
        # An older part lacks columns, a newer one has more; both at once is a name that
        # was damaged.
        if unknown or not field.nullable:
            raise ValueError(f"column {field.name} is missing")
    for field in schema:
        if field in missing:
            continue
        other = stored.field(field.name)
        if other.type != field.type or (field.metadata and _layout(other) != _layout(field)):
            raise ValueError(
                f"column {field.name} is {_layout(other)}, the dataset has {_layout(field)}"
            )


def _layout(field: pa.Field) -> str:
    metadata = field.metadata or {}
    kept = {
        key: metadata[key].decode() for key in (b"dtype", b"shape", b"order") if key in metadata
    }
    return " ".join([str(field.type), *kept.values()])


def _named(path: Path, load: Callable[[], Result]) -> Result:
    try:
        return load()
    except FileNotFoundError:
        raise MovedAway(f"{path} has been moved away since it was read; call refresh()") from None
    except PermissionError:
        raise
    except (*DAMAGE, OSError) as error:
        raise damaged(path, error) from error


pass

MERGED = 64
"""Parts that become one."""
LEVELS = 2
LARGEST_BYTES = 4 << 20
"""A part with more than this is not merged: a few of such parts are large already."""
GROUP_BYTES = 1 << 20
"""Uncompressed, of a row group: what reading one segment costs."""

log = logging.getLogger(__name__)


class Compaction:
    """Merges the parts of one table, for its writer.

    compaction = Compaction(table, schema=schema)
    table.append(...)
    for name in compaction():  # now and then
        use(name)  # has the rows of parts that are no longer there
    """

    def __init__(self, table: Parts, *, schema: pa.Schema) -> None:
        self._table, self._schema = table, schema
        self._unfit: set[str] = set()
        self._appends = MERGED  # parts that an earlier writer left may be due at once

    def __call__(self) -> list[str]:
        """To be called after each append; the names of the parts that are new."""
        self._appends += 1
        if self._appends < MERGED:
            return []
        self._appends = 0
        written: list[str] = []
        try:
            while group := self._due():
                if (name := self._merge(group)) is not None:
                    written = [each for each in written if each not in group] + [name]
        except OSError as error:
            log.warning(
                "parts of %s stay as many as they are for now: %s", self._table.directory, error
            )
        return written

    def _due(self) -> list[str] | None:
        """The first parts of one level, one after the other, that are enough."""
        names = list_parts(self._table.directory)
        for level, group in groupby(names, key=self._level):
            found = list(group)
            if level is not None and len(found) >= MERGED:
                return found[:MERGED]
        return None

    def _level(self, name: str) -> int | None:
        """How often its rows were merged; None for a part that stays as it is."""
        match = NAME.fullmatch(name)
        if match is None or name in self._unfit or self._size(name) > LARGEST_BYTES:
            return None
        level = 0 if match["last"] is None else 1
        count = int(match["last"] or match["first"]) - int(match["first"]) + 1
        while count >= MERGED ** (level + 1):
            level += 1
        return level if level < LEVELS else None

    def _size(self, name: str) -> int:
        return (self._table.directory / name).stat().st_size

    def _merge(self, names: Sequence[str]) -> str | None:
        """One part instead of these; None where one of them cannot be read, or has
        columns that we would lose.
        """
        first, last = (NAME.fullmatch(names[at]) for at in (0, -1))
        assert first is not None
        assert last is not None
        name = new_name(int(first["first"]), int(last["last"] or last["first"]))
        directory, unfit = self._table.directory, len(self._unfit)
        try:
            replaces = frozenset(names).union(
                *(self._table.replaced(each) for each in names if is_merged(each))
            )
            write_merged(
                directory / name, self._rows(names), schema=self._schema, replaces=replaces
            )
        except DAMAGE as error:
            if len(self._unfit) == unfit:  # nobody in particular is to blame
                self._unfit.update(names)
            log.warning("parts of %s from %s on are not merged: %s", directory, names[0], error)
            return None
        remove(directory, names)
        self._table.take(name)
        return name

    def _rows(self, names: Sequence[str]) -> Iterator[pa.Table]:
        waiting: list[pa.Table] = []
        size = 0
        for name in names:
            for table in self._read(name):
                waiting.append(table)
                size += table.nbytes
            if size >= GROUP_BYTES:
                yield pa.concat_tables(waiting).unify_dictionaries()
                waiting, size = [], 0
        if waiting:
            yield pa.concat_tables(waiting).unify_dictionaries()

    def _read(self, name: str) -> list[pa.Table]:
        path = self._table.directory / name
        try:
            if unknown_columns(path, schema=self._schema):
                raise ValueError("columns of a later version")
            groups = range(len(row_group_sizes(path, schema=self._schema)))
            return [read(path, schema=self._schema, row_group=group) for group in groups]
        except DAMAGE:
            self._unfit.add(name)
            raise
