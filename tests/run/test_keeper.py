"""A killed run is resumed, an ended one is not; the run's process is a script here that
dies as told.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from rlhp.run import children
from rlhp.storage.rundir import RunDir
from tests.small_runs import small

SCRIPT = """#!/bin/sh
echo "$@" >> {folder}/starts
n=$(wc -l < {folder}/starts)
{then}
"""


def kept(
    folder: Path, monkeypatch: pytest.MonkeyPatch, then: str, *, most: int = 2
) -> tuple[int, list[str], list[str]]:
    """Exit code, what was said, and what was started; `then` is what the n-th start
    does.
    """
    rundir = RunDir.create(small(runs_dir=str(folder)), "small")
    script = folder / "python"
    script.write_text(
        SCRIPT.format(folder=folder, then=then.replace("METRICS", str(rundir.metrics_file)))
    )
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))
    monkeypatch.setattr(children, "PAUSE_SECONDS", 0.01)
    said: list[str] = []
    code = children.keep(rundir, most=most, say=said.append, options=["--serial"])
    starts = (folder / "starts").read_text().splitlines()
    assert set(starts) == {f"-m rlhp train --resume {rundir.path} --serial"}
    return code, said, starts


@pytest.mark.parametrize("code", [0, 1, 130])
def test_what_ends_by_itself_stays_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    ended, said, starts = kept(tmp_path, monkeypatch, f"exit {code}")
    assert (ended, said, len(starts)) == (code, [], 1)


def test_a_killed_run_is_resumed_as_long_as_it_gets_further(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    then = '[ $n = 6 ] && exit 0\necho "{\\"env_steps\\": $n}" >> METRICS\nkill -9 $$'
    code, said, starts = kept(tmp_path, monkeypatch, then)
    assert (code, len(starts)) == (0, 6)
    assert said[0] == (
        "the run's process was killed (SIGKILL) after 1 env steps: it goes on from its last "
        "checkpoint"
    )


def test_one_that_dies_at_the_same_step_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, said, starts = kept(tmp_path, monkeypatch, "kill -9 $$")
    assert (code, len(starts)) == (1, 3)
    assert "3 times in a row without a new one (ray.max_restarts=2); see " in said[-1]
