"""The preference dataset under damage and crashes: what was acknowledged is there, what
is broken has a name.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rlhp.preferences.dataset import PreferenceDataset, verify
from rlhp.preferences.events import EVENT_SCHEMA, event_table
from tests.preferences.dataset_samples import NESTED, answer, header, same, segment, the_part


@pytest.fixture
def dataset(tmp_path: Path) -> PreferenceDataset:
    return PreferenceDataset.create(tmp_path / "preferences", header=header())


# Damage


def damage_truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-50])


def damage_flip_a_bit(path: Path) -> None:
    columns = pq.read_metadata(path).row_group(0)
    obs = next(
        columns.column(i)
        for i in range(columns.num_columns)
        if columns.column(i).path_in_schema == "obs"
    )
    data = bytearray(path.read_bytes())
    data[obs.data_page_offset + obs.total_compressed_size - 5] ^= 1
    path.write_bytes(data)


def damage_replace(path: Path) -> None:
    path.write_bytes(b"not parquet at all")


def damage_rename_a_column(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b"env_reward", b"ezv_reward", 1))


@pytest.mark.parametrize(
    "damage", [damage_truncate, damage_flip_a_bit, damage_replace, damage_rename_a_column]
)
def test_a_damaged_part_is_named_left_alone_and_costs_only_itself(
    dataset: PreferenceDataset, damage: Callable[[Path], None]
) -> None:
    dataset.add_segments([segment(0), segment(1)])
    dataset.add_segments([segment(2)])
    part = the_part(dataset, "segments")
    damage(part)
    before = part.read_bytes()
    with pytest.raises(
        ValueError, match=f"{part} is damaged .*; move that file away: every other part is intact"
    ):
        PreferenceDataset.open(dataset.path).segment(segment(0).id)
    assert verify(dataset.path)[0].startswith(f"{part} is damaged")
    assert part.read_bytes() == before
    part.rename(dataset.path / "away")
    assert PreferenceDataset.open(dataset.path).segment_ids() == [segment(2).id]
    assert verify(dataset.path) == []


def test_a_part_of_another_environment_is_refused(
    dataset: PreferenceDataset, tmp_path: Path
) -> None:
    other = PreferenceDataset.create(tmp_path / "other", header=header(NESTED))
    other.add_segments([segment(0, NESTED)])
    part = the_part(other, "segments")
    part.rename(dataset.path / "segments" / part.name)
    with pytest.raises(ValueError, match=r"is damaged \(column obs is missing\)"):
        dataset.refresh()


def test_a_column_that_only_later_parts_have_is_not_lost(dataset: PreferenceDataset) -> None:
    first, second = segment(0), segment(1)
    old = event_table([answer(first, second)]).drop_columns(["note", "replays"])
    pq.write_table(
        old.append_column("replays", pa.array([0], pa.int16())),
        dataset.path / "events" / "part-0.parquet",
    )
    dataset.add_events([answer(first, second, labeler="bob", note="kept")])
    again = PreferenceDataset.open(dataset.path)
    assert [(row.labeler, row.note) for row in again.events()] == [("ann", None), ("bob", "kept")]


def test_unknown_columns_and_foreign_files_are_reported(dataset: PreferenceDataset) -> None:
    table = event_table([answer(segment(0), segment(1))]).append_column("mood", pa.array(["good"]))
    pq.write_table(table, dataset.path / "events" / "part-0.parquet")
    (dataset.path / "segments" / "notes.txt").write_text("mine")
    (dataset.path / "segments" / "_ignored.parquet").write_text("mine")
    dataset.refresh()
    problems = verify(dataset.path)
    assert [problem.split("preferences/")[1] for problem in problems[:2]] == [
        "segments/notes.txt is not a part; readers ignore it",
        "events/part-0.parquet has columns this version of rlhp does not know: mood",
    ]
    assert "1 queries lack a segment" in problems[2]


def test_an_event_that_could_not_have_been_written_names_its_part(
    dataset: PreferenceDataset,
) -> None:
    row = event_table([answer(segment(0), segment(1))])
    odd = row.set_column(
        row.schema.get_field_index("answer"), EVENT_SCHEMA.field("answer"), _words("maybe")
    )
    pq.write_table(odd, dataset.path / "events" / "part-0.parquet")
    with pytest.raises(
        ValueError, match=r"part-0\.parquet is damaged \('maybe' is not a valid Answer\)"
    ):
        dataset.refresh()


def _words(word: str) -> pa.Array:
    return pa.array([word]).dictionary_encode()


# Crashes


def test_a_torn_file_is_ignored_by_readers_and_removed_by_the_writer_of_its_table(
    dataset: PreferenceDataset,
) -> None:
    torn = dataset.path / "segments" / ".part-00000000-0badcafe.parquet.tmp"
    torn.write_bytes(b"PAR1 half of")
    other = PreferenceDataset.open(dataset.path)
    other.add_events([answer(segment(0), segment(1), None, event="skip", rev=0)])
    assert torn.exists()
    assert verify(dataset.path) == [
        f"{dataset.path}: 1 queries lack a segment, the first of them {_query()}"
    ]
    dataset.add_segments([segment(0), segment(1)])
    assert not torn.exists()
    assert verify(dataset.path) == []


def _query() -> str:
    return answer(segment(0), segment(1)).query_id


def test_a_part_is_synced_before_it_has_its_name_and_its_directory_after(
    dataset: PreferenceDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    sync, replace = os.fsync, Path.replace

    def syncing(descriptor: int) -> None:
        calls.append("sync " + Path(f"/proc/self/fd/{descriptor}").readlink().name[:6])
        sync(descriptor)

    def replacing(path: Path, target: Path) -> Path:
        calls.append("rename")
        return replace(path, target)

    monkeypatch.setattr(os, "fsync", syncing)
    monkeypatch.setattr(Path, "replace", replacing)
    dataset.add_events([answer(segment(0), segment(1))])
    assert calls == ["sync .part-", "rename", "sync events"]


def test_a_full_disk_leaves_no_trace_and_nothing_acknowledged(
    dataset: PreferenceDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    row = answer(segment(0), segment(1))
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left"):
            dataset.add_events([row])
    assert dataset.events() == []
    assert os.listdir(dataset.path / "events") == []
    assert dataset.add_events([row]) == 1


def test_everything_acknowledged_survives_kill_9(dataset: PreferenceDataset) -> None:
    rng = random.Random(3)
    acknowledged: dict[str, set[str]] = {"segment": set(), "event": set()}
    for _ in range(4):
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.preferences.dataset_writer", str(dataset.path)],
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
        )
        assert process.stdout is not None
        for _ in range(rng.randrange(1, 40)):
            _take_down(process.stdout.readline(), acknowledged)
        process.send_signal(signal.SIGKILL)
        for line in process.stdout.read().splitlines():
            _take_down(line, acknowledged)
        process.wait()
        process.stdout.close()

    again = PreferenceDataset.open(dataset.path)
    assert acknowledged["segment"] <= set(again.segment_ids())
    assert acknowledged["event"] <= again.query_ids()
    assert len(again.preferences()) >= len(acknowledged["event"]) > 4
    assert all(
        same(again.segment(each), segment(again.segment(each).start))
        for each in acknowledged["segment"]
    )
    assert verify(dataset.path) == []


def _take_down(line: str, acknowledged: dict[str, set[str]]) -> None:
    kind, _, name = line.strip().partition(" ")
    acknowledged[kind].add(name)
