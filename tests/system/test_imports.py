"""Names of a user's own code: found beside the config, and one line for each way of not
being found.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from rlhp.config.schema import EnvConfig
from rlhp.envs.make import probe
from rlhp.system import imports


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working directory that is not on the import path; what is imported from it is
    forgotten.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path / "unrelated"))  # restores sys.path afterwards
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def test_a_file_in_the_working_directory_is_found_even_one_written_just_now(here: Path) -> None:
    with pytest.raises(ValueError, match="'my_parts' cannot be imported"):
        imports.load("my_parts:Thing", key="query.selection")
    (here / "my_parts.py").write_text("class Thing:\n    class Inner:\n        size = 3\n")
    assert imports.load("my_parts:Thing.Inner", key="query.selection").size == 3


def test_a_package_that_is_installed_is_found() -> None:
    assert imports.load("pathlib:Path", key="reward.module") is Path


@pytest.mark.parametrize(
    "name", ["", "no_colon", ":Name", "module:", "module:not a name", "module:a..b"]
)
def test_a_text_that_is_no_such_name_is_refused(name: str) -> None:
    with pytest.raises(
        ValueError, match=r"^reward\.module is named package\.module:Name, got "
    ) as caught:
        imports.load(name, key="reward.module")
    assert str(caught.value).endswith(repr(name))


@pytest.mark.parametrize(
    ("source", "why"),
    [
        (None, "ModuleNotFoundError: No module named 'broken_parts'"),
        ("1 / 0\n", "ZeroDivisionError: division by zero"),
        ("raise OSError('no\\ndisk')\n", "OSError: no disk"),
        ("def (:\n", "SyntaxError: invalid syntax"),
    ],
)
def test_a_module_that_cannot_be_imported_is_named_with_its_key(
    here: Path, source: str | None, why: str
) -> None:
    if source is not None:
        (here / "broken_parts.py").write_text(source)
    with pytest.raises(
        ValueError, match=r"^env\.id='broken_parts:Name': 'broken_parts' cannot be imported"
    ) as caught:
        imports.load("broken_parts:Name", key="env.id")
    assert why in str(caught.value)
    assert str(caught.value).endswith(
        f"it is looked for among the installed packages and in {here}"
    )
    assert "\n" not in str(caught.value)


def test_a_name_that_the_module_does_not_have_comes_with_the_nearest_one() -> None:
    with pytest.raises(
        ValueError, match=r"^env\.id='pathlib:Pathh': module 'pathlib' has no 'Pathh'; did you mean"
    ):
        imports.load("pathlib:Pathh", key="env.id")
    with pytest.raises(ValueError, match=r"has no 'qqqqqqqq'; .*pathlib.* is what was found$"):
        imports.load("pathlib:qqqqqqqq", key="env.id")


def test_an_environment_beside_the_config_needs_no_pythonpath(here: Path) -> None:
    (here / "my_line.py").write_text(
        (Path(__file__).parents[2] / "examples" / "line.py").read_text()
    )
    assert probe(EnvConfig(id="my_line:Line", max_episode_steps=7)).episode_limit == 7
