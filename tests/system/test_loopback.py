"""Every command that may start a Ray tells it to stay on loopback while that still
counts: before it is imported.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CODE = """
import sys
from rlhp.cli import main as cli
from rlhp.system import ray_setup

def told(config):
    raise SystemExit(f"ray imported: {'ray' in sys.modules}, joins: {config.ray.address}")

ray_setup.on_loopback = told
cli.run(sys.argv[1:])
"""


@pytest.mark.parametrize("words", [["train", "configs/demo.yaml"], ["compare", "configs/demo.yaml"],
                                   ["tune", "configs/sweeps/halfcheetah.yaml"]])  # fmt: skip
def test_ray_is_told_before_it_is_imported(words: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CODE, *words], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.stderr.strip() == "ray imported: False, joins: None"
