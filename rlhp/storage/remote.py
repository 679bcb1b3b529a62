"""Copies of checkpoints at a place that outlives the machine: a bucket, or a directory
of another disk.

    <store>/<run>/step-000050000/{algorithm.pt, policy.pt, ..., rlhp.json}

`rlhp.json` goes last and names every file with its digest, so what was cut short is not
taken for a checkpoint. Copying is done by a thread of its own and never holds the run
up: a place that is away is tried again with the next one.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from rlhp.errors import RlhpError, Unreachable
from rlhp.files import new_directory, write_whole

log = logging.getLogger(__name__)

FACTS = "rlhp.json"
SCHEMES = ("file:///", "s3://", "gs://")


class Mirror:
    """The copies of one run's checkpoints below a URL that pyarrow can write to."""

    def __init__(self, url: str, run: str) -> None:
        """RlhpError for a URL that is no such place."""
        if not url.startswith(SCHEMES):
            raise RlhpError(
                "checkpoint.store is file:///directory, s3://bucket/prefix or "
                f"gs://bucket/prefix, got {url!r}"
            )
        place, mark, options = url.partition("?")  # of S3: region, endpoint_override and the like
        self.place = f"{place.rstrip('/')}/{run}"
        self._filesystem, self._path = filesystem(
            self.place + mark + options, key="checkpoint.store"
        )
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint mirror")
        self._last: Future[None] | None = None
        self._away = False

    def follow(self, present: Sequence[Path]) -> None:
        """Make the copies those of these checkpoints, soon; one that lies there already
        is not copied again.
        """
        self._last = self._thread.submit(self._copy, list(present))

    def close(self) -> None:
        """Wait for the last copy."""
        if self._last is not None:
            self._last.result()

    def fetch(self, directory: Path, *, newer_than: str) -> Path | None:
        """Bring the newest finished copy here if its name comes after; ConnectionError
        where the place is away.
        """
        try:
            names = [name for name in self._finished() if name > newer_than]
            if not names:
                return None
            name, files = names[-1], self._files(names[-1])
        except OSError as error:
            raise self._unreadable(error) from error
        shutil.rmtree(directory / name, ignore_errors=True)
        with new_directory(directory / name) as aside:
            for file in files:
                write_whole(aside / file, self._bytes(f"{name}/{file}"))
        return directory / name

    def _bytes(self, file: str) -> bytes:
        try:
            with self._filesystem.open_input_stream(f"{self._path}/{file}") as stream:
                return bytes(stream.read())
        except OSError as error:
            raise self._unreadable(error) from error

    def _unreadable(self, error: OSError) -> Unreachable:
        return Unreachable(f"checkpoints cannot be read from {self.place}: {_line(error)}")

    def _copy(self, present: list[Path]) -> None:
        try:
            there = set(self._finished())
            for path in present:
                if path.name not in there or not self._same(path):
                    self._put(path)
            for name in there - {path.name for path in present}:
                # first: then it is none any more
                self._filesystem.delete_file(f"{self._path}/{name}/{FACTS}")
                self._filesystem.delete_dir(f"{self._path}/{name}")
            self._away = False
        except OSError as error:
            level = logging.DEBUG if self._away else logging.WARNING
            log.log(
                level,
                "checkpoints are not copied to %s: %s; tried again with the next",
                self.place,
                _line(error),
            )
            self._away = True

    def _put(self, path: Path) -> None:
        folder = f"{self._path}/{path.name}"
        if self.place.startswith("file:"):
            self._filesystem.create_dir(folder, recursive=True)
        names = sorted((file.name for file in path.iterdir()), key=lambda name: name == FACTS)
        for name in names:
            with self._filesystem.open_output_stream(f"{folder}/{name}") as stream:
                stream.write((path / name).read_bytes())

    def _same(self, path: Path) -> bool:
        with self._filesystem.open_input_stream(f"{self._path}/{path.name}/{FACTS}") as stream:
            return bool(stream.read() == (path / FACTS).read_bytes())

    def _finished(self) -> list[str]:
        """Names of the copies that are all there, oldest first."""
        from pyarrow.fs import FileSelector

        found = self._filesystem.get_file_info(
            FileSelector(self._path, allow_not_found=True, recursive=True)
        )
        return sorted(
            Path(info.path).parent.name
            for info in found
            if info.is_file and info.base_name == FACTS
        )

    def _files(self, name: str) -> list[str]:
        from pyarrow.fs import FileSelector

        found = self._filesystem.get_file_info(FileSelector(f"{self._path}/{name}"))
        return [info.base_name for info in found if info.is_file]


def filesystem(url: str, *, key: str) -> tuple[Any, str]:
    """What reaches a store, and the path in it; RlhpError, which names the key, where
    pyarrow knows no such place.
    """
    # a quarter of a second that a run without a store should not pay
    from pyarrow.fs import FileSystem

    try:
        found: tuple[Any, str] = FileSystem.from_uri(url)
    except (ValueError, OSError) as error:
        raise RlhpError(f"{key}={url!r} cannot be used: {_line(error)}") from None
    return found


def _line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
