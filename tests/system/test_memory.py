"""The reward trainer's process keeps the memory that it frees."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

PROGRAM = """
import resource
import sys
import threading
import numpy as np
from rlhp.system.memory import keep_freed_memory

if sys.argv[1] == "keep":
    assert keep_freed_memory()

def work():
    for turn in range(60):
        if turn == 10:
            before = resource.getrusage(resource.RUSAGE_THREAD).ru_minflt
        # a few megabytes each, as a gradient step takes them
        arrays = [np.ones(700_000, np.float32) for _ in range(8)]
        del arrays
    print((resource.getrusage(resource.RUSAGE_THREAD).ru_minflt - before) // 50)

thread = threading.Thread(target=work)  # where the trainer fits
thread.start()
thread.join()
"""


@pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="the allocator that is told is glibc's"
)
def test_memory_that_was_freed_is_used_again_without_page_faults() -> None:
    faults = {
        how: int(
            subprocess.run(
                [sys.executable, "-c", PROGRAM, how], capture_output=True, text=True, check=True
            ).stdout
        )
        for how in ("plain", "keep")
    }
    assert faults["plain"] > 1000, "per turn: all pages anew"
    assert faults["keep"] < 20
