"""Saved states come back bit for bit, and a file that holds more than a state is not
read.
"""

from __future__ import annotations

import collections
import os
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rlhp.learn.checkpoint import load_state, save_state

STATE: dict[Any, Any] = {
    "numbers": [1, 2**100, -0.1, float("inf"), True, None, "text"],
    "arrays": {
        "float": np.arange(6.0).reshape(2, 3)[:, ::2],
        "bool": np.array([True, False]),
        "none": np.zeros((0, 3)),
    },
    "bytes": (b"\x00\xff", b""),
    "tensor": torch.arange(4)[1:],
    "generator": np.random.default_rng(3).bit_generator.state,
    "python": random.Random(3).getstate(),
    "queue": collections.deque([1, 2]),
    7: np.float32(0.1),
}


def test_a_state_comes_back_bit_for_bit(tmp_path: Path) -> None:
    save_state(tmp_path / "s.pt", STATE)
    back = load_state(tmp_path / "s.pt")
    assert back["numbers"] == STATE["numbers"]
    for name, array in STATE["arrays"].items():
        assert back["arrays"][name].dtype == array.dtype
        np.testing.assert_array_equal(back["arrays"][name], array)
    assert back["bytes"] == STATE["bytes"]
    assert torch.equal(back["tensor"], STATE["tensor"])
    assert back["generator"] == STATE["generator"]
    assert back["python"] == STATE["python"]
    assert back["queue"] == [1, 2]
    assert back[7] == float(np.float32(0.1))


def test_what_is_no_state_is_refused_with_its_place(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"^a\.b\.1: a Path|^a\.b\.1: a PosixPath cannot be saved"):
        save_state(tmp_path / "s.pt", {"a": {"b": [1, tmp_path]}})
    with pytest.raises(TypeError, match="a state is named by texts or numbers"):
        save_state(tmp_path / "s.pt", {"a": {(1, 2): 3}})


class Bomb:
    """What a file from elsewhere could hold."""

    def __reduce__(self) -> Any:
        return os.mkdir, ("/tmp/never",)


def test_a_file_that_would_run_code_is_not_read(tmp_path: Path) -> None:
    torch.save({"a": Bomb()}, tmp_path / "s.pt")
    with pytest.raises(ValueError, match=r"s\.pt: cannot be read as a saved state"):
        load_state(tmp_path / "s.pt")
    assert not Path("/tmp/never").exists()
    (tmp_path / "s.pt").write_bytes(b"PK")
    with pytest.raises(ValueError, match=r"s\.pt: cannot be read as a saved state"):
        load_state(tmp_path / "s.pt")
