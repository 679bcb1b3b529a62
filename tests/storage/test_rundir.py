"""Run directories: made, refused, opened, and always saying how the run ended."""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from rlhp.config import loading
from rlhp.config.schema import RunConfig
from rlhp.storage import provenance
from rlhp.storage.rundir import RunDir
from tests.small_runs import small


def config(folder: Path, *sets: str) -> RunConfig:
    return loading.parse(
        {"env": {"id": "Pendulum-v1"}, "runs_dir": str(folder / "runs")}, sets=sets
    )


def test_a_new_run_is_named_after_its_file_and_the_time(tmp_path: Path) -> None:
    first = RunDir.create(config(tmp_path), "my pendulum")
    second = RunDir.create(config(tmp_path), "my pendulum")
    assert re.fullmatch(r"my-pendulum-\d{8}-\d{6}", first.name)
    assert first.name != second.name
    assert first.config().name == first.name


def test_the_resolved_configuration_is_stored_and_read_back(tmp_path: Path) -> None:
    rundir = RunDir.create(config(tmp_path, 'name="1e5"', "learner.lr=1e-5"), "x")
    assert rundir.config() == config(tmp_path, 'name="1e5"', "learner.lr=1e-5")
    assert RunDir.open(rundir.path).config(sets=["seed=3"]).seed == 3


def test_a_directory_with_files_is_not_taken_for_a_new_run(tmp_path: Path) -> None:
    rundir = RunDir.create(config(tmp_path, "name=a"), "x")
    with pytest.raises(
        ValueError, match=r"needs an empty directory.*rlhp train --resume .*runs/a, or give another"
    ):
        RunDir.create(config(tmp_path, "name=a"), "x")
    assert rundir.info().state == "created"
    (tmp_path / "runs" / "empty").mkdir()
    assert RunDir.create(config(tmp_path, "name=empty"), "x").name == "empty"


def test_what_is_not_a_run_is_refused_by_name(tmp_path: Path) -> None:
    RunDir.create(config(tmp_path, "name=a"), "x")
    with pytest.raises(ValueError, match=r"runs/b: no such run directory; runs there: a$"):
        RunDir.open(tmp_path / "runs" / "b")
    with pytest.raises(
        ValueError, match=r"not a run directory, it has no config\.yaml and no run\.json"
    ):
        RunDir.open(tmp_path)


def test_a_damaged_run_json_is_named_and_left_alone(tmp_path: Path) -> None:
    rundir = RunDir.create(config(tmp_path, "name=a"), "x")
    rundir.info_file.write_text('{"schema": 9}')
    with pytest.raises(
        ValueError, match=r"run\.json: cannot be read as facts of a run: its schema is 9"
    ):
        RunDir.open(rundir.path)
    rundir.info_file.write_text("{")
    with pytest.raises(
        ValueError, match=r"run\.json: cannot be read as facts of a run: .*; restore it"
    ):
        RunDir.open(rundir.path)
    assert rundir.info_file.read_text() == "{"


def checked_out() -> str | None:
    """The commit of this checkout; None where it is a plain folder."""
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return None
    return subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=root, capture_output=True, text=True, check=True
    ).stdout.strip()


def test_run_json_says_who_ran_what(tmp_path: Path) -> None:
    rundir = RunDir.create(config(tmp_path, "seed=7"), "x")
    info = rundir.info()
    assert (info.seed, info.pid, info.state) == (7, os.getpid(), "created")
    assert info.config_sha256 == loading.sha256(rundir.config())
    assert info.versions["numpy"]
    assert info.versions["python"] == sys.version.split()[0]
    assert info.commit == checked_out()
    assert info.dirty == (rundir.path / "code.diff").exists()


def test_the_end_of_a_run_is_on_record(tmp_path: Path) -> None:
    rundir = RunDir.create(config(tmp_path, "name=a"), "x")
    with rundir.running():
        assert rundir.info().state == "running"
        assert rundir.info().alive
        assert not rundir.info().died
        with rundir.running():
            pass
        assert rundir.info().state == "running"
    info = rundir.info()
    assert (info.state, info.resumed, info.error) == ("finished", 0, None)
    assert info.ended is not None
    with rundir.running():
        rundir.update(state="interrupted")
    assert (rundir.info().state, rundir.info().resumed) == ("interrupted", 1)


def test_a_failure_and_an_interrupt_are_on_record(tmp_path: Path) -> None:
    rundir = RunDir.create(config(tmp_path, "name=a"), "x")
    with pytest.raises(ValueError, match="bad"), rundir.running():
        raise ValueError("bad redis://:secret@h\nand more")
    assert rundir.info().state == "failed"
    assert rundir.info().error == "ValueError: bad redis://:***@h"
    with pytest.raises(KeyboardInterrupt), rundir.running():
        raise KeyboardInterrupt
    assert (rundir.info().state, rundir.info().error) == ("interrupted", None)


def test_a_run_that_goes_on_elsewhere_is_not_started_twice(tmp_path: Path) -> None:
    rundir = RunDir.create(config(tmp_path, "name=a"), "x")
    code = (
        "import sys, time; from rlhp.storage.rundir import RunDir\n"
        "with RunDir.open(sys.argv[1]).running(): print('go', flush=True); time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(rundir.path)], stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "go\n"
        with pytest.raises(
            ValueError, match=rf"still going on as process {other.pid}; stop that one first"
        ):
            rundir.running().__enter__()
        other.kill()
        other.wait()
    assert rundir.info().state == "running"
    assert not rundir.info().alive
    assert rundir.info().died
    with rundir.running():
        assert rundir.info().pid == os.getpid()


def test_a_later_process_with_the_same_id_is_another_one() -> None:
    started = provenance.process_start(os.getpid())
    assert started is not None
    assert provenance.alive(os.getpid(), started)
    assert not provenance.alive(os.getpid(), started - 1)


def test_the_redis_password_is_kept_apart_for_this_user_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = "redis://:secret@host:7000/1"
    monkeypatch.setattr(sys, "argv", ["/bin/rlhp", "train", "--set", f"redis.url={url}"])
    rundir = RunDir.create(config(tmp_path, f"redis.url={url}"), "x")
    assert rundir.config().redis.url == url
    assert rundir.redis_url() == url
    assert stat.S_IMODE(rundir.redis_url_file.stat().st_mode) == 0o600
    assert rundir.info().command == "rlhp train --set redis.url=redis://:***@host:7000/1"
    # has this line
    written = [
        file for file in rundir.path.rglob("*") if file.is_file() and file.name != "code.diff"
    ]
    assert all(b":secret@" not in file.read_bytes() for file in written)
    assert rundir.redis_url_file.read_text() == "redis://host:7000/1\n"
    (kept,) = [
        file
        for file in Path(os.environ["RLHP_SECRETS_DIR"]).iterdir()
        if file.read_text() == url + "\n"
    ]
    assert (stat.S_IMODE(kept.stat().st_mode), stat.S_IMODE(kept.parent.stat().st_mode)) == (
        0o600,
        0o700,
    )
    kept.unlink()
    with pytest.raises(
        ValueError, match=r"redis\.url=redis://:\*\*\*@host.*: its password is not kept in run dir"
    ):
        rundir.config()
    monkeypatch.setenv("RLHP_REDIS_PASSWORD", "se/cret")
    assert rundir.config().redis.url == "redis://:se%2Fcret@host:7000/1"


def test_the_address_of_an_embedded_server_is_found(tmp_path: Path) -> None:
    rundir = RunDir.create(config(tmp_path), "x")
    assert rundir.redis_url() is None
    rundir.redis.mkdir()
    (rundir.redis / "url").write_text("redis://:p@127.0.0.1:7001/0\n")
    assert rundir.redis_url() == "redis://:p@127.0.0.1:7001/0"


def test_a_changed_configuration_keeps_the_one_before(tmp_path: Path) -> None:
    rundir = RunDir.create(config(tmp_path, "name=a"), "x")
    rundir.rewrite_config(rundir.config())
    assert not list(rundir.path.glob("config.*.yaml"))
    rundir.rewrite_config(rundir.config(sets=["labels.budget=900"]))
    assert rundir.config().labels.budget == 900
    assert loading.load(rundir.path / "config.1.yaml").labels.budget == 700
    assert json.loads(rundir.info_file.read_text())["config_sha256"] == loading.sha256(
        rundir.config()
    )


def test_a_link_to_a_run_is_that_run(tmp_path: Path) -> None:
    rundir = RunDir.create(small(runs_dir=str(tmp_path), name="a"), "small")
    (tmp_path / "link").symlink_to("a")
    linked = RunDir.open(tmp_path / "link")
    assert (linked.name, linked.path) == ("a", rundir.path)
    assert RunDir.open(tmp_path / "a" / "preferences" / "..").name == "a"
