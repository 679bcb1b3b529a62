"""Figures of the package's arrangement, one per line, for comparing two commits.

    python .ci/house.py          # of this checkout

Files without a line are not counted. A file is imported by another one where any
statement of that one names it, at its top or inside a function.
"""

from __future__ import annotations

import graphlib
import statistics
import sys
import tomllib
from collections import Counter
from pathlib import Path

import grimp

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "rlhp"


def files() -> dict[str, int]:
    """Lines of each non-empty module, by its dotted name."""
    found = {}
    for path in (ROOT / PACKAGE).rglob("*.py"):
        lines = path.read_text(encoding="utf-8").count("\n")
        if lines:
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = lines
    return found


def edges(modules: dict[str, int]) -> dict[str, set[str]]:
    """Module -> modules of ours that it imports."""
    graph = grimp.build_graph(PACKAGE, cache_dir=None)
    return {
        module: {
            other for other in graph.find_modules_directly_imported_by(module) if other in modules
        }
        for module in modules
    }


def rooms(modules: dict[str, int]) -> set[str]:
    """Folders of the package that hold modules, nested ones too."""
    return {module.rpartition(".")[0] for module in modules} - {PACKAGE, ""}


def cycle(imports: dict[str, set[str]]) -> str:
    """One cycle of imports, in words."""
    try:
        list(graphlib.TopologicalSorter(imports).static_order())
    except graphlib.CycleError as error:
        return " -> ".join(error.args[1])
    return "none"


def main() -> None:
    """Print the figures."""
    sys.path.insert(0, str(ROOT))
    modules = files()
    imports = edges(modules)
    importers = Counter(other for each in imports.values() for other in each)
    per_room = Counter(module.rpartition(".")[0] for module in modules)
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"][
        "importlinter"
    ]
    figures = {
        "files": len(modules),
        "files at the root": per_room[PACKAGE],
        "lines": sum(modules.values()),
        "median lines of a file": statistics.median(modules.values()),
        "most lines of a file": max(modules.values()),
        "files under 60 lines": sum(lines < 60 for lines in modules.values()),
        "files that one other file imports": sum(importers[module] == 1 for module in modules),
        "rooms": len(rooms(modules)),
        "most files of a room": max(count for room, count in per_room.items() if room != PACKAGE),
        "layers": len(contracts["contracts"][0]["layers"]),
        "imports between files": sum(map(len, imports.values())),
        "cycle": cycle(imports),
    }
    for name, value in figures.items():
        print(f"{name:36} {value}")


if __name__ == "__main__":
    main()
