"""imitation's own virtual environment, `.bench/imitation`: made when missing, called
with one JSON line as the answer.

ready()                                    # minutes at first, then nothing
call("train", "--task", "pendulum")        # benchmarks/imitation_peer/train.py, in
there
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from benchmarks.imitation_peer.settings import REQUIREMENTS

ROOT = Path(__file__).parents[2]
VENV = ROOT / ".bench" / "imitation"
PYTHON = VENV / "bin" / "python"


def made() -> bool:
    """Whether the environment is there, with the versions that are pinned now."""
    return _stamp().exists() and PYTHON.exists()


def ready() -> None:
    """Make it unless it is there. TORCH_INDEX, as for `make setup`, says where else
    torch may come from.
    """
    if made():
        return
    print(
        f"making {VENV.relative_to(ROOT)}: imitation 1.0.1 and what it needs, some 2 GB", flush=True
    )
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(VENV)], check=True)
    pip = [str(PYTHON), "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    # first and alone, as in the Makefile: on the default index even a CPU machine gets
    # the CUDA packages
    torch = next(
        line
        for line in REQUIREMENTS.read_text(encoding="utf-8").splitlines()
        if line.startswith("torch==")
    )
    index = os.environ.get("TORCH_INDEX")
    subprocess.run(
        [*pip, "--no-deps", *(["--extra-index-url", index] if index else []), torch], check=True
    )
    subprocess.run([*pip, "-r", str(REQUIREMENTS)], check=True)
    _stamp().touch()


def call(module: str, *arguments: str) -> dict[str, Any]:
    """Run a module of this package in there; its last line is the answer, plus
    `process_seconds` and `started`.
    """
    return timed([str(PYTHON), "-m", f"benchmarks.imitation_peer.{module}", *arguments])


def timed(command: Sequence[str]) -> dict[str, Any]:
    """Run a process of this project whose last line of output is JSON, and add what it
    took from start to exit.

    RuntimeError with the end of what it said, if it fails.
    """
    # one thread each: with networks this small a second one only waits, and both sides
    # get the same
    settings = {
        "OMP_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
        "TQDM_DISABLE": "1",
        "PYTHONPATH": str(ROOT),
    }
    started, clock = time.time(), time.monotonic()
    ended = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **settings}, capture_output=True, text=True
    )
    if ended.returncode:
        raise RuntimeError(
            f"{' '.join(command)} ended with {ended.returncode}:\n{ended.stderr[-2000:]}"
        )
    answer: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    return {**answer, "started": started, "process_seconds": time.monotonic() - clock}


def _stamp() -> Path:
    pinned = sha256(REQUIREMENTS.read_bytes()).hexdigest()[:16]
    return VENV / f".made-{pinned}"
