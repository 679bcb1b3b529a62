"""Every command on one small run that the command line itself has trained."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from rlhp.cli import main
from rlhp.config import loading
from rlhp.learn.checkpoint import Checkpoints
from rlhp.storage.rundir import RunDir
from tests.small_runs import SMALL

ROOT = Path(__file__).parents[2]
TINY = ("--set", "learner.total_env_steps=180", "--set", "labels.initial_share=0.25")
RAW: dict[str, Any] = {**SMALL["learner"], "normalize_obs": False, "total_env_steps": 120}


def config_file(folder: Path, **changes: Any) -> Path:
    file = folder / "tiny.yaml"
    file.write_text(yaml.dump({**SMALL, "runs_dir": str(folder / "runs"), **changes}))
    return file


def trained(file: Path, *arguments: str) -> tuple[int, list[str]]:
    """Exit code and lines of `rlhp train FILE --serial`."""
    out = StringIO()
    with redirect_stdout(out):
        code = main.run(["train", str(file), "--serial", *arguments])
    return code, out.getvalue().splitlines()


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory, ray_session: None) -> tuple[RunDir, list[str]]:
    """A run named `tiny`, and what was printed about it."""
    folder = tmp_path_factory.mktemp("commands")
    code, lines = trained(config_file(folder), "--name", "tiny", *TINY)
    assert code == 0
    return RunDir.open(folder / "runs" / "tiny"), lines


def said(capsys: pytest.CaptureFixture[str], *arguments: object) -> list[str]:
    """Lines of a command that succeeds."""
    capsys.readouterr()
    assert main.run([str(word) for word in arguments]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return list(out.splitlines())


def test_train_tells_where_the_run_is_how_it_goes_and_how_it_ended(
    tiny: tuple[RunDir, list[str]],
) -> None:
    rundir, lines = tiny
    assert lines[0] == lines[-1] == f"run directory: {rundir.path}"
    assert any(line.startswith("reward version 1 after 60 env steps") for line in lines)
    assert any(line.startswith("finished after 180 env steps in ") for line in lines)
    assert rundir.info().state == "finished"


def test_train_goes_on_where_the_run_was(
    tiny: tuple[RunDir, list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    rundir, _ = tiny
    lines = said(
        capsys, "train", "--resume", rundir.path, "--serial", "--set", "learner.total_env_steps=240"
    )
    assert any(line.startswith("finished after 240 env steps in ") for line in lines)
    assert rundir.config().learner.total_env_steps == 240


def test_eval_plays_the_newest_policy(
    tiny: tuple[RunDir, list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    rundir, _ = tiny
    lines = said(capsys, "eval", rundir.path, "--episodes", 3, "--seed", 5)
    found = dict(line.split(": ") for line in lines)
    newest = Checkpoints(rundir.checkpoints, keep=2).newest()
    assert newest is not None
    assert (found["checkpoint"], found["episodes"], found["episode_length_mean"]) == (
        newest.name,
        "3",
        "20.000",
    )
    assert float(found["true_return_mean"]) < 0
    assert said(capsys, "eval", rundir.path, "--episodes", 3, "--seed", 5) == lines, (
        "by the same seed the same"
    )
    explored = said(capsys, "eval", rundir.path, "--episodes", 3, "--seed", 5, "--explore")
    assert explored[2] != lines[2]


@pytest.mark.usefixtures("ray_session")
def test_eval_of_a_run_that_never_normalized(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _ = trained(config_file(tmp_path, learner=RAW, labels={"source": "none"}))
    assert code == 0
    (name, *_) = said(capsys, "eval", tmp_path / "runs" / "small", "--episodes", 1)
    assert name == "checkpoint: step-000000120"


def test_eval_of_a_run_without_a_policy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rundir = RunDir.create(loading.load(config_file(tmp_path)), "tiny")
    assert main.run(["eval", str(rundir.path)]) == 2
    assert (
        "no checkpoint yet, so there is no policy to play; let the run go on"
        in capsys.readouterr().err
    )


def test_status_says_that_the_run_is_over(
    tiny: tuple[RunDir, list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    rundir, _ = tiny
    lines = said(capsys, "status", rundir.path)
    assert lines[0].startswith("tiny finished ")
    assert f"see rlhp eval {rundir.path}" in lines[0]
    assert any(line.split()[:2] == ["reward", "version"] for line in lines)


def test_plot_draws_the_run(
    tiny: tuple[RunDir, list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rundir, _ = tiny
    files = [
        Path(line) for line in said(capsys, "plot", rundir.path, "--out", tmp_path / "pictures")
    ]
    assert {file.name for file in files} == {"learning_curves.png", "reward_diagnostics.png"}
    assert all(file.read_bytes().startswith(b"\x89PNG") for file in files)


@pytest.mark.parametrize("form", ["npz", "parquet", "jsonl"])
def test_export_writes_every_preference(
    form: str, tiny: tuple[RunDir, list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rundir, _ = tiny
    out = tmp_path / f"preferences.{form}"
    (line,) = said(capsys, "export", rundir.path, "--to", form, "--out", out)
    count = int(line.partition(": ")[2].split()[0])
    assert line.startswith(f"{out}: {count} preferences (0 incomparable), ")
    assert count >= 5
    if form == "npz":
        with np.load(out) as arrays:
            assert {len(arrays[name]) for name in arrays.files if arrays[name].ndim} >= {count}
    elif form == "jsonl":
        assert len([json.loads(row) for row in out.read_text().splitlines()]) == count
    else:
        assert list(out.rglob("*.parquet"))


def test_label_finds_a_run_that_is_over(
    tiny: tuple[RunDir, list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    rundir, _ = tiny
    assert main.run(["label", str(rundir.path)]) == 2
    assert (
        "the run is finished, and its embedded Redis, which held the queue, ended with it"
        in capsys.readouterr().err
    )


def test_a_run_that_never_left_its_warm_up_is_no_failure(tmp_path: Path, ray_session: None) -> None:
    code, lines = trained(config_file(tmp_path), "--set", "learner.total_env_steps=30")
    assert code == 0
    assert any(line.startswith("warning: the policy was never trained: all ") for line in lines)


def test_the_version_is_said_with_and_without_an_installation(tmp_path: Path) -> None:
    code = "import sys; from importlib import metadata; from rlhp.cli import main as cli\n"
    missing = "def none(name): raise metadata.PackageNotFoundError(name)\nmetadata.version = none\n"
    for source, words in (
        (code, "rlhp "),
        (code + missing, f"rlhp is not installed: it runs from the checkout in {ROOT}"),
    ):
        program = source + "sys.exit(cli.run(['--version']))"
        done = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=False
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith(words)
        assert words == "rlhp " or done.stdout == f"{words}\n"


OURS = (
    "run directory: ",
    "episodes of ",
    "reward version 1 ",
    "finished after ",
    "true return: ",
    "labels: ",
    "plot: ",
    "checkpoint: ",
    "episodes: ",
    "true_return_mean: ",
    "true_return_std: ",
    "episode_length_mean: ",
    "no video of the policy",
)


@pytest.mark.slow
def test_nothing_but_our_own_lines_reaches_the_terminal(tmp_path: Path) -> None:
    file = config_file(tmp_path)
    runs = [
        [
            "train",
            str(file),
            "--set",
            "learner.total_env_steps=120",
            "--set",
            "rollout.num_env_runners=1",
        ],
        ["eval", str(tmp_path / "runs" / "small"), "--episodes", "1"],
    ]
    for arguments in runs:
        command = [sys.executable, "-m", "rlhp", *arguments]
        done = subprocess.run(
            command, capture_output=True, text=True, cwd=ROOT, check=False, timeout=200
        )
        assert (done.returncode, done.stderr) == (0, "")
        foreign = [
            line
            for line in done.stdout.splitlines()
            if not line.startswith(OURS) and " steps | " not in line
        ]
        assert foreign == []
