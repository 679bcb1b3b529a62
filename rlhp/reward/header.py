"""`dataset.json`: what the arrays of a preference dataset mean, and how a directory is known to be one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from rlhp.errors import RlhpError
from rlhp.reward.schema import SCHEMA_VERSION
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
        header = json.loads(file.read_text())
        if not isinstance(header, dict):
            raise RlhpError("it is not an object")
        found = header.get("schema_version")
        if found == SCHEMA_VERSION:
            Spaces.from_json(header["spaces"])
            return {**header, "segment_length": int(header["segment_length"]), "run_ids": list(header["run_ids"])}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RlhpError(f"{file} is damaged ({type(error).__name__}: {error}); restore it from a copy") from error
    raise RlhpError(
        f"{file} has schema_version {found}, this version of rlhp reads {SCHEMA_VERSION}; use the version that wrote it"
    )


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
