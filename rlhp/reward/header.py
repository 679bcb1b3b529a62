"""`dataset.json`: what the arrays of a preference dataset mean, and how a directory is known to be one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from rlhp.disk import Damaged
from rlhp.errors import RlhpError, one_line
from rlhp.reward.schema import SCHEMA_VERSION, segment_schema
from rlhp.spaces import Spaces

HEADER = "dataset.json"

_REQUIRED = ("run_ids", "env", "spaces", "segment_length")
_PACKAGES = ("rlhp", "ray", "torch", "gymnasium", "numpy", "pyarrow", "mujoco", "ale-py")


def locate(path: str | Path) -> Path:
    """The dataset directory at `path` or at its `preferences/`; ValueError where neither is one."""
    path = Path(path)
    for candidate in (path, path / "preferences"):
        if (candidate / HEADER).is_file():
            return candidate
    raise RlhpError(
        f"{path} is not a preference dataset: there is no {HEADER} in it or in its preferences/; "
        "name a run directory or its preferences/"
    )


def read_header(path: Path) -> dict[str, Any]:
    """The header of the dataset directory `path`; ValueError where it is damaged or of another schema version."""
    file = path / HEADER
    try:
        header = json.loads(file.read_bytes())
        found = header.get("schema_version") if isinstance(header, dict) else SCHEMA_VERSION
        if found == SCHEMA_VERSION:
            return sound_header(header)
    except (ValueError, RecursionError) as error:
        raise Damaged(f"{file} is damaged ({one_line(error)}); restore it from a copy") from error
    raise RlhpError(
        f"{file} has schema_version {found}, this version of rlhp reads {SCHEMA_VERSION}; use the version that wrote it"
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
            if np.dtype(dtype).kind not in "biuf" or not all(isinstance(n, int) and n >= 0 for n in shape):
                raise ValueError(f"arrays of {dtype} {shape} are none of an environment")
        if len({leaf.path for leaf in spaces.obs.leaves}) != len(spaces.obs.leaves) or not spaces.obs.leaves:
            raise ValueError("observation leaves have names of their own")
        segment_schema(spaces)
    except (KeyError, TypeError, AttributeError, OverflowError, SyntaxError, pa.ArrowException) as error:
        raise ValueError(f"its spaces are none: {one_line(error)}") from error
    return header


def complete_header(header: Mapping[str, Any]) -> dict[str, Any]:
    missing = [key for key in _REQUIRED if key not in header]
    if missing:
        raise RlhpError(f"the header of a dataset says what its arrays mean; it lacks {', '.join(missing)}")
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
        raise RlhpError(f"there is a preference dataset at {path} already; open it, or choose another directory")
    remains = {"segments", "events"}  # of a start that was killed before it wrote the header
    others = sorted(entry.name for entry in path.iterdir() if not entry.name.startswith(".")) if path.exists() else []
    full = [name for name in others if name not in remains or list((path / name).glob("[!._]*"))]
    if full:
        raise RlhpError(f"{path} holds something else ({full[0]}); choose a directory that is new or empty")
