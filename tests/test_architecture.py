"""What no single test of a room can see: import direction, doors, and what must appear
in no file.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCES = sorted((ROOT / "rlhp").rglob("*.py"))
LONGEST_FUNCTION = 60

DOORS = {
    "redis": ["rlhp/queue/connection.py"],
    "yaml": ["rlhp/config/yamlfile.py"],
    "ray.rllib": ["rlhp/rollout/", "rlhp/learn/"],
    "click": [
        "rlhp/cli/main.py",
        "rlhp/cli/cluster.py",
        "rlhp/cli/labeling.py",
        "rlhp/cli/data.py",
    ],
    "matplotlib": ["rlhp/monitor/plots.py"],
    "tensorboardX": ["rlhp/storage/tensorboard.py"],
}
"""Where a dependency may be imported; replacing it is then a change of these files
alone.
"""

PICKLES = {"pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}

# One-letter classes keep this file from finding itself.
FOREIGN = re.compile(
    # a registry's host: which one to use is the reader's affair
    r"pythonhosted\.or[g]|pypi\.or[g]|npmjs\.or[g]"
    r"|(?<![\w.])/(?:wor[k]|roo[t]|home/\w+/\.pyen[v])/"  # a path of the machine it was written on
    r"|/opt/(?:pyp[i]|wheel[s])"
)


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def imports(path: Path) -> Iterator[str]:
    """Every absolute module that `path` imports, at its top or inside a function."""
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module is not None:
            yield node.module


def within(module: str, package: str) -> bool:
    return module == package or module.startswith(package + ".")


def project() -> dict[str, list[str]]:
    """Requirements of pyproject.toml without markers: name -> [requirement], `base` and
    each extra alike.
    """
    table = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return {"base": table["dependencies"], **table["optional-dependencies"]}


def distribution(requirement: str) -> str:
    """The normalized name a requirement begins with."""
    name = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert name is not None, requirement
    return re.sub(r"[-_.]+", "-", name[0]).lower()


def test_imports_go_one_way() -> None:
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def test_a_labeler_needs_neither_torch_nor_ray() -> None:
    # import-linter reads import statements of modules; only an import shows what
    # packages pull in around them.
    rooms = [*(ROOT / "rlhp/labeling").glob("[!_]*.py"), ROOT / "rlhp/queue/queue.py"]
    modules = [".".join(Path(relative(path)).with_suffix("").parts) for path in sorted(rooms)]
    program = (
        f"import sys, {', '.join(modules)}; print(sorted({{'torch', 'ray'}} & set(sys.modules)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"


@pytest.mark.parametrize("package", DOORS)
def test_a_dependency_enters_through_its_door(package: str) -> None:
    doors = DOORS[package]
    strangers = [
        relative(path)
        for path in SOURCES
        if any(within(module, package) for module in imports(path))
        and not relative(path).startswith(tuple(doors))
    ]
    assert strangers == [], f"{package} is imported outside {doors}"


def test_a_learner_is_known_by_its_interface_and_by_its_name_alone() -> None:
    strangers = [
        relative(path)
        for path in SOURCES
        if not relative(path).startswith("rlhp/learn/ppo/")
        and any(within(module, "rlhp.learn.ppo") for module in imports(path))
    ]
    assert strangers == ["rlhp/learn/registry.py"]


def test_every_import_is_a_declared_dependency() -> None:
    requirements = project()
    declared = {distribution(line) for extra in ("base", "envs") for line in requirements[extra]}
    owners = packages_distributions()
    undeclared = {
        f"{relative(path)}: {module}"
        for path in SOURCES
        for module in {name.partition(".")[0] for name in imports(path)}
        - sys.stdlib_module_names
        - {"rlhp"}
        if not declared & {distribution(owner) for owner in owners.get(module, [module])}
    }
    assert undeclared == set()


def test_exact_versions_are_the_constraints() -> None:
    constraints = dict(
        line.split("==")
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if not line.startswith("#")
    )
    pins = [
        line.split(";")[0].strip()
        for extra in project().values()
        for line in extra
        if "==" in line.split(";")[0]
    ]
    wrong = [pin for pin in pins if constraints.get(distribution(pin)) != pin.split("==")[1]]
    assert wrong == [], "run make constraints"


def test_no_pickle_crosses_a_border() -> None:
    importers = [
        relative(path)
        for path in SOURCES
        if PICKLES & {name.partition(".")[0] for name in imports(path)}
    ]
    assert importers == ["rlhp/system/objects.py"], "from this user's own directory, to the same"


def test_no_file_is_loaded_as_a_pickle() -> None:
    unsafe = {("allow_pickle", True), ("weights_only", False)}
    calls = [
        f"{relative(path)}:{node.lineno}"
        for path in SOURCES
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.Call)
        for keyword in node.keywords
        if isinstance(keyword.value, ast.Constant) and (keyword.arg, keyword.value.value) in unsafe
    ]
    assert calls == []


def test_no_module_is_named_after_nothing() -> None:
    nameless = {"utils", "util", "common", "base", "helpers", "misc"}
    assert [
        relative(path) for path in SOURCES if {path.stem, *path.relative_to(ROOT).parts} & nameless
    ] == []


def test_every_module_says_what_it_is() -> None:
    mute = [
        relative(path)
        for path in SOURCES
        if parsed(path).body and not ast.get_docstring(parsed(path))
    ]
    assert mute == []


def test_every_function_can_be_read_at_a_glance() -> None:
    lengths = {
        f"{relative(path)}: {node.name}": length
        for path in SOURCES
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (length := (node.end_lineno or 0) - node.lineno + 1) > LONGEST_FUNCTION
    }
    assert lengths == {}


@pytest.mark.optional
def test_tracked_files_name_no_machine_and_no_registry() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    found = [
        f"{name}:{number}: {line.strip()[:80]}"
        for name in listed.split("\0")
        if (path := ROOT / name).is_file()
        for number, line in enumerate(
            path.read_text(encoding="utf-8", errors="replace").splitlines(), start=1
        )
        if FOREIGN.search(line)
    ]
    assert found == []
