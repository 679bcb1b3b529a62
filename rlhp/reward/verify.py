"""Whether a preference dataset is whole: every part read to its last byte, every reference followed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from rlhp.reward import parts
from rlhp.reward.events import EVENT_SCHEMA, EventRow, event_rows
from rlhp.reward.header import locate, read_header
from rlhp.reward.schema import segment_rows, segment_schema
from rlhp.spaces import Spaces


def verify(path: str | Path) -> list[str]:
    """Problems of the dataset at `path`, one line each; none when it is whole. It changes nothing."""
    try:
        path = locate(path)
        header = read_header(path)
    except ValueError as error:
        return [str(error)]
    gone = ""
    for _ in range(parts.LOOKS):
        try:
            return _problems(path, header)
        except parts.MovedAway as error:  # merged with others while we read: the next look finds these
            gone = str(error)
    return [gone]


def _problems(path: Path, header: Mapping[str, Any]) -> list[str]:
    spaces = Spaces.from_json(header["spaces"])
    schema = segment_schema(spaces)
    stored: set[str] = set()
    events: dict[str, EventRow] = {}

    def take_segments(table: pa.Table) -> None:
        stored.update(segment.id for segment in segment_rows(table, spaces=spaces, rows=range(len(table))))

    def take_events(table: pa.Table) -> None:
        events.update({row.query_id: row for row in event_rows(table)})

    problems = [
        *_read_table(path / "segments", schema, take_segments),
        *_read_table(path / "events", EVENT_SCHEMA, take_events),
    ]
    lacking = [row.query_id for row in events.values() if not {row.first_id, row.second_id} <= stored]
    if lacking:
        problems.append(f"{path}: {len(lacking)} queries lack a segment, the first of them {lacking[0]}")
    return problems


def _read_table(directory: Path, schema: pa.Schema, take: Callable[[pa.Table], None]) -> Iterable[str]:
    if not directory.is_dir():
        return
    known = parts.list_parts(directory)
    for entry in sorted(directory.iterdir()):
        if entry.name[0] not in "._" and entry.name not in known:
            yield f"{entry} is not a part; readers ignore it"
    for path in (directory / name for name in known):
        try:
            for index in range(len(parts.row_group_sizes(path, schema=schema))):
                take(parts.read(path, schema=schema, row_group=index))
            unknown = parts.unknown_columns(path, schema=schema)
        except parts.MovedAway:
            raise
        except parts.DAMAGE as error:
            text = str(error)
            yield text if text.startswith(str(path)) else str(parts.damaged(path, error))
            continue
        if unknown:
            yield f"{path} has columns this version of rlhp does not know: {', '.join(unknown)}"
