"""The preference dataset of a run: segments and events in a directory of Parquet parts.

    preferences/
      dataset.json               what the arrays mean: spaces, environment, segment length, versions
      segments/part-*.parquet    written by the query actor, before it asks about them; small
                                 ones are merged
      events/part-*.parquet      written by the reward trainer, before it acknowledges an answer

Each table has one writer; both may be read by anybody at any time. `refresh` picks up
what others wrote. Segments are kept in memory between two fits, up to a number of
bytes.

A directory is known to be a dataset by its `dataset.json`. `verify` says whether it is
whole: it reads every part to its last byte and follows every reference.
"""

from __future__ import annotations

import json
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from rlhp.envs.spaces import Spaces
from rlhp.errors import RlhpError, one_line
from rlhp.files import Damaged, sync
from rlhp.frames import nbytes
from rlhp.preferences import parts
from rlhp.preferences.answers import Key, count, live, unstored
from rlhp.preferences.events import EVENT_SCHEMA, EventRow, Purpose, event_rows, event_table
from rlhp.preferences.parts import Compaction, MovedAway, Parts, is_merged
from rlhp.preferences.schema import SCHEMA_VERSION, segment_rows, segment_schema, segment_table
from rlhp.types import Preference, Segment, comparison_id


class SegmentCache:
    """The segments used last. `limit` in bytes of arrays; a segment larger than that is
    not kept.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._size = 0
        self._kept: OrderedDict[str, Segment] = OrderedDict()

    def get(self, segment: str) -> Segment | None:
        """The segment with this id, if it is kept."""
        if segment in self._kept:
            self._kept.move_to_end(segment)
        return self._kept.get(segment)

    def put(self, segment: Segment) -> None:
        """Keep one more, and let go of those not used for longest."""
        if segment.id in self._kept:
            return
        self._kept[segment.id] = segment
        self._size += segment_bytes(segment)
        while self._size > self._limit:
            self._size -= segment_bytes(self._kept.popitem(last=False)[1])

    def clear(self) -> None:
        """Keep nothing."""
        self._kept.clear()
        self._size = 0


def segment_bytes(segment: Segment) -> int:
    """Size of its arrays, of stacked pictures each frame once."""
    arrays = [
        *segment.obs.values(),
        segment.actions,
        segment.env_reward,
        segment.predicted_reward,
        segment.state,
    ]
    return sum(nbytes(array) for array in arrays if array is not None)


HEADER = "dataset.json"

_REQUIRED = ("run_ids", "env", "spaces", "segment_length")
_PACKAGES = ("rlhp", "ray", "torch", "gymnasium", "numpy", "pyarrow", "mujoco", "ale-py")


def locate(path: str | Path) -> Path:
    """The dataset directory at `path` or at its `preferences/`; ValueError where
    neither is one.
    """
    path = Path(path)
    for candidate in (path, path / "preferences"):
        if (candidate / HEADER).is_file():
            return candidate
    raise RlhpError(
        f"{path} is not a preference dataset: there is no {HEADER} in it or in its preferences/; "
        "name a run directory or its preferences/"
    )


def read_header(path: Path) -> dict[str, Any]:
    """The header of the dataset directory `path`; ValueError where it is damaged or of
    another schema version.
    """
    file = path / HEADER
    try:
        header = json.loads(file.read_bytes())
        found = header.get("schema_version") if isinstance(header, dict) else SCHEMA_VERSION
        if found == SCHEMA_VERSION:
            return sound_header(header)
    except (ValueError, RecursionError) as error:
        raise Damaged(f"{file} is damaged ({one_line(error)}); restore it from a copy") from error
    raise RlhpError(
        f"{file} has schema_version {found}, this version of rlhp reads {SCHEMA_VERSION}; use the "
        "version that wrote it"
    )


def sound_header(header: Any) -> dict[str, Any]:
    """The header, if a dataset can be opened with it; ValueError for anything else."""
    if not isinstance(header, dict):
        raise ValueError(f"it is a {type(header).__name__}, not an object")
    runs, length, env = (header.get(name) for name in ("run_ids", "segment_length", "env"))
    if not isinstance(runs, list) or not runs or not all(isinstance(run, str) for run in runs):
        raise ValueError(f"run_ids is a list of names, got {runs!r}")
    if not isinstance(length, int) or isinstance(length, bool) or not 1 <= length < 2**31:
        raise ValueError(f"segment_length is a number of steps, got {length!r}")
    if not isinstance(env, dict) or not isinstance(env.get("id"), str):
        raise ValueError(f"env is an object with an id, got {env!r}")
    try:
        spaces = Spaces.from_json(header["spaces"])
        for dtype, shape in [(leaf.dtype, leaf.shape) for leaf in spaces.obs.leaves] + [
            (spaces.action.dtype, spaces.action.shape)
        ]:
            if np.dtype(dtype).kind not in "biuf" or not all(
                isinstance(n, int) and n >= 0 for n in shape
            ):
                raise ValueError(f"arrays of {dtype} {shape} are none of an environment")
        if (
            len({leaf.path for leaf in spaces.obs.leaves}) != len(spaces.obs.leaves)
            or not spaces.obs.leaves
        ):
            raise ValueError("observation leaves have names of their own")
        segment_schema(spaces)
    except (
        KeyError,
        TypeError,
        AttributeError,
        OverflowError,
        SyntaxError,
        pa.ArrowException,
    ) as error:
        raise ValueError(f"its spaces are none: {one_line(error)}") from error
    return header


def complete_header(header: Mapping[str, Any]) -> dict[str, Any]:
    missing = [key for key in _REQUIRED if key not in header]
    if missing:
        raise RlhpError(
            f"the header of a dataset says what its arrays mean; it lacks {', '.join(missing)}"
        )
    spaces = header["spaces"]
    plain = {**header, "spaces": spaces.to_json() if isinstance(spaces, Spaces) else spaces}
    return {"schema_version": SCHEMA_VERSION, "versions": _versions(), **plain}


def _versions() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def refuse_occupied(path: Path) -> None:
    if (path / HEADER).exists():
        raise RlhpError(
            f"there is a preference dataset at {path} already; open it, or choose another directory"
        )
    remains = {"segments", "events"}  # of a start that was killed before it wrote the header
    others = (
        sorted(entry.name for entry in path.iterdir() if not entry.name.startswith("."))
        if path.exists()
        else []
    )
    full = [name for name in others if name not in remains or list((path / name).glob("[!._]*"))]
    if full:
        raise RlhpError(
            f"{path} holds something else ({full[0]}); choose a directory that is new or empty"
        )


def verify(path: str | Path) -> list[str]:
    """Problems of the dataset at `path`, one line each; none when it is whole. It
    changes nothing.
    """
    try:
        path = locate(path)
        header = read_header(path)
    except ValueError as error:
        return [str(error)]
    gone = ""
    for _ in range(parts.LOOKS):
        try:
            return _problems(path, header)
        # merged with others while we read: the next look finds these
        except parts.MovedAway as error:
            gone = str(error)
    return [gone]


def _problems(path: Path, header: Mapping[str, Any]) -> list[str]:
    spaces = Spaces.from_json(header["spaces"])
    schema = segment_schema(spaces)
    stored: set[str] = set()
    events: dict[str, EventRow] = {}

    def take_segments(table: pa.Table) -> None:
        stored.update(
            segment.id for segment in segment_rows(table, spaces=spaces, rows=range(len(table)))
        )

    def take_events(table: pa.Table) -> None:
        events.update({row.query_id: row for row in event_rows(table)})

    problems = [
        *_read_table(path / "segments", schema, take_segments),
        *_read_table(path / "events", EVENT_SCHEMA, take_events),
    ]
    lacking = [row.query_id for row in events.values() if not set(row.candidate_ids) <= stored]
    if lacking:
        problems.append(
            f"{path}: {len(lacking)} queries lack a segment, the first of them {lacking[0]}"
        )
    return problems


def _read_table(
    directory: Path, schema: pa.Schema, take: Callable[[pa.Table], None]
) -> Iterable[str]:
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


__all__ = ["EventRow", "PreferenceDataset", "verify"]

ROW_GROUP_BYTES = 16 << 20  # uncompressed: what reading one segment costs at most, or that segment


class Place(NamedTuple):
    """Where a segment lies."""

    part: str
    row_group: int
    row: int
    length: int
    env_steps: int


class PreferenceDataset:
    """Every segment asked about and everything that happened to the queries, durable
    and idempotent.

        dataset = PreferenceDataset.open("runs/hopper/preferences")
        for preference in dataset.preferences():
            if preference.answer is not Answer.INCOMPARABLE:
                learn([each.obs for each in preference.candidates], preference.target)

    Not for two threads at once.
    """

    def __init__(
        self, path: Path, header: Mapping[str, Any], *, cache_bytes: int, compacting: bool
    ) -> None:
        self.path = path
        self.header = dict(header)
        self.spaces = Spaces.from_json(self.header["spaces"])
        self.segment_length: int = self.header["segment_length"]
        self._schema = segment_schema(self.spaces)
        self._cache = SegmentCache(cache_bytes)
        self._warned: set[str] = set()
        self._compacting = compacting
        self._forget()
        self.refresh()

    @classmethod
    def create(
        cls, path: str | Path, *, header: Mapping[str, Any], cache_bytes: int = 1 << 30
    ) -> PreferenceDataset:
        """A new, empty dataset. ValueError where something is already, or if the header
        lacks a key.

        `header` has `run_ids`, `env` (id and kwargs), `spaces` (Spaces or its JSON) and
        `segment_length`, and usually `config_sha256` and `teacher`; the schema version
        and the versions of packages are added. `cache_bytes` bounds the segments kept
        in memory.
        """
        path = Path(path)
        refuse_occupied(path)
        for table in ("segments", "events"):
            (path / table).mkdir(parents=True, exist_ok=True)
        # last: a directory with a header is a whole dataset
        parts.write_json(path / HEADER, complete_header(header))
        sync(path.parent)
        return cls.open(path, cache_bytes=cache_bytes)

    @classmethod
    def open(
        cls, path: str | Path, *, cache_bytes: int = 1 << 30, compacting: bool = True
    ) -> PreferenceDataset:
        """The dataset at `path`, or in its `preferences/`. ValueError naming what is
        missing, damaged or too new.

        A writer that is not `compacting` leaves the parts that it writes as they are,
        for whoever goes by their names.
        """
        path = locate(path)
        return cls(path, read_header(path), cache_bytes=cache_bytes, compacting=compacting)

    def add_segments(self, segments: Sequence[Segment]) -> int:
        """Store the segments that are not stored yet; durable when it returns. How many
        were new.
        """
        new = {segment.id: segment for segment in segments if segment.id not in self._places}
        for segment in new.values():
            if segment.length > self.segment_length:
                raise RlhpError(
                    f"segment {segment.id} has {segment.length} steps, this dataset at most "
                    f"{self.segment_length}; cut segments no longer than query.segment_length"
                )
        if not new:
            return 0
        groups = list(_groups(new.values()))
        moment = datetime.now(UTC)
        tables = (segment_table(group, spaces=self.spaces, recorded_at=moment) for group in groups)
        name = self._segments.append(tables, schema=self._schema)
        for index, group in enumerate(groups):
            self._places.update(
                {
                    s.id: Place(name, index, row, s.length, s.env_steps)
                    for row, s in enumerate(group)
                }
            )
        for merged in self._compact_segments() if self._compacting else ():
            self._places.update(_places(self._segments.directory / merged, self._schema))
        return len(new)

    def add_events(self, rows: Sequence[EventRow]) -> int:
        """Store the events that are not stored yet, in this order; durable when it
        returns. How many were new.

        An event is known by (query, labeler, rev, event): delivered twice, it is stored
        once, the first way. Another answer under the same key is a revision of its own,
        as `rlhp.preferences.answers` has it.
        """
        new = unstored(rows, self._rows)
        if new:
            self._events.append([event_table(list(new.values()))], schema=EVENT_SCHEMA)
            self._rows.update(new)
            if self._compacting:
                self._compact_events()
        return len(new)

    def add_runs(self, run_ids: Iterable[str]) -> None:
        """Note in the header that these runs contributed."""
        known = list(self.header["run_ids"])
        added = [run for run in dict.fromkeys(run_ids) if run not in known]
        if added:
            header = {**self.header, "run_ids": known + added}
            parts.write_json(self.path / HEADER, header)
            self.header = header

    def refresh(self) -> None:
        """Take up the parts that other processes wrote since, and forget those that
        were moved away.

        ValueError naming a damaged part; the parts before it are taken up, and so are
        the rest once it is gone.
        """
        for _ in range(parts.LOOKS):
            # merged with others after it was listed, so the next look finds these
            with suppress(MovedAway):
                return self._look()
        self._look()

    def _look(self) -> None:
        segments, events = self._segments.look(), self._events.look()
        if segments.lost or events.lost:
            self._forget()
            segments, events = self._segments.look(), self._events.look()
        for name in segments.unseen:
            self._take_segments(name)
        for name in events.unseen:
            self._take_events(name)

    def _forget(self) -> None:
        self._segments, self._events = Parts(self.path / "segments"), Parts(self.path / "events")
        self._compact_segments = Compaction(self._segments, schema=self._schema)
        self._compact_events = Compaction(self._events, schema=EVENT_SCHEMA)
        self._places: dict[str, Place] = {}
        self._rows: dict[Key, EventRow] = {}
        self._cache.clear()

    def _take_segments(self, name: str) -> None:
        gone = self._segments.replaced(name) if is_merged(name) else frozenset()
        for segment, place in _places(self._segments.directory / name, self._schema):
            if segment not in self._places or self._places[segment].part in gone:
                self._places[segment] = place
        self._segments.take(name)

    def _take_events(self, name: str) -> None:
        if not (is_merged(name) and self._events.replaced(name) <= self._events.seen):
            for row in read_events(self._events.directory / name):
                self._rows.setdefault(row.key, row)
        self._events.take(name)

    def __contains__(self, segment: object) -> bool:
        """Whether a segment of this id is stored."""
        return segment in self._places

    def segment(self, segment: str) -> Segment:
        """The segment with this id; ValueError where there is none."""
        return self.segments([segment])[0]

    def segments(self, ids: Iterable[str]) -> list[Segment]:
        """The segments with these ids, in this order; ValueError naming one that is not
        stored.
        """
        ids = list(ids)
        for _ in range(parts.LOOKS):
            try:
                return self._segments_of(ids)
            except MovedAway:  # merged with others since the last look
                self.refresh()
        return self._segments_of(ids)

    def _segments_of(self, ids: Sequence[str]) -> list[Segment]:
        found: dict[str, Segment] = {}
        missing: dict[tuple[str, int], list[str]] = {}
        for segment in dict.fromkeys(ids):
            kept = self._cache.get(segment)
            if kept is not None:
                found[segment] = kept
                continue
            if segment not in self._places:
                raise RlhpError(
                    f"segment {segment} is not in {self.path}; call refresh() if it was written "
                    "since"
                )
            place = self._places[segment]
            missing.setdefault((place.part, place.row_group), []).append(segment)
        for (part, row_group), wanted in missing.items():
            for segment, value in zip(wanted, self._read(part, row_group, wanted), strict=True):
                found[segment] = value
                self._cache.put(value)
        return [found[segment] for segment in ids]

    def cut_at(self, ids: Iterable[str]) -> dict[str, int]:
        """Env steps of the run at which these segments were cut, as far as they are
        stored.
        """
        return {
            segment: self._places[segment].env_steps for segment in ids if segment in self._places
        }

    def segment_ids(self) -> list[str]:
        """Ids of all segments, in the order in which they were stored."""
        return list(self._places)

    def events(self) -> list[EventRow]:
        """All events, each once, in the order in which they were stored."""
        return list(self._rows.values())

    def live(self, *, purpose: Purpose | None = "train") -> list[EventRow]:
        """The answers that stand, by the rule of `rlhp.preferences.answers`;
        `purpose=None` takes all.
        """
        return live(self._rows.values(), purpose=purpose)

    def preferences(self, *, purpose: Purpose = "train") -> list[Preference]:
        """The answers that stand with their segments, `incomparable` included, in the
        order of `live`.

        An answer whose segments are not on disk (their part was moved away) is left
        out, with one warning per query.
        """
        return self.preferences_of(self.live(purpose=purpose))

    def preferences_of(self, rows: Sequence[EventRow]) -> list[Preference]:
        """The same for some of the answers that stand; reading only what is new keeps a
        long run cheap.
        """
        if not all(map(self._stored, rows)):
            # segments are stored before they are asked about, so perhaps just not taken
            # up
            self.refresh()
        self._warn_without_segments(rows)
        rows = [row for row in rows if self._stored(row)]
        wanted = dict.fromkeys(segment for row in rows for segment in row.candidate_ids)
        by_id = dict(zip(wanted, self.segments(wanted), strict=True))
        return [_preference(row, by_id) for row in rows]

    def query_ids(self) -> set[str]:
        """Queries of which anything was heard."""
        return {row.query_id for row in self._rows.values()}

    def asked(self) -> set[str]:
        """`comparison_id` of everything of which anything was heard, so that none is asked
        twice.
        """
        return {comparison_id(row.candidate_ids) for row in self._rows.values()}

    def counts(self) -> dict[str, int]:
        """How many of everything; `answers` and its parts count those that stand,
        whatever their purpose.
        """
        return {
            **count(self._rows.values()),
            "without_segments": sum(not self._stored(row) for row in self.live(purpose=None)),
            "segments": len(self._places),
            "short_segments": sum(
                place.length < self.segment_length for place in self._places.values()
            ),
        }

    def segment_tables(self) -> Iterator[pa.Table]:
        """All segments as raw tables, a row group at a time, each segment once."""
        left = list(self._places)
        while left:
            groups: dict[tuple[str, int], list[str]] = {}
            for segment in left:
                place = self._places[segment]
                groups.setdefault((place.part, place.row_group), []).append(segment)
            left = []
            for (part, row_group), segments in groups.items():
                try:
                    table = parts.read(
                        self._segments.directory / part, schema=self._schema, row_group=row_group
                    )
                except MovedAway:
                    left += segments
                    continue
                yield table.take([self._places[segment].row for segment in segments])
            if left:
                self.refresh()
                left = [segment for segment in left if segment in self._places]

    def _read(self, part: str, row_group: int, wanted: Sequence[str]) -> list[Segment]:
        path = self._segments.directory / part
        table = parts.read(path, schema=self._schema, row_group=row_group)
        try:
            return list(
                segment_rows(
                    table, spaces=self.spaces, rows=[self._places[id].row for id in wanted]
                )
            )
        except parts.DAMAGE as error:
            raise parts.damaged(path, error) from error

    def _stored(self, row: EventRow) -> bool:
        return all(segment in self._places for segment in row.candidate_ids)

    def _warn_without_segments(self, rows: Sequence[EventRow]) -> None:
        new = [
            row.query_id
            for row in rows
            if not self._stored(row) and row.query_id not in self._warned
        ]
        if new:
            warnings.warn(
                f"{len(new)} answered queries, the first of them {new[0]}, have segments that are "
                f"not in {self.path}: left out; put back the part of segments/ that was moved "
                "away, if there is one",
                stacklevel=3,
            )
            self._warned.update(new)


def _groups(segments: Iterable[Segment]) -> Iterator[list[Segment]]:
    group: list[Segment] = []
    size = 0
    for segment in segments:
        if group and size + segment_bytes(segment) > ROW_GROUP_BYTES:
            yield group
            group, size = [], 0
        group.append(segment)
        size += segment_bytes(segment)
    yield group


def _places(path: Path, schema: pa.Schema) -> Iterator[tuple[str, Place]]:
    sizes = parts.row_group_sizes(path, schema=schema)
    columns = parts.read(
        path, schema=schema, columns=["segment_id", "length", "env_steps"]
    ).to_pydict()
    rows = ((group, row) for group, size in enumerate(sizes) for row in range(size))
    known = zip(columns["segment_id"], columns["length"], columns["env_steps"], rows, strict=True)
    for segment, length, env_steps, (group, row) in known:
        yield segment, Place(path.name, group, row, length, env_steps)


def read_events(path: Path) -> list[EventRow]:
    """The events of one part; ValueError where it is damaged."""
    parts.row_group_sizes(path, schema=EVENT_SCHEMA)
    table = parts.read(path, schema=EVENT_SCHEMA)
    try:
        return list(event_rows(table))
    except parts.DAMAGE as error:
        raise parts.damaged(path, error) from error


def _preference(row: EventRow, segments: Mapping[str, Segment]) -> Preference:
    assert row.answer is not None
    assert row.labeler is not None
    return Preference(
        query=row.query_id,
        candidates=tuple(segments[each] for each in row.candidate_ids),
        answer=row.answer,
        labeler=row.labeler,
    )
