"""The server needs a Redis and nothing else of the run: no torch, no ray, no gym
environment.
"""

from __future__ import annotations

import subprocess
import sys

from tests.labeling.page.parts import ROOT


def test_a_server_imports_neither_torch_nor_ray() -> None:
    rooms = sorted((ROOT / "rlhp/labeling/page").glob("[!_]*.py"))
    modules = [f"rlhp.labeling.page.{path.stem}" for path in rooms] + [
        "rlhp.preferences.dataset",
        "rlhp.cli.labeling",
    ]
    program = (
        f"import sys, {', '.join(modules)}; print(sorted({{'torch', 'ray'}} & set(sys.modules)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"
