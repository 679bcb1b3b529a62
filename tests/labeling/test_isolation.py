"""A labeler is a light process: it starts without the libraries that train."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("torch", "ray", "gymnasium", "pyarrow", "matplotlib")


@pytest.mark.parametrize("module", ["rlhp.labeling.worker", "rlhp.labeling.teachers"])
def test_a_fresh_interpreter_loads_nothing_heavy(module: str) -> None:
    code = f"import sys, {module}; print(*[name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.split(), done.stderr) == (0, [], "")
