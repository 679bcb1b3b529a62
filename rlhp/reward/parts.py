"""A table on disk: a directory of immutable Parquet parts, each complete or absent.

A part is written under a name that readers ignore, synced, renamed and its directory synced: once
`append` returns, the rows survive a crash; until then, no reader has seen any of them. One process
writes a table, any number reads it, and no locks are taken.
"""

from __future__ import annotations

import json
import os
import re
import secrets
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import IO, Any, TypeVar

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.fs
import pyarrow.parquet as pq

from rlhp.disk import Damaged, write_whole

Result = TypeVar("Result")

DAMAGE = (ValueError, TypeError, IndexError, OverflowError, pa.ArrowException)
"""What reading and decoding the rows of a damaged part may raise."""

_NUMBER = re.compile(r"part-(\d{8})")
_LOCAL = pyarrow.fs.LocalFileSystem()
_FORMAT = ds.ParquetFileFormat(
    default_fragment_scan_options=ds.ParquetFragmentScanOptions(page_checksum_verification=True)
)


class Parts:
    """The parts of one table, and which of them this process has taken up.

    for name in parts.unseen():
        use(read(parts.directory / name, schema=schema))
        parts.seen.add(name)
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.seen: set[str] = set()
        self._next: int | None = None  # None: nothing written yet, so the writer's part is not taken

    def unseen(self) -> list[str]:
        """Names not taken up yet, in the order in which they were written."""
        return [name for name in list_parts(self.directory) if name not in self.seen]

    def lost(self) -> bool:
        """Whether a part that was taken up has been moved away since."""
        return not self.seen <= set(list_parts(self.directory))

    def append(self, tables: Iterable[pa.Table], *, schema: pa.Schema) -> str:
        """Write one part, a row group per table; durable when it returns. Its name.

        The first call makes this process the table's writer: it removes what a crashed writer left half done.
        """
        if self._next is None:
            self.directory.mkdir(exist_ok=True)
            remove_torn(self.directory)
            numbers = [int(match[1]) for match in map(_NUMBER.match, list_parts(self.directory)) if match]
            self._next = max(numbers, default=-1) + 1
        # The random end keeps a writer that was thought dead from overwriting the part of its successor.
        name = f"part-{self._next:08d}-{secrets.token_hex(4)}.parquet"
        write_whole(self.directory / name, lambda file: _write(file, tables, schema))
        self._next += 1
        self.seen.add(name)
        return name


def list_parts(directory: Path) -> list[str]:
    """Names of the parts, in the order in which they were written."""
    if not directory.is_dir():  # some copies leave empty directories out
        return []
    names = (entry.name for entry in os.scandir(directory))
    return sorted(name for name in names if name.endswith(".parquet") and name[0] not in "._")


def read(
    path: Path, *, schema: pa.Schema, columns: Sequence[str] | None = None, row_group: int | None = None
) -> pa.Table:
    """Rows of one part in exactly this schema; ValueError naming the file if it is damaged or gone.

    The schema is passed, never taken from the file: a part that lacks a later column has nulls there.
    """
    groups = None if row_group is None else [row_group]

    def load() -> pa.Table:
        fragment = _FORMAT.make_fragment(str(path), filesystem=_LOCAL, row_groups=groups)
        return fragment.to_table(schema=schema, columns=columns, use_threads=False)

    return _named(path, load)


def row_group_sizes(path: Path, *, schema: pa.Schema) -> list[int]:
    """Rows per row group; ValueError if the file is damaged or its columns mean something else than the schema's."""

    def load() -> list[int]:
        with pq.ParquetFile(path) as file:
            _check_columns(file.schema_arrow, schema)
            return [file.metadata.row_group(index).num_rows for index in range(file.metadata.num_row_groups)]

    return _named(path, load)


def unknown_columns(path: Path, *, schema: pa.Schema) -> list[str]:
    """Columns of the part that the schema does not have, which no reader would show."""
    return sorted(set(pq.read_schema(path).names) - set(schema.names))


def remove_torn(directory: Path) -> list[str]:
    """Remove the half-written files of a crashed writer; only the table's writer may. Their names."""
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
        file, schema, compression="lz4", use_dictionary=words, write_statistics=False, write_page_checksum=True
    )
    with writer:
        for table in tables:
            writer.write_table(table)


def _check_columns(stored: pa.Schema, schema: pa.Schema) -> None:
    missing = [field for field in schema if field.name not in stored.names]
    unknown = set(stored.names) - set(schema.names)
    for field in missing:
        # An older part lacks columns, a newer one has more; both at once is a name that was damaged.
        if unknown or not field.nullable:
            raise ValueError(f"column {field.name} is missing")
    for field in schema:
        if field in missing:
            continue
        other = stored.field(field.name)
        if other.type != field.type or (field.metadata and _layout(other) != _layout(field)):
            raise ValueError(f"column {field.name} is {_layout(other)}, the dataset has {_layout(field)}")


def _layout(field: pa.Field) -> str:
    metadata = field.metadata or {}
    kept = {key: metadata[key].decode() for key in (b"dtype", b"shape", b"order") if key in metadata}
    return " ".join([str(field.type), *kept.values()])


def _named(path: Path, load: Callable[[], Result]) -> Result:
    try:
        return load()
    except FileNotFoundError:
        raise Damaged(f"{path} has been moved away since it was read; call refresh()") from None
    except PermissionError:
        raise
    except (*DAMAGE, OSError) as error:
        raise damaged(path, error) from error
