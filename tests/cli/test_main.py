"""The command line: quick help, one line per mistake, exit codes."""

from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest

from rlhp.cli import main as cli
from rlhp.cli import reference
from rlhp.config import loading
from rlhp.config.schema import TeacherConfig
from rlhp.errors import RlhpError
from rlhp.queue.embedded import EmbeddedRedis
from rlhp.queue.queue import QueryQueue
from rlhp.storage.metrics import MetricsWriter
from rlhp.storage.rundir import RunDir, State
from rlhp.system.logs import log_to

ROOT = Path(__file__).parents[2]


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    sets = [f"runs_dir={tmp_path / 'runs'}", "name=demo", "labels.teacher.name=mistake"]
    return RunDir.create(loading.parse({"env": {"id": "Pendulum-v1"}}, sets=sets), "demo")


def failing(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> int:
    def main(**_: Any) -> None:
        raise error

    monkeypatch.setattr(cli.rlhp, "main", main)
    return cli.run([])


def test_help_names_every_command_and_loads_nothing_heavy() -> None:
    code = (
        "import sys; from rlhp.cli.main import run; code = run(['--help'])\n"
        "heavy = {'ray', 'torch', 'pydantic', 'rich', 'redis', 'numpy', 'yaml', 'matplotlib'} & "
        "set(sys.modules)\n"
        "assert not heavy, heavy; sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.returncode == 0, done.stderr
    for name in ("train", "label", "status", "eval", "plot", "export", "doctor"):
        assert f"\n  {name} " in done.stdout


@pytest.mark.parametrize("command", sorted(cli.rlhp.commands))
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run([command, "--help"]) == 0
    assert "Usage: rlhp " in capsys.readouterr().out


def test_python_m_rlhp_is_rlhp() -> None:
    command = [sys.executable, "-m", "rlhp", "train"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 2
    assert "give a config file, or --resume RUN to continue a run, not both" in done.stderr


def test_every_problem_of_a_configuration_is_a_line_on_stderr(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("env: {id: E}\nfragment_length: 25\n")
    assert cli.run(["train", str(file), "--set", "learner.lr=-1"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "error: learner.lr: must be greater than 0, got -1 (--set learner.lr); the default is "
        "0.001",
        "error: fragment_length: unknown key, got 25 (a.yaml line 2); here it is called "
        "query.segment_length",
    ]


def test_an_unknown_environment_leaves_no_run_directory(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(f"env: {{id: Pendulumm-v1}}\nruns_dir: {tmp_path / 'runs'}\n")
    assert cli.run(["train", str(file)]) == 2
    assert "Pendulum-v1" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train", "--resume", "nowhere"], "nowhere: no such run directory"),
        (
            ["train", "a.yaml", "--resume", "b"],
            "give a config file, or --resume RUN to continue a run, not both",
        ),
        (["train", "--resume", "b", "--name", "c"], "--name is for a new run"),
        (["train", "nowhere.yaml"], "nowhere.yaml: no such config file"),
        (["status", "nowhere"], "nowhere: no such run directory"),
        (["plot", "nowhere"], "nowhere: no such run directory"),
        (["export", "nowhere", "--to", "npz", "--out", "x"], "nowhere: no such run directory"),
        (["eval", "nowhere"], "nowhere: no such run directory"),
        (["label"], "give a run directory, or the address of its queue with --redis URL, not both"),
        (["label", "--redis", "http://x", "--run", "a"], "a Redis address starts with redis://"),
        (["eval", "nowhere", "--seed", "-1"], "-1 is not in the range"),
        (["eval", "nowhere", "--seed", str(2**70)], f"{2**70} is not in the range"),
        (["label", "nowhere", "--seed", "-1"], "-1 is not in the range"),
        (["status", "--address", "head"], "ray.address is HOST:PORT"),
        (["trian"], "No such command 'trian'"),
    ],
)
def test_a_mistake_is_explained_and_exits_with_2(
    arguments: list[str],
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.run(arguments) == 2
    assert words in capsys.readouterr().err


def test_ctrl_c_exits_with_130(monkeypatch: pytest.MonkeyPatch) -> None:
    assert failing(KeyboardInterrupt(), monkeypatch) == 130
    assert failing(click.Abort(), monkeypatch) == 130


@pytest.mark.parametrize(
    "bug", [AssertionError("bug"), ValueError("a library's"), OSError("not of the disk")]
)
def test_an_error_of_ours_shows_its_traceback(
    bug: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert failing(bug, monkeypatch) == 1
    said = capsys.readouterr().err
    assert "Traceback" in said
    assert str(bug) in said
    assert "fault of rlhp" in said


def test_an_error_of_ours_in_a_run_has_its_traceback_in_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "run.log"
    with pytest.raises(KeyError) as caught, log_to(file, run="demo", who="driver"):
        raise KeyError("env_runners")
    assert failing(caught.value, monkeypatch) == 1
    said = capsys.readouterr().err
    assert "Traceback" not in said
    assert "env_runners" in said
    assert str(file) in said
    assert "Traceback" in file.read_text()
    assert "KeyError: 'env_runners'" in file.read_text()


def test_a_path_that_the_disk_refuses_is_a_mistake(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (
        failing(
            OSError(errno.ENOSPC, "No space left on device", "runs/demo/metrics.jsonl"), monkeypatch
        )
        == 2
    )
    assert "runs/demo/metrics.jsonl" in capsys.readouterr().err


def test_a_traceback_can_be_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RLHP_TRACEBACK", "1")
    with pytest.raises(RlhpError, match="mistake"):
        failing(RlhpError("mistake"), monkeypatch)


def test_an_error_from_another_process_is_told_like_one_of_this(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class RemoteError(Exception):
        cause = RlhpError("the rule; the way out")

    assert failing(RemoteError("forty lines"), monkeypatch) == 2
    assert capsys.readouterr().err == "error: the rule; the way out\n"


def test_label_needs_a_queue_that_was_started(
    run: RunDir, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["label", str(run.path)]) == 2
    assert (
        "its queue was never started; start the run with rlhp train first"
        in capsys.readouterr().err
    )


@pytest.mark.parametrize(("state", "way_out"), [("finished", False), ("interrupted", True)])
def test_label_and_serve_say_that_an_embedded_queue_ended_with_its_run(
    run: RunDir, capsys: pytest.CaptureFixture[str], state: State, way_out: bool
) -> None:
    with EmbeddedRedis(run.redis):
        pass
    run.update(state=state)
    for command in ("label", "serve"):
        assert cli.run([command, str(run.path)]) == 2
        said = capsys.readouterr().err
        assert f"{run.path}: the run is {state}" in said
        assert (f"rlhp train --resume {run.path}" in said) == way_out


def test_label_answers_until_the_run_is_closed(
    run: RunDir, capsys: pytest.CaptureFixture[str]
) -> None:
    with EmbeddedRedis(run.redis) as server:
        run.write_redis_url(server.url)
        queue = QueryQueue(server.url, run=run.name)
        queue.open(cap=5, config_sha256="x")
        queue.close()
        assert cli.run(["label", str(run.path), "--name", "ann"]) == 0
    assert "ann answers run demo as mistake" in capsys.readouterr().out


def test_export_of_a_run_without_preferences_is_a_mistake(
    run: RunDir, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["export", str(run.path), "--to", "npz", "--out", str(tmp_path / "x.npz")]) == 2
    assert str(run.preferences) in capsys.readouterr().err


def test_a_teacher_is_the_runs_own_unless_named() -> None:
    own = TeacherConfig(name="mistake", mistake=0.3)
    assert cli._teacher(
        own, name=None, sets=["mistake=0.2", "latency_seconds=1.5"]
    ) == TeacherConfig(name="mistake", mistake=0.2, latency_seconds=1.5)
    assert cli._teacher(own, name="noisy", sets=[]) == TeacherConfig(name="noisy")


def test_status_of_a_new_run(run: RunDir, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["status", str(run.path)]) == 0
    assert capsys.readouterr().out.startswith(
        "demo was set up but never started; continue with rlhp train --resume "
    )


def test_plot_prints_the_files_it_wrote(run: RunDir, capsys: pytest.CaptureFixture[str]) -> None:
    with MetricsWriter(run, tensorboard=False) as metrics:
        metrics.write({"env_steps": 10, "env_runners/episode_return_mean": 1.0})
    assert cli.run(["plot", str(run.path)]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert Path(line) == run.plots / "learning_curves.png"
    assert Path(line).is_file()


def test_doctor_fails_on_a_configuration_that_cannot_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["doctor", str(tmp_path / "none.yaml")]) == 1
    out = capsys.readouterr().out
    assert "ok    redis        " in out
    assert "fail  config       " in out


def test_the_page_about_the_configuration_is_up_to_date() -> None:
    page = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    assert page == reference.document(), "run make docs-config"


def test_the_ablations_in_the_page_are_valid_settings() -> None:
    rows = [line for line in reference.document().splitlines() if "`--set " in line]
    assert len(rows) == 9
    for row in rows:
        sets = [
            part.removesuffix("`")
            for part in row.split("|")[2].strip().strip("`").split("--set ")[1:]
        ]
        loading.parse({"env": {"id": "E"}}, sets=[text.strip() for text in sets])
