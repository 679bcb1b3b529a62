"""Published reward versions on disk: whole or not there."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from rlhp.files import write_whole
from rlhp.reward.versions import RewardStore
from tests.reward.versions import weights


def test_an_empty_store_has_neither_a_version_nor_a_state(tmp_path: Path) -> None:
    store = RewardStore(tmp_path / "reward")
    assert store.newest() is None
    assert store.trainer_state() is None


def test_the_newest_version_comes_back_with_the_state_saved_beside_it(tmp_path: Path) -> None:
    store = RewardStore(tmp_path / "reward")
    for version in (1, 2):
        store.save(weights(version), trainer_state=f"state {version}".encode())
    again = RewardStore(tmp_path / "reward")
    newest = again.newest()
    assert newest is not None
    assert newest.to_bytes() == weights(2).to_bytes()
    assert again.trainer_state() == b"state 2"


def test_only_the_newest_versions_are_kept(tmp_path: Path) -> None:
    store = RewardStore(tmp_path, keep=3)
    for version in (1, 2, 9, 10, 11):
        store.save(weights(version), trainer_state=b"")
    assert sorted(file.name for file in tmp_path.glob("*.reward")) == [
        "version-000009.reward",
        "version-000010.reward",
        "version-000011.reward",
    ]


def test_what_a_killed_writer_left_half_done_is_never_read(tmp_path: Path) -> None:
    store = RewardStore(tmp_path)
    store.save(weights(1), trainer_state=b"state 1")
    (tmp_path / ".version-000002.reward.tmp").write_bytes(weights(2).to_bytes()[:100])
    (tmp_path / ".trainer.state.tmp").write_bytes(b"half a st")
    newest = RewardStore(tmp_path).newest()
    assert newest is not None
    assert newest.version == 1
    assert RewardStore(tmp_path).trainer_state() == b"state 1"
    store.save(weights(2), trainer_state=b"state 2")
    assert [file for file in tmp_path.iterdir() if file.name.startswith(".")] == []


def test_a_state_is_never_older_than_its_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[str] = []
    replace = os.replace

    def recorded(source: Path, target: Path) -> None:
        replace(source, target)
        written.append(Path(target).name)

    monkeypatch.setattr(os, "replace", recorded)
    RewardStore(tmp_path).save(weights(1), trainer_state=b"")
    assert written == ["trainer.state", "version-000001.reward"]


WRITER = """
import sys
from pathlib import Path
from rlhp.files import write_whole

print("ready", flush=True)
number = 0
while True:
    number += 1
    write_whole(Path(sys.argv[1]), bytes([number % 256]) * 300_000)
"""


def test_a_reader_sees_the_old_file_or_the_new_one_whenever_the_writer_is_killed(
    tmp_path: Path,
) -> None:
    file = tmp_path / "file"
    write_whole(file, b"0" * 300_000)
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(file)], stdout=subprocess.PIPE
    ) as writer:
        assert writer.stdout is not None
        writer.stdout.readline()
        for _ in range(200):
            data = file.read_bytes()
            assert len(data) == 300_000
            assert len(set(data)) == 1
        writer.send_signal(signal.SIGKILL)
    assert len(file.read_bytes()) == 300_000


def test_after_a_damaged_version_its_number_is_not_given_again(tmp_path: Path) -> None:
    store = RewardStore(tmp_path)
    for version in (1, 2):
        store.save(weights(version), trainer_state=b"state %d" % version)
    data = bytearray((tmp_path / "version-000002.reward").read_bytes())
    data[len(data) // 2] ^= 4
    (tmp_path / "version-000002.reward").write_bytes(data)
    found = RewardStore(tmp_path).newest()
    assert found is not None
    assert (found.version, RewardStore(tmp_path).highest()) == (1, 2)
    (tmp_path / "version-000001.reward").write_bytes(b"")
    with pytest.raises(
        ValueError,
        match=r"no reward version .* put them back from a copy, or move the directory away",
    ):
        RewardStore(tmp_path).newest()
