"""Nested states as one file that is read back without running anything that stands in it.

What RLlib, torch and we call a state is dictionaries, lists, numbers, texts and arrays. Saved as such, a file needs
no classes to be read (`torch.load(weights_only=True)`): one from elsewhere can hold wrong numbers, but runs no code.
"""

from __future__ import annotations

import io
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rlhp.disk import write_whole
from rlhp.errors import RlhpError

ARRAY, BYTES = "__array__", "__bytes__"


def save_state(path: Path, state: Any) -> None:
    """Write it; TypeError naming the place of whatever is none of the above."""
    buffer = io.BytesIO()  # torch itself would turn an error of the disk into one that names neither it nor the path
    torch.save(_plain(state, ()), buffer)
    write_whole(path, buffer.getbuffer())


def load_state(path: Path) -> Any:
    """What `save_state` wrote, bit for bit; ValueError for a file that is damaged or holds anything else."""
    try:
        return _back(torch.load(path, weights_only=True, map_location="cpu"))
    except Exception as error:  # zip, pickle, torch and the operating system each have their own
        line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise RlhpError(f"{path}: cannot be read as a saved state: {line}") from error


def _plain(value: Any, place: tuple[str, ...]) -> Any:
    if value is None or isinstance(value, (bool, int, float, str)):
        return value.item() if isinstance(value, np.generic) else value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, torch.Tensor):
        return value.detach().cpu().clone()  # a view would drag what it is a view of along
    if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
        return {ARRAY: torch.from_numpy(np.array(value, order="C"))}
    if isinstance(value, bytes):
        return {BYTES: torch.frombuffer(bytearray(value), dtype=torch.uint8) if value else torch.zeros(0)}
    if isinstance(value, dict):
        return {_key(name, place): _plain(item, (*place, str(name))) for name, item in value.items()}
    if isinstance(value, tuple):
        return tuple(_plain(item, (*place, str(k))) for k, item in enumerate(value))
    if isinstance(value, (list, deque)):
        return [_plain(item, (*place, str(k))) for k, item in enumerate(value)]
    raise TypeError(f"{'.'.join(place)}: a {type(value).__name__} cannot be saved; only numbers, texts and arrays can")


def _key(name: Any, place: tuple[str, ...]) -> str | int:
    if isinstance(name, (str, int)):
        return name
    raise TypeError(f"{'.'.join(place)}: a state is named by texts or numbers, got {name!r}")


def _back(value: Any) -> Any:
    if isinstance(value, dict):
        if value.keys() == {ARRAY}:
            return value[ARRAY].numpy()
        if value.keys() == {BYTES}:
            return value[BYTES].numpy().tobytes()
        return {name: _back(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_back(item) for item in value)
    return value
