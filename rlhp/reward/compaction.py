"""Many small parts of a table become one, so that a dataset of any age opens quickly.

    64 parts of one append each -> one part        64 of those -> one part, which stays

The new part is durable before the first old one is removed, and names them all: who is killed in between leaves rows
twice on disk, which readers see once (`Parts.look`) and the table's next writer removes (`Parts.append`). A reader
whose part is gone looks again.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from itertools import groupby

import pyarrow as pa

from rlhp.reward import parts
from rlhp.reward.parts import Parts

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
            log.warning("parts of %s stay as many as they are for now: %s", self._table.directory, error)
        return written

    def _due(self) -> list[str] | None:
        """The first parts of one level, one after the other, that are enough."""
        names = parts.list_parts(self._table.directory)
        for level, group in groupby(names, key=self._level):
            found = list(group)
            if level is not None and len(found) >= MERGED:
                return found[:MERGED]
        return None

    def _level(self, name: str) -> int | None:
        """How often its rows were merged; None for a part that stays as it is."""
        match = parts.NAME.fullmatch(name)
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
        """One part instead of these; None where one of them cannot be read, or has columns that we would lose."""
        first, last = (parts.NAME.fullmatch(names[at]) for at in (0, -1))
        assert first is not None
        assert last is not None
        name = parts.new_name(int(first["first"]), int(last["last"] or last["first"]))
        directory, unfit = self._table.directory, len(self._unfit)
        try:
            replaces = frozenset(names).union(*(self._table.replaced(each) for each in names if parts.is_merged(each)))
            parts.write_merged(directory / name, self._rows(names), schema=self._schema, replaces=replaces)
        except parts.DAMAGE as error:
            if len(self._unfit) == unfit:  # nobody in particular is to blame
                self._unfit.update(names)
            log.warning("parts of %s from %s on are not merged: %s", directory, names[0], error)
            return None
        parts.remove(directory, names)
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
            if parts.unknown_columns(path, schema=self._schema):
                raise ValueError("columns of a later version")
            groups = range(len(parts.row_group_sizes(path, schema=self._schema)))
            return [parts.read(path, schema=self._schema, row_group=group) for group in groups]
        except parts.DAMAGE:
            self._unfit.add(name)
            raise
