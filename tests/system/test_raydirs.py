"""The directories that Ray needs: what is wrong with them is known before Ray is
imported.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from rlhp.cli import doctor
from rlhp.errors import RlhpError
from rlhp.system import ray_setup

UNKNOWN_USER = """
import os, pathlib, sys
def homeless(*_):
    raise RuntimeError("Could not determine home directory.")
# before other imports, as for a user whom no file names
pathlib.Path.home = pathlib.Path.expanduser = homeless
from rlhp.cli import doctor
for check in doctor.examine(sys.argv[1]):
    print(check)
"""


def homeless() -> Path:
    raise RuntimeError("Could not determine home directory.")


def test_no_home_directory_is_refused_with_the_variable_to_set(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Path, "home", homeless)
    with pytest.raises(RlhpError, match=r"no home directory.*set HOME"):
        ray_setup.refuse(starts_ray=False)
    found = list(doctor.directories())
    assert ("fail", "set HOME to a directory that can be written") in [
        (each.level, each.way_out) for each in found
    ]


def test_a_home_that_cannot_be_written_is_refused_where_ray_would_write_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    home.write_text("a file, in which nobody makes a directory, not even root")
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(home))
    ray_setup.refuse(starts_ray=False)
    with pytest.raises(
        RlhpError, match=rf"{home}/.ray, which cannot be written \(Not a directory\); set HOME"
    ):
        ray_setup.refuse(starts_ray=True)
    monkeypatch.setenv("RAY_AUTH_TOKEN", "said elsewhere")
    ray_setup.refuse(starts_ray=True)


@pytest.mark.parametrize("name", ["TMPDIR", "RAY_TMPDIR"])
def test_a_temporary_directory_that_no_socket_fits_below_is_refused(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setenv(name, "/tmp/" + "long" * 20)
    with pytest.raises(
        RlhpError, match=r"/tmp/longlong.*85 bytes long.*set RAY_TMPDIR to a shorter one"
    ):
        ray_setup.refuse(starts_ray=True)
    ray_setup.refuse(starts_ray=False)


def test_nothing_that_was_tried_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("RAY_TMPDIR", "/tmp")
    ray_setup.refuse(starts_ray=True)
    assert list(tmp_path.iterdir()) == []


def test_a_config_cannot_be_examined_without_a_home_and_the_doctor_says_what_to_set(
    tmp_path: Path,
) -> None:
    file = tmp_path / "some.yaml"
    file.write_text("env: {id: Pendulum-v1}\n")
    said = subprocess.run(
        [sys.executable, "-c", UNKNOWN_USER, str(file)], capture_output=True, text=True, check=True
    )
    assert "no home directory" in said.stdout
    assert "set HOME" in said.stdout
