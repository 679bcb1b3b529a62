"""Errors of the disk name the file, and nothing half written is left; a closed terminal
ends no run.
"""

from __future__ import annotations

import errno
import os
import re
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from rlhp.config import loading
from rlhp.errors import RlhpError, curable
from rlhp.files import expanded, naming, new_directory, read_regular, sealed, unsealed, write_whole
from rlhp.learn.checkpoint import save_state
from rlhp.preferences.dataset import PreferenceDataset
from rlhp.reward.versions import RewardStore
from rlhp.storage.metrics import MetricsWriter
from rlhp.storage.rundir import RunDir
from tests.preferences.dataset_samples import header, segment
from tests.reward.versions import weights


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """Every file that grows beyond fails as on a full disk: EFBIG, of which nothing
    names the path.
    """
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_every_writer_of_a_run_names_its_file(tmp_path: Path) -> None:
    rundir = RunDir.create(
        loading.parse({"env": {"id": "E"}, "runs_dir": str(tmp_path), "name": "a"}), "a"
    )
    dataset = PreferenceDataset.create(rundir.preferences, header=header())
    store, metrics = RewardStore(rundir.path / "reward"), MetricsWriter(rundir, tensorboard=True)
    store.save(weights(1), trainer_state=b"1" * 600)
    metrics.write({"env_steps": 1})
    there = sorted(path for path in rundir.path.rglob("*") if path.is_file())
    failures = []
    with files_of_at_most(64):
        for write in (
            lambda: metrics.write({"env_steps": 2}),
            lambda: dataset.add_segments([segment(0)]),
            lambda: store.save(weights(2), trainer_state=b"2" * 600),
            lambda: save_state(rundir.path / "algorithm.pt", {"w": np.zeros(100)}),
            lambda: rundir.update(state="running"),
            lambda: rundir.rewrite_config(rundir.config(sets=["seed=7"])),
        ):
            with pytest.raises(OSError, match="File too large") as caught:
                write()
            failures.append(caught.value)
    metrics.close()
    assert all(curable(error) and str(rundir.path) in str(error.filename) for error in failures), (
        failures
    )
    left = {path.name for path in rundir.path.rglob("*") if path.is_file()} - {
        path.name for path in there
    }
    assert left <= {"config.1.yaml", "trainer.before.state"}
    assert RewardStore(rundir.path / "reward").trainer_state() == b"1" * 600


def test_a_path_that_is_known_is_kept() -> None:
    with pytest.raises(OSError, match="No space") as caught, naming(Path("/run/metrics.jsonl")):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert caught.value.filename == "/run/metrics.jsonl"
    with pytest.raises(FileNotFoundError) as other, naming(Path("/run")):
        Path("/nowhere/at/all").read_bytes()
    assert other.value.filename == "/nowhere/at/all"


def test_a_directory_is_there_whole_or_not_at_all(tmp_path: Path) -> None:

    def half() -> None:
        with new_directory(tmp_path / "out") as torn:
            write_whole(torn / "a", "text")
            raise KeyError

    with pytest.raises(KeyError):
        half()
    assert list(tmp_path.iterdir()) == []
    with new_directory(tmp_path / "out") as torn:
        write_whole(torn / "a", "text")
    assert (tmp_path / "out" / "a").read_text() == "text"


def test_what_is_sealed_comes_back_or_is_damaged() -> None:
    data = sealed(b"weights")
    assert unsealed(data) == b"weights"
    for at in range(len(data)):
        with pytest.raises(RlhpError):
            unsealed(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])


def test_pipes_devices_and_huge_files_are_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(RlhpError, match="pipe or a device"):
            read_regular(path)
    (tmp_path / "file").write_bytes(b"12345")
    with pytest.raises(RlhpError, match="has 5 bytes"):
        read_regular(tmp_path / "file", most=4)


def test_a_directory_or_a_link_to_itself_is_a_path_to_mend(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("link")
    for path in (tmp_path, tmp_path / "link"):
        with pytest.raises(OSError, match=re.escape(repr(str(path)))) as caught:
            read_regular(path)
        assert curable(caught.value)


PRINTS = """
import sys
from rlhp.cli.terminal import outliving
with outliving():
    for number in range(20000):
        print("line", number)
    open(sys.argv[1], "w").write("done")
"""


CLOSED = """
import os, sys
from rlhp.cli.terminal import outliving
with outliving():
    print("begins")
    sys.stdout.close() if sys.argv[2] == "file" else os.close(1)
    for number in range(20000):
        print("line", number)
        sys.stdout.flush()
    open(sys.argv[1], "w").write("done")
"""


@pytest.mark.parametrize("what", ["file", "descriptor"])
def test_other_code_may_close_standard_output(tmp_path: Path, what: str) -> None:
    command = [sys.executable, "-c", CLOSED, str(tmp_path / "done"), what]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, (tmp_path / "done").read_text()) == (0, "done")
    assert done.stderr.count("standard output is given up") == 1
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("how", ["a closed pipe", "a full disk"])
def test_a_program_goes_on_when_nothing_can_be_printed(tmp_path: Path, how: str) -> None:
    command = [sys.executable, "-c", PRINTS, str(tmp_path / "done")]
    with open("/dev/full", "w") as full:
        out = full if how == "a full disk" else subprocess.PIPE
        with subprocess.Popen(command, stdout=out, stderr=subprocess.PIPE, text=True) as program:
            if program.stdout is not None:
                program.stdout.readline()
                program.stdout.close()
            assert program.stderr is not None
            said = program.stderr.read()
    assert program.returncode == 0
    assert (tmp_path / "done").read_text() == "done"
    assert said.count("standard output is given up") == 1
    assert "Traceback" not in said


def test_a_path_in_the_home_of_nobody_is_refused_by_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert expanded("~/runs") == tmp_path / "runs"
    assert expanded("runs/~") == Path("runs/~")
    with pytest.raises(RlhpError, match=r"^~no-such-user/runs .* no user no-such-user .* in full"):
        expanded("~no-such-user/runs")
