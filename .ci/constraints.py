"""Write constraints.txt: one version of every distribution that any extra needs, on any
platform we name.

Versions only. Hashes would refuse the torch build of another index, and so would a
local suffix (torch==2.13.0+cpu): a machine with a GPU could then install nothing.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / "constraints.txt"
HEADER = """\
# Versions that were resolved together and tested. Written by `make constraints`;
# change pyproject.toml instead.
# Without hashes and local suffixes, so that torch may come from the CPU or from any CUDA index.
"""
CUDA = re.compile(r"nvidia-|cuda-|triton$")
"""What torch pulls unless it comes from the CPU index. Torch pins these itself."""


def requirements() -> list[str]:
    """All of pyproject.toml without markers: each branch of each marker gets its
    version.
    """
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [
        *project["dependencies"],
        *(line for extra in project["optional-dependencies"].values() for line in extra),
    ]
    return [line.split(";")[0].strip() for line in wanted]


def resolve(wanted: list[str]) -> dict[str, str]:
    """Name to version, as pip would install `wanted` into an empty environment of this
    Python.
    """
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--dry-run",
        "--ignore-installed",
        "--report",
        "-",
    ]
    report = json.loads(
        subprocess.run([*command, *wanted], check=True, stdout=subprocess.PIPE).stdout
    )
    metadata = [item["metadata"] for item in report["install"]]
    return {
        re.sub(r"[-_.]+", "-", item["name"]).lower(): item["version"].split("+")[0]
        for item in metadata
    }


def main() -> None:
    versions = resolve(requirements())
    lines = [
        f"{name}=={version}\n" for name, version in sorted(versions.items()) if not CUDA.match(name)
    ]
    TARGET.write_text(HEADER + "".join(lines))
    print(f"{TARGET.name}: {len(lines)} versions")


if __name__ == "__main__":
    main()
