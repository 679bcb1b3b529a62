"""Classes that no module holds: kept for this user's other processes, and read by nobody
else.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from rlhp.errors import RlhpError
from rlhp.system import imports, objects


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RLHP_SECRETS_DIR", str(tmp_path))
    return tmp_path


def made_here() -> type:
    class Counter:
        """Nobody can import it."""

        start = 3

        def __init__(self, more: int = 0) -> None:
            self.value = self.start + more

    return Counter


def test_another_process_makes_what_was_kept(home: Path) -> None:
    name = objects.keep(made_here(), key="env.id")
    program = f"""
from rlhp.system import imports
print(imports.load({name!r}, key="env.id")(more=4).value)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout == "7\n"
    assert [file.stat().st_mode & 0o777 for file in (home / "objects").iterdir()] == [0o600]


def test_what_is_made_already_is_given_whatever_it_is_called_with() -> None:
    name = objects.keep(made_here()(more=2), key="labels.teacher.name")
    assert imports.load(name, key="labels.teacher.name")(seed=1).value == 5


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda file: file.unlink(), r"env\.id=rlhp_objects:Counter_\w+ .*package\.module:Name"),
        (lambda file: file.chmod(0o666), "somebody else"),
        (lambda file: file.write_bytes(file.read_bytes() + b"x"), "train again"),
    ],
    ids=["gone", "writable by others", "changed"],
)
def test_a_file_that_is_not_ours_is_not_read(home: Path, harm: object, said: str) -> None:
    name = objects.keep(made_here(), key="env.id")
    (file,) = (home / "objects").iterdir()
    assert callable(harm)
    harm(file)
    with pytest.raises(RlhpError, match=said):
        imports.load(name, key="env.id")


def test_a_name_that_leads_elsewhere_is_refused(home: Path) -> None:
    with pytest.raises(RlhpError, match=r"package\.module:Name"):
        imports.load("rlhp_objects:..", key="env.id")
    with pytest.raises(RlhpError, match="keeps no copy"):
        imports.load("rlhp_objects:Counter", key="env.id")
