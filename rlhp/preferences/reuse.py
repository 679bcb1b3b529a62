"""Answers of an earlier run, copied into a new one, so that nobody answers twice."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from rlhp.envs.spaces import Spaces
from rlhp.errors import RlhpError
from rlhp.preferences.answers import REUSED
from rlhp.preferences.dataset import PreferenceDataset
from rlhp.preferences.events import EventRow

_NOTHING = "there is no answer to reuse in {}; name another run, or leave labels.reuse empty"
_BATCH = 256  # segments held in memory at a time


def merge_into(target: PreferenceDataset, source_path: str | Path) -> int:
    """Copy the answers that stand in the dataset at `source_path`, of every purpose.
    How many were new.

    Copying again copies nothing. Copied answers say in their note which run they come
    from, and carry no stream id, since it would mean an entry of another stream.

    ValueError where the two hold different observations or actions, where the segments
    there are longer, and where there is no answer to copy.
    """
    source = PreferenceDataset.open(source_path)
    _refuse_mismatch(source, spaces=target.spaces, segment_length=target.segment_length)
    _warn_of_another_task(target, source)
    rows = [
        row
        for row in source.live(purpose=None)
        if all(segment in source for segment in row.candidate_ids)
    ]
    if not rows:
        raise RlhpError(_NOTHING.format(source.path))
    lost = len(source.live(purpose=None)) - len(rows)
    if lost:
        warnings.warn(
            f"{lost} answers in {source.path} have lost their segments and are not reused",
            stacklevel=2,
        )
    wanted = list(dict.fromkeys(segment for row in rows for segment in row.candidate_ids))
    for batch in _batches([segment for segment in wanted if segment not in target]):
        target.add_segments(source.segments(batch))
    origin = ", ".join(source.header["run_ids"])
    copied = target.add_events([_reused(row, origin) for row in rows])
    target.add_runs(source.header["run_ids"])
    return copied


def refuse(source_path: str | Path, *, spaces: Spaces, segment_length: int) -> None:
    """ValueError for a dataset from which `merge_into` could copy nothing to a run in
    these spaces.
    """
    source = PreferenceDataset.open(source_path)
    _refuse_mismatch(source, spaces=spaces, segment_length=segment_length)
    if not source.live(purpose=None):
        raise RlhpError(_NOTHING.format(source.path))


def difference(ours: Spaces, theirs: Spaces) -> str | None:
    """The first leaf or action in which two specs differ, in words; None where they
    hold the same arrays.
    """
    mine = {f"observation leaf {leaf.path!r}": asdict(leaf) for leaf in ours.obs.leaves}
    other = {f"observation leaf {leaf.path!r}": asdict(leaf) for leaf in theirs.obs.leaves}
    mine["action"], other["action"] = asdict(ours.action), asdict(theirs.action)
    for name in [*mine, *other]:
        if mine.get(name) != other.get(name):
            return f"{name} is {_words(mine.get(name))} here and {_words(other.get(name))} there"
    return None


def _refuse_mismatch(source: PreferenceDataset, *, spaces: Spaces, segment_length: int) -> None:
    found = difference(spaces, source.spaces)
    if found:
        raise RlhpError(
            f"answers about other spaces cannot be reused: {found} ({source.path}); reuse a run "
            "of this env"
        )
    if source.segment_length > segment_length:
        raise RlhpError(
            f"segments of up to {source.segment_length} steps in {source.path} do not fit into "
            f"segments of {segment_length}; set query.segment_length={source.segment_length}"
        )


def _warn_of_another_task(target: PreferenceDataset, source: PreferenceDataset) -> None:
    if source.header["env"].get("id") != target.header["env"].get("id"):
        warnings.warn(
            f"reusing answers about {source.header['env'].get('id')} for "
            f"{target.header['env'].get('id')}: the spaces agree, but the task may be another",
            stacklevel=3,
        )


def _reused(row: EventRow, origin: str) -> EventRow:
    note = row.note or ""
    if not note.startswith(REUSED):
        note = f"{REUSED}{origin}" + (f": {note}" if note else "")
    return replace(row, note=note, stream_id=None)


def _words(spec: dict[str, Any] | None) -> str:
    if spec is None:
        return "missing"
    kept = {name: value for name, value in spec.items() if name != "path" and value not in ((), 0)}
    return ", ".join(f"{name} {value}" for name, value in kept.items()) or "empty"


def _batches(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(ids), _BATCH):
        yield ids[start : start + _BATCH]
