"""Arrays out of an npz file that somebody names: checked before memory is taken for
them, and never a pickle.

    found = NpzFile.read(path)
    lengths = found.numbers("lengths", kinds="iu", shape=(None,))
    ids = found.texts("segment_ids", rows=len(lengths))

An RlhpError names the file, the array, what it should be and what it is.
"""

from __future__ import annotations

import io
import lzma
import math
import os
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile, ZipInfo

import numpy as np

from rlhp.errors import RlhpError, one_line
from rlhp.files import read_regular
from rlhp.types import Array

UNREADABLE = (
    BadZipFile,
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    AttributeError,
    SyntaxError,
    EOFError,
    OverflowError,
    MemoryError,
    RecursionError,
    NotImplementedError,
    RuntimeError,
    OSError,
    zlib.error,
    lzma.LZMAError,
    struct.error,
)
"""What zipfile and numpy may raise over bytes that are damaged, encrypted, or none of
theirs.
"""

_WORDS = {"b": "truth values", "iu": "whole numbers", "U": "texts"}


@dataclass(frozen=True, kw_only=True, slots=True)
class NpzFile:
    """The arrays of one file."""

    path: Path
    arrays: Mapping[str, Array]

    @classmethod
    def read(cls, path: Path) -> NpzFile:
        """RlhpError for whatever is no npz of plain arrays, or would not fit into
        memory.
        """
        data = read_regular(path)
        try:
            with ZipFile(io.BytesIO(data)) as archive:
                members = archive.infolist()
                _check_size(members)
                _check_count(data, len(members))
                found = {
                    member.filename.removesuffix(".npy"): _array(archive, member)
                    for member in members
                }
        except UNREADABLE as error:
            raise RlhpError(
                f"{path} cannot be imported: it is no npz file, or a damaged one "
                f"({one_line(error)}); docs/labeling.md lists what an import needs"
            ) from error
        if len(found) != len(members):
            raise RlhpError(
                f"{path} cannot be imported: it holds two arrays of one name; write each once"
            )
        return cls(path=path, arrays=found)

    def __contains__(self, name: str) -> bool:
        return name in self.arrays

    def numbers(
        self, name: str, *, kinds: str, shape: tuple[int | None, ...], like: str | None = None
    ) -> Array:
        """This array, of this shape (None: any length) and one of these kinds of dtype,
        as dtype `like` if given.
        """
        if name not in self.arrays:
            raise RlhpError(
                f"{self.path} lacks the array {name!r}; docs/labeling.md lists what an import needs"
            )
        array = self.arrays[name]
        right = array.ndim == len(shape) and all(
            n in (None, have) for n, have in zip(shape, array.shape, strict=True)
        )
        if array.dtype.kind not in kinds or not right:
            size = ", ".join("any" if n is None else str(n) for n in shape)
            what = _WORDS.get(kinds, "numbers")
            have = f"{array.dtype.name} {list(array.shape)}"
            raise self.wrong(f"the array {name!r} is to hold {what} [{size}], got {have}")
        dtype = np.dtype(
            like if like is not None else "<i8" if array.dtype.kind == "u" else array.dtype
        )
        if like is not None and not np.can_cast(array.dtype, dtype, "same_kind"):
            raise self.wrong(
                f"the array {name!r} is to fit into {dtype.name}, got {array.dtype.name}"
            )
        # what gets infinite by it is looked for by whoever uses it
        with np.errstate(over="ignore"):
            found = array.astype(dtype, copy=False)
        # a whole number too large becomes another one
        if dtype.kind in "iu" and (beyond := found != array).any():
            raise self.wrong(
                f"the array {name!r} is to fit into {dtype.name}, got {array[beyond][0]}"
            )
        return found

    def texts(self, name: str, *, rows: int) -> list[str]:
        """These texts, none of them empty."""
        try:
            found = [str(text) for text in self.numbers(name, kinds="U", shape=(rows,))]
        except ValueError as error:
            raise (
                error
                if isinstance(error, RlhpError)
                else self.wrong(f"the array {name!r}: {error}")
            ) from error
        if bad := [text for text in found if not text.isprintable() or not text]:
            raise self.wrong(
                f"the array {name!r} holds {bad[0]!r}; such a text is neither empty nor unprintable"
            )
        return found

    def wrong(self, why: str) -> RlhpError:
        """The error to raise about this file."""
        return RlhpError(
            f"{self.path} cannot be imported: {why}; docs/labeling.md lists what an import needs"
        )


def _check_size(members: list[ZipInfo]) -> None:
    size = sum(member.file_size for member in members)
    have = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if size > have:
        raise ValueError(f"its arrays take {size:,} bytes, this machine has {have:,}")


def _check_count(data: bytes, count: int) -> None:
    """Hold the members that were found against the number at the end of the file, as
    zipfile does not.
    """
    (told,) = struct.unpack_from("<H", data, data.rfind(b"PK\x05\x06") + 10)
    if told != min(count, 0xFFFF):
        raise ValueError(f"it has {told} members by its own account, and {count} are found")


def _array(archive: ZipFile, member: ZipInfo) -> Array:
    """One array, whose header is held against what there is of it before numpy makes
    anything of either.
    """
    with archive.open(member) as file:
        version = np.lib.format.read_magic(file)
        read: Any = (
            np.lib.format.read_array_header_1_0
            if version == (1, 0)
            else np.lib.format.read_array_header_2_0
        )
        shape, fortran, dtype = read(file)
        if dtype.hasobject:
            raise ValueError(f"{member.filename} holds Python objects")
        data = file.read()
    if math.prod(shape) * dtype.itemsize != len(data):
        raise ValueError(
            f"{member.filename} says that it is {dtype} {list(shape)}, and has {len(data)} bytes"
        )
    array: Array = np.frombuffer(data, dtype).reshape(shape, order="F" if fortran else "C")
    return array
