"""The table of segments in a preference dataset, and the way between its rows and
`Segment`.

Shapes: K steps per segment, O one observation leaf, A one action, S simulator state.

Arrays are stored as raw little-endian bytes in binary columns. A row's shape is its own
length plus what the column's field metadata says: `dtype`, `shape` (of one step) and
`order`, which is C but for stacked pictures [C, H, W]: with `frames` the bytes are, for
each row, the index (int32) of the first frame of its stack, then the frames [F, H, W],
each once. The list types of Parquet would take over twenty times as long for images.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa

from rlhp import frames
from rlhp.envs.spaces import Spaces
from rlhp.errors import RlhpError
from rlhp.types import Array, Segment

SCHEMA_VERSION = 1

WORD = pa.dictionary(pa.int32(), pa.string())  # int32, since that is what Parquet gives back
TIME = pa.timestamp("ms", tz="UTC")
_FLOATS = pa.list_(pa.float32())


def segment_schema(spaces: Spaces) -> pa.Schema:
    """The schema of the segments of these spaces: one binary column per observation
    leaf.
    """
    leaves = [
        _array_field(obs_column(leaf.path), leaf.dtype, leaf.shape) for leaf in spaces.obs.leaves
    ]
    return pa.schema(
        [
            pa.field("segment_id", pa.string(), nullable=False),
            pa.field("run_id", pa.string(), nullable=False),
            pa.field("env_runner", pa.int32(), nullable=False),
            pa.field("episode_id", pa.string(), nullable=False),
            pa.field("t0", pa.int32(), nullable=False),
            pa.field("length", pa.int32(), nullable=False),
            pa.field("env_steps", pa.int64(), nullable=False),
            pa.field("policy_version", pa.int64(), nullable=False),
            pa.field("recorded_at", TIME, nullable=False),
            *leaves,
            _array_field("act", spaces.action.dtype, spaces.action.shape),
            pa.field("env_reward", _FLOATS),
            pa.field("predicted_reward", _FLOATS),
            pa.field("reward_version", pa.int64()),
            pa.field("terminated", pa.bool_(), nullable=False),
            pa.field("truncated", pa.bool_(), nullable=False),
            pa.field("state_kind", WORD, nullable=False),
            # [K, S], S from the byte count
            pa.field("state", pa.binary(), metadata={"dtype": "<f8", "order": "C"}),
        ]
    )


def obs_column(path: str) -> str:
    """The column (and export array) of the observation leaf at `path`."""
    return f"obs.{path}" if path else "obs"


def segment_table(
    segments: Sequence[Segment], *, spaces: Spaces, recorded_at: datetime
) -> pa.Table:
    """These segments as rows; ValueError for one whose arrays do not fit the spaces."""
    schema = segment_schema(spaces)
    return pa.Table.from_pylist(
        [_segment_row(s, spaces, schema) | {"recorded_at": recorded_at} for s in segments], schema
    )


def segment_rows(table: pa.Table, *, spaces: Spaces, rows: Sequence[int]) -> Iterator[Segment]:
    """The segments in these rows, arrays copied out of the table; ValueError for a row
    that lies about its size.
    """
    schema = segment_schema(spaces)
    for row in table.take(list(rows)).to_pylist():
        yield _segment(row, spaces, schema)


def _array_field(name: str, dtype: str, shape: tuple[int, ...]) -> pa.Field:
    little = np.dtype(dtype).newbyteorder("<").str
    order = "frames" if frames.is_stack(dtype, shape) else "C"
    return pa.field(
        name,
        pa.binary(),
        nullable=False,
        metadata={"dtype": little, "shape": json.dumps(list(shape)), "order": order},
    )


def _segment_row(segment: Segment, spaces: Spaces, schema: pa.Schema) -> dict[str, Any]:
    paths = {leaf.path for leaf in spaces.obs.leaves}
    if set(segment.obs) != paths:
        raise RlhpError(
            f"segment {segment.id}: its observation has the leaves {sorted(segment.obs)}, the "
            f"dataset {sorted(paths)}; a dataset holds one kind of observation, so start another "
            "one"
        )
    steps = segment.length
    arrays = {
        obs_column(path): _pack(segment, schema, obs_column(path), array)
        for path, array in segment.obs.items()
    }
    return {
        "segment_id": segment.id,
        "run_id": segment.run,
        "env_runner": segment.env_runner,
        "episode_id": segment.episode,
        "t0": segment.start,
        "length": steps,
        "env_steps": segment.env_steps,
        "policy_version": segment.policy_version,
        **arrays,
        "act": _pack(segment, schema, "act", segment.actions),
        "env_reward": segment.env_reward,
        "predicted_reward": segment.predicted_reward,
        "reward_version": segment.reward_version,
        "terminated": segment.terminated,
        "truncated": segment.truncated,
        "state_kind": segment.state_kind,
        "state": None
        if segment.state is None
        else np.asarray(segment.state, "<f8").reshape(steps, -1).tobytes(),
    }


def _pack(segment: Segment, schema: pa.Schema, column: str, array: Array) -> bytes:
    dtype, shape = _layout(schema, column)
    if array.shape[1:] != shape or not np.can_cast(array.dtype, dtype, "same_kind"):
        raise RlhpError(
            f"segment {segment.id}: one row of {column} is {dtype.name}{list(shape)} in this "
            f"dataset, got {array.dtype.name}{list(array.shape[1:])}; make the environment return "
            "what its spaces declare"
        )
    if frames.is_stack(dtype, shape):
        pictures, first = frames.unstack(array)
        return first.astype("<i4").tobytes() + pictures.tobytes()
    # like Gymnasium's vector environments, cast to the space
    return np.ascontiguousarray(array, dtype).tobytes()


def _segment(row: Mapping[str, Any], spaces: Spaces, schema: pa.Schema) -> Segment:
    steps = row["length"]
    state = row["state"]
    return Segment(
        id=row["segment_id"],
        run=row["run_id"],
        env_runner=row["env_runner"],
        episode=row["episode_id"],
        start=row["t0"],
        obs={
            leaf.path: _unpack(row, schema, obs_column(leaf.path), steps + 1)
            for leaf in spaces.obs.leaves
        },
        actions=_unpack(row, schema, "act", steps),
        env_reward=_floats(row["env_reward"]),
        predicted_reward=_floats(row["predicted_reward"]),
        reward_version=row["reward_version"],
        policy_version=row["policy_version"],
        env_steps=row["env_steps"],
        terminated=row["terminated"],
        truncated=row["truncated"],
        state=None if state is None else np.frombuffer(state, "<f8").reshape(steps, -1),
        state_kind=row["state_kind"],
    )


def _unpack(row: Mapping[str, Any], schema: pa.Schema, column: str, steps: int) -> Array:
    dtype, shape = _layout(schema, column)
    if frames.is_stack(dtype, shape):
        first = np.frombuffer(row[column], "<i4", count=steps)
        pictures = np.frombuffer(row[column], dtype, offset=first.nbytes).reshape(-1, *shape[1:])
        return frames.restack(pictures, first, depth=shape[0])
    return np.frombuffer(row[column], dtype).reshape(steps, *shape)


def _layout(schema: pa.Schema, column: str) -> tuple[np.dtype[Any], tuple[int, ...]]:
    metadata = schema.field(column).metadata
    return np.dtype(metadata[b"dtype"].decode()), tuple(json.loads(metadata[b"shape"]))


def _floats(values: list[float] | None) -> Array | None:
    return None if values is None else np.asarray(values, np.float32)
