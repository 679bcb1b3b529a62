"""A writer that is killed at each step of merging parts, one after the other, each time
with a copy of the dataset.

    python -m tests.preferences.killed_compaction DATASET FOLDER     prints how many copies it made

They are FOLDER/0, FOLDER/1, and so on; the writer of the last one was not killed. A
step is a call that changes the disk.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rlhp.preferences import parts
from rlhp.preferences.dataset import PreferenceDataset
from tests.preferences.dataset_samples import answer, segment

MERGED = 3
NEXT = 1000
"""Number of the segments that each writer adds."""


def killed_after(step: int) -> None:
    """From now on this process kills itself instead of its next change of the disk but
    so many.
    """
    left = step

    def counted(change: Callable[..., Any]) -> Callable[..., Any]:
        def changed(*args: Any, **more: Any) -> Any:
            nonlocal left
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left -= 1
            return change(*args, **more)

        return changed

    for module, name in ((os, "fsync"), (os, "replace"), (os, "unlink"), (os, "rename")):
        setattr(module, name, counted(getattr(module, name)))


def write(path: Path) -> None:
    """Add an answer, whose parts make the merging due."""
    parts.MERGED = MERGED
    dataset = PreferenceDataset.open(path)
    first, second = segment(NEXT), segment(NEXT + 1)
    dataset.add_segments([first, second])
    dataset.add_events([answer(first, second)])


def main(source: Path, folder: Path) -> int:
    """How many copies were made."""
    step = 0
    while True:
        shutil.copytree(source, folder / str(step))
        child = os.fork()
        if child == 0:
            killed_after(step)
            write(folder / str(step))
            os._exit(0)
        _, status = os.waitpid(child, 0)
        step += 1
        if status == 0:
            return step
        assert os.WIFSIGNALED(status), status
        assert os.WTERMSIG(status) == signal.SIGKILL, status


if __name__ == "__main__":
    print(main(Path(sys.argv[1]), Path(sys.argv[2])))
