"""Many small parts become few: nothing is lost, doubled or turned around, whoever is
killed or reads meanwhile.
"""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from rlhp.preferences import parts
from rlhp.preferences import parts as compaction
from rlhp.preferences.dataset import PreferenceDataset, verify
from rlhp.preferences.events import EVENT_SCHEMA, EventRow, event_table
from rlhp.preferences.parts import list_parts
from rlhp.types import answers_to
from tests.preferences.dataset_samples import answer, header, same, segment
from tests.preferences.killed_compaction import MERGED, NEXT

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compaction, "MERGED", MERGED)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    PreferenceDataset.create(tmp_path / "preferences", header=header())
    return tmp_path / "preferences"


def fill(path: Path, count: int, *, start: int = 0, compacting: bool = True) -> PreferenceDataset:
    """So many parts of each table, as far as they are not merged."""
    dataset = PreferenceDataset.open(path, compacting=compacting)
    for number in range(start, start + count):
        first, second = segment(2 * number), segment(2 * number + 1)
        dataset.add_segments([first, second])
        dataset.add_events([answer(first, second, answers_to(2)[number % 4])])
    return dataset


def events(dataset: PreferenceDataset) -> list[EventRow]:
    return dataset.events()


def rows_on_disk(path: Path, table: str) -> int:
    return sum(pq.read_metadata(path / table / name).num_rows for name in list_parts(path / table))


def whole(dataset: PreferenceDataset, count: int) -> None:
    """All of `fill`, once, in order, with the right segments."""
    assert [row.first_id for row in events(dataset)] == [
        segment(2 * number).id for number in range(count)
    ]
    assert dataset.segment_ids() == [segment(number).id for number in range(2 * count)]
    for number in range(0, 2 * count, 3):
        same(dataset.segment(segment(number).id), segment(number))
    assert sum(len(table) for table in dataset.segment_tables()) == 2 * count
    assert verify(dataset.path) == []


def test_parts_become_few_and_their_rows_stay_what_and_where_they_were(path: Path) -> None:
    writer = fill(path, 30)
    for table in ("segments", "events"):
        assert len(list_parts(path / table)) <= 30 / MERGED**2 + 2 * MERGED
        assert rows_on_disk(path, table) == (60 if table == "segments" else 30)
    whole(writer, 30)
    whole(PreferenceDataset.open(path), 30)
    whole(fill(path, 5, start=30), 35)


def test_parts_that_an_earlier_writer_left_are_merged_by_the_next(path: Path) -> None:
    fill(path, 20, compacting=False)
    assert len(list_parts(path / "events")) == 20
    whole(fill(path, 1, start=20), 21)
    assert len(list_parts(path / "events")) < 8


def test_a_writer_that_is_killed_at_any_step_loses_and_doubles_nothing(
    path: Path, tmp_path: Path
) -> None:
    before = events(fill(path, MERGED - 1, compacting=False))
    words = [
        sys.executable,
        "-m",
        "tests.preferences.killed_compaction",
        str(path),
        str(tmp_path / "copies"),
    ]
    (tmp_path / "copies").mkdir()
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True)
    copies = int(done.stdout)
    assert copies > 2 * (3 + 3 + MERGED), (
        "each of two tables: a part, a merged part, and the parts that it replaces"
    )
    added = answer(segment(NEXT), segment(NEXT + 1))
    for copy in (tmp_path / "copies" / str(number) for number in range(copies)):
        found = PreferenceDataset.open(copy)
        assert events(found)[: len(before)] == before
        assert [row.key for row in events(found)[len(before) :]] in ([], [added.key])
        assert found.segment_ids()[:4] == [segment(number).id for number in range(4)]
        assert len(found.preferences()) == len(found.live()) == len(events(found))
        again = PreferenceDataset.open(copy)
        again.add_segments([segment(NEXT), segment(NEXT + 1), segment(NEXT + 2)])
        again.add_events([added, answer(segment(NEXT), segment(NEXT + 2))])
        for table, rows in (("segments", 4 + 3), ("events", 2 + 2)):
            assert rows_on_disk(copy, table) == rows, (
                "what a killed writer left twice, the next one removes"
            )
        assert verify(copy) == []


def test_who_reads_meanwhile_goes_on_with_what_it_knew(path: Path) -> None:
    fill(path, 2)
    reader = PreferenceDataset.open(path, cache_bytes=0)
    first = events(reader)[0]
    fill(path, 14, start=2)
    same(reader.segment(segment(0).id), segment(0))
    same(reader.segments([segment(3).id])[0], segment(3))
    assert events(reader)[0] is first, "rows that it has are not read again"
    reader.refresh()
    whole(reader, 16)
    tables = PreferenceDataset.open(path, cache_bytes=0).segment_tables()
    seen = len(next(tables))
    fill(path, 10, start=16)
    assert seen + sum(len(table) for table in tables) >= 32


def test_readers_and_a_writer_at_once_never_see_less_than_before(path: Path) -> None:
    fill(path, 3)
    problems: list[str] = []
    done = threading.Event()

    def read() -> None:
        dataset, known = PreferenceDataset.open(path, cache_bytes=0), 0
        while not done.is_set():
            dataset.refresh()
            rows, fresh = len(events(dataset)), len(events(PreferenceDataset.open(path)))
            if rows < known or fresh < rows or len(dataset.preferences()) < rows:
                problems.append(f"{known} before, then {rows}; opened anew {fresh}")
            known = rows

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    try:
        fill(path, 30, start=3)
    finally:
        done.set()
        for reader in readers:
            reader.join()
    assert problems == []
    whole(PreferenceDataset.open(path), 33)


def test_what_cannot_be_merged_without_loss_stays_and_costs_the_others_nothing(path: Path) -> None:
    fill(path, 5, compacting=False)
    names = list_parts(path / "events")
    newer = event_table(events(PreferenceDataset.open(path))[2:3]).append_column("mood", [["good"]])
    pq.write_table(newer, path / "events" / names[2])
    fill(path, 8, start=5, compacting=False)
    dataset = fill(path, 1, start=13)
    assert names[2] in list_parts(path / "events")
    assert pq.read_schema(path / "events" / names[2]).names[-1] == "mood"
    assert len(list_parts(path / "events")) < 9
    assert [row.first_id for row in events(PreferenceDataset.open(path))] == [
        segment(2 * n).id for n in range(14)
    ]
    assert [row.first_id for row in events(dataset)] == [
        segment(2 * number).id for number in range(14)
    ]


def test_a_part_that_is_damaged_is_named_as_before_and_not_merged(path: Path) -> None:
    dataset = fill(path, 3, compacting=False)
    damaged = path / "events" / list_parts(path / "events")[1]
    damaged.write_bytes(damaged.read_bytes()[:-40])
    dataset._compacting = True
    for number in range(3, 12):
        dataset.add_events([answer(segment(2 * number), segment(2 * number + 1))])
    assert damaged.exists()
    with pytest.raises(ValueError, match=f"{damaged} is damaged"):
        PreferenceDataset.open(path)
    damaged.rename(path / "away")
    assert len(events(PreferenceDataset.open(path))) == 11


def test_a_writer_that_was_thought_dead_takes_nothing_with_it(path: Path) -> None:
    zombie = fill(path, 2, compacting=False)
    fill(path, 8, start=2)
    zombie._compacting = True
    rows = [answer(segment(100 + n), segment(200 + n)) for n in range(4)]
    for row in rows:
        zombie.add_events([row])
    successor = fill(path, 6, start=10)
    successor.refresh()
    found = {row.key for row in events(PreferenceDataset.open(path))}
    assert found == {row.key for row in events(successor)}
    assert {row.key for row in rows} <= found
    assert len(found) == 16 + 4


def test_an_index_of_parts_that_is_damaged_names_its_part(path: Path) -> None:
    schema = EVENT_SCHEMA.with_metadata({b"rlhp.replaces": b'["part-'})
    name = parts.new_name(0, 63)
    table = event_table([answer(segment(0), segment(1))])
    with pq.ParquetWriter(path / "events" / name, schema) as writer:
        writer.write_table(table)
    with pytest.raises(ValueError, match=f"{name} is damaged"):
        PreferenceDataset.open(path)
