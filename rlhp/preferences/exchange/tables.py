"""A preference dataset for other tools: one npz, one JSON line per preference, or one
compact Parquet part per table.

Shapes: P preferences, S segments, K steps of the longest segment allowed, O one
observation leaf, A one action.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from rlhp.errors import RlhpError
from rlhp.files import new_directory, write_whole
from rlhp.preferences.dataset import ROW_GROUP_BYTES, PreferenceDataset
from rlhp.preferences.events import EVENT_SCHEMA, Purpose, event_table
from rlhp.preferences.exchange.imitation import write_imitation
from rlhp.preferences.parts import Parts
from rlhp.preferences.schema import obs_column, segment_schema
from rlhp.types import CHOICES, Answer, Array, Preference, Segment, target

Format = Literal["npz", "parquet", "jsonl", "imitation"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Exported:
    """What an export wrote."""

    out: Path
    to: Format
    preferences: int
    incomparable: int
    """How many of those have no target."""
    segments: int
    wider: int = 0
    """Answers about more than two candidates, which are left out since the format is one
    of pairs.
    """


def export(
    dataset_path: str | Path, out: str | Path, *, to: Format, purpose: Purpose = "train"
) -> Exported:
    """Write the dataset at `dataset_path` to `out`, which must not exist yet.

    npz, jsonl and imitation (see `imitation`) hold the answers of this purpose that
    stand and their segments, imitation without those that are `incomparable`, npz and
    imitation without those about more than two candidates. Parquet holds everything, as
    a dataset directory that `PreferenceDataset.open` and `pandas.read_parquet` read. All
    of it passes through memory, for parquet 16 MiB at a time.

    ValueError where there is nothing to export, where `out` exists, or where JSON
    cannot express a value.
    """
    writers: dict[str, Callable[[PreferenceDataset, Path, list[Preference]], int]] = {
        "npz": _write_npz,
        "parquet": _write_parquet,
        "jsonl": _write_jsonl,
        "imitation": write_imitation,
    }
    if to not in writers:
        raise RlhpError(f"a dataset is exported to one of {', '.join(writers)}; got {to!r}")
    out = Path(out)
    if out.exists():
        raise RlhpError(f"{out} exists already; choose another name, or remove it first")
    dataset = PreferenceDataset.open(dataset_path)
    preferences = dataset.preferences(purpose=purpose) if to != "parquet" else []
    wider = 0
    if to in ("npz", "imitation"):
        pairs = [each for each in preferences if len(each.candidates) == 2]
        wider = len(preferences) - len(pairs)
        if preferences and not pairs:
            raise RlhpError(
                f"nothing to export to {to}, which holds pairs: all {wider} answers in "
                f"{dataset.path} are about more candidates; export to jsonl or parquet"
            )
        preferences = pairs
    if not preferences and (to != "parquet" or not (dataset.segment_ids() or dataset.events())):
        raise RlhpError(f"nothing to export: {dataset.path} holds no {purpose} answer that stands")
    out.parent.mkdir(parents=True, exist_ok=True)
    segments = writers[to](dataset, out, preferences)
    answers = (
        [row.answer for row in dataset.live(purpose=purpose)]
        if to == "parquet"
        else [p.answer for p in preferences]
    )
    return Exported(
        out=out,
        to=to,
        preferences=len(answers),
        incomparable=answers.count(Answer.INCOMPARABLE),
        segments=segments,
        wider=wider,
    )


def _write_npz(dataset: PreferenceDataset, out: Path, preferences: list[Preference]) -> int:
    segments = _distinct(preferences)
    index = {segment.id: row for row, segment in enumerate(segments)}
    steps = dataset.segment_length
    arrays: dict[str, Array] = {
        # [S, K+1, *O]
        obs_column(leaf.path): _padded([s.obs[leaf.path] for s in segments], rows=steps + 1)
        for leaf in dataset.spaces.obs.leaves
    }
    arrays |= {
        "actions": _padded([s.actions for s in segments], rows=steps),  # [S, K, *A]
        # [S, K] False where padded
        "mask": _padded([np.ones(s.length, bool) for s in segments], rows=steps),
        "length": np.array([s.length for s in segments], np.int32),
        # [S, K] NaN where unknown
        "env_reward": _padded([_known(s, s.env_reward) for s in segments], rows=steps),
        "predicted_reward": _padded([_known(s, s.predicted_reward) for s in segments], rows=steps),
        "env_steps": np.array([s.env_steps for s in segments], np.int64),
        "policy_version": np.array([s.policy_version for s in segments], np.int64),
        "terminated": np.array([s.terminated for s in segments], bool),
        "truncated": np.array([s.truncated for s in segments], bool),
        "segment_ids": np.array([s.id for s in segments], np.str_),
        # [P, 2] into S
        "pairs": np.array([(index[p.first.id], index[p.second.id]) for p in preferences], np.int64),
        # NaN: incomparable
        "targets": np.array([_p_first(p) for p in preferences], np.float32),
        "answers": np.array([p.answer.value for p in preferences], np.str_),
        "labelers": np.array([p.labeler for p in preferences], np.str_),
        "query_ids": np.array([p.query for p in preferences], np.str_),
        "header": np.array(json.dumps(dataset.header), np.str_),
    }
    # mypy takes the arrays for savez_compressed's own flags, which share the keyword
    # namespace.
    write_whole(out, lambda file: np.savez_compressed(file, **arrays))  # type: ignore[arg-type]
    return len(segments)


def _write_jsonl(dataset: PreferenceDataset, out: Path, preferences: list[Preference]) -> int:
    lines = (_line(preference) for preference in preferences)
    write_whole(out, lambda file: file.writelines(lines))
    return len(_distinct(preferences))


def _write_parquet(dataset: PreferenceDataset, out: Path, preferences: list[Preference]) -> int:
    with new_directory(out) as torn:
        PreferenceDataset.create(torn, header=dataset.header)
        if dataset.segment_ids():
            tables = _merged(dataset.segment_tables())
            Parts(torn / "segments").append(tables, schema=segment_schema(dataset.spaces))
        if dataset.events():
            Parts(torn / "events").append([event_table(dataset.events())], schema=EVENT_SCHEMA)
    return len(dataset.segment_ids())


def _distinct(preferences: Sequence[Preference]) -> list[Segment]:
    every = (segment for preference in preferences for segment in preference.candidates)
    return list({segment.id: segment for segment in every}.values())


def _p_first(preference: Preference) -> float:
    return np.nan if preference.answer is Answer.INCOMPARABLE else preference.target[0]


def _padded(arrays: Sequence[Array], *, rows: int) -> Array:
    """[L_i, *X] of different lengths -> [S, rows, *X], zeros behind the end."""
    out = np.zeros((len(arrays), rows, *arrays[0].shape[1:]), arrays[0].dtype)
    for index, array in enumerate(arrays):
        out[index, : len(array)] = array
    return out


def _known(segment: Segment, rewards: Array | None) -> Array:
    return (
        np.full(segment.length, np.nan, np.float32)
        if rewards is None
        else np.asarray(rewards, np.float32)
    )


def _line(preference: Preference) -> bytes:
    """The target is P(first preferred) of a pair, and a list of all of more candidates."""
    count = len(preference.candidates)
    pair, mu = count == 2, target(preference.answer, candidates=count)
    names = [answer.value for answer in CHOICES[:count]]
    record = {
        "query": preference.query,
        "answer": preference.answer.value,
        "target": mu[0] if pair and mu is not None else mu,
        "labeler": preference.labeler,
        **dict(zip(names, map(_plain, preference.candidates), strict=True)),
    }
    try:
        return json.dumps(record, allow_nan=False).encode() + b"\n"
    except ValueError:
        raise RlhpError(
            f"query {preference.query}: one of its segments holds a NaN or an infinite value, "
            "which JSON cannot express; export to npz or parquet"
        ) from None


def _plain(segment: Segment) -> dict[str, Any]:
    return {
        "id": segment.id,
        "run": segment.run,
        "episode": segment.episode,
        "start": segment.start,
        "length": segment.length,
        "env_steps": segment.env_steps,
        "policy_version": segment.policy_version,
        "reward_version": segment.reward_version,
        "terminated": segment.terminated,
        "truncated": segment.truncated,
        "obs": {path: leaf.tolist() for path, leaf in segment.obs.items()},
        "actions": segment.actions.tolist(),
        "env_reward": None if segment.env_reward is None else segment.env_reward.tolist(),
        "predicted_reward": None
        if segment.predicted_reward is None
        else segment.predicted_reward.tolist(),
    }


def _merged(tables: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """Tables of a size worth a row group, out of many small ones."""
    waiting: list[pa.Table] = []
    for table in tables:
        waiting.append(table)
        if sum(each.nbytes for each in waiting) >= ROW_GROUP_BYTES:
            yield pa.concat_tables(waiting).unify_dictionaries()
            waiting = []
    if waiting:
        yield pa.concat_tables(waiting).unify_dictionaries()
