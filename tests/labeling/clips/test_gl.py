"""Which OpenGL draws here, tried for real."""

from __future__ import annotations

import os

import pytest

from rlhp.labeling.clips import gl

needs_gl = pytest.mark.skipif(
    not (gl.works("egl") or gl.works("osmesa")),
    reason=f"no OpenGL draws here without a screen: apt install {gl.PACKAGES['egl']}",
)


@pytest.fixture
def nothing_works(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gl, "works", lambda backend: False)


@needs_gl
def test_the_first_that_works_is_the_best(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MUJOCO_GL", raising=False)
    assert gl.best() == ("egl" if gl.works("egl") else "osmesa")


@needs_gl
def test_one_that_was_named_is_taken_where_it_works(monkeypatch: pytest.MonkeyPatch) -> None:
    for backend in ("egl", "osmesa"):
        if gl.works(backend):
            assert gl.best(backend) == backend
            monkeypatch.setenv("MUJOCO_GL", backend)
            assert gl.best() == backend


@pytest.mark.usefixtures("nothing_works")
def test_without_any_the_schematic_view_remains(caplog: pytest.LogCaptureFixture) -> None:
    assert gl.best() == gl.best("schematic") == "schematic"
    assert "apt install libegl1 libopengl0 libgl1-mesa-dri cures it" in caplog.text


@pytest.mark.usefixtures("nothing_works")
def test_one_that_was_named_and_does_not_work_is_refused_with_the_packages_it_needs() -> None:
    words = (
        "clips.backend=osmesa does not work on this machine; apt install libosmesa6, or set "
        "clips.backend=auto"
    )
    with pytest.raises(ValueError, match=words):
        gl.best("osmesa")


def test_a_backend_that_crashes_does_not_work() -> None:
    assert not gl.works("no such thing")


def test_a_process_is_told_before_it_imports_mujoco(monkeypatch: pytest.MonkeyPatch) -> None:
    for backend, told in (("egl", "egl"), ("osmesa", "osmesa"), ("schematic", "disable")):
        monkeypatch.setenv("MUJOCO_GL", "glfw")
        gl.use(backend)  # type: ignore[arg-type]
        assert os.environ["MUJOCO_GL"] == told
