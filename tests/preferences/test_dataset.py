"""The preference dataset: what goes in comes out, once, whatever is killed or damaged."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rlhp.preferences.dataset import PreferenceDataset, verify
from rlhp.types import Answer, Preference, comparison_id
from tests.preferences.dataset_samples import (
    NESTED,
    PLAIN,
    K,
    answer,
    header,
    same,
    segment,
    the_part,
)


@pytest.fixture
def dataset(tmp_path: Path) -> PreferenceDataset:
    return PreferenceDataset.create(tmp_path / "preferences", header=header())


# What goes in comes out


def test_a_segment_comes_back_bit_for_bit(dataset: PreferenceDataset) -> None:
    state = np.linspace(0, 1, K * 7).reshape(K, 7)
    predicted = np.arange(K, dtype=np.float32) / 3
    rich = segment(
        1,
        predicted_reward=predicted,
        reward_version=4,
        state=state,
        state_kind="mujoco",
        terminated=True,
    )
    bare = segment(2, env_reward=None, length=2)
    assert dataset.add_segments([rich, bare]) == 2
    again = PreferenceDataset.open(dataset.path)
    assert same(again.segment(rich.id), rich)
    assert same(again.segment(bare.id), bare)
    assert [found.id for found in again.segments([bare.id, rich.id, bare.id])] == [
        bare.id,
        rich.id,
        bare.id,
    ]


def test_a_dict_observation_has_one_column_per_leaf(tmp_path: Path) -> None:
    dataset = PreferenceDataset.create(tmp_path / "d", header=header(NESTED))
    stored = segment(3, NESTED)
    dataset.add_segments([stored])
    assert same(PreferenceDataset.open(dataset.path).segment(stored.id), stored)
    schema = pq.read_schema(the_part(dataset, "segments"))
    assert {"obs.camera", "obs.goal/x", "obs.gear", "act"} <= set(schema.names)
    assert schema.field("obs.camera").metadata == {
        b"dtype": b"|u1",
        b"shape": b"[2, 4, 4]",
        b"order": b"frames",
    }


def test_the_header_says_what_the_arrays_mean(dataset: PreferenceDataset) -> None:
    stored = json.loads((dataset.path / "dataset.json").read_text())
    assert stored["schema_version"] == 1
    assert stored["versions"]["pyarrow"] == pa.__version__
    assert PreferenceDataset.open(dataset.path).spaces == PLAIN
    dataset.add_runs(["r1", "r2"])
    assert PreferenceDataset.open(dataset.path).header["run_ids"] == ["r1", "r2"]


def test_every_column_of_an_event_comes_back(dataset: PreferenceDataset) -> None:
    row = answer(
        segment(0),
        segment(1),
        Answer.TIE,
        confidence=5,
        how="late",
        purpose="gold",
        gold_answer=Answer.SECOND,
        strategy="disagreement",
        score=0.25,
        selected_version=3,
        env_steps=77,
        latency_ms=1200,
        shown_order=(1, 0),
        predicted=(0.25, 0.75),
        replays=2,
        stream_id="17-0",
        note="hard to say",
    )
    skip = answer(segment(0), segment(1), None, event="skip", rev=0)
    drop = answer(
        segment(0), segment(1), None, event="drop", labeler=None, labeler_kind=None, rev=0
    )
    dataset.add_events([row, skip, drop])
    assert PreferenceDataset.open(dataset.path).events() == [row, skip, drop]


def test_segments_fill_as_many_row_groups_as_they_need(
    dataset: PreferenceDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rlhp.preferences.dataset.ROW_GROUP_BYTES", 300)
    stored = [segment(number) for number in range(7)]
    dataset.add_segments(stored)
    assert pq.read_metadata(the_part(dataset, "segments")).num_row_groups == 4
    again = PreferenceDataset.open(dataset.path)
    assert all(same(again.segment(each.id), each) for each in [*stored, *reversed(stored)])


def test_a_small_cache_only_costs_time(dataset: PreferenceDataset) -> None:
    stored = [segment(number) for number in range(4)]
    dataset.add_segments(stored)
    again = PreferenceDataset.open(dataset.path, cache_bytes=200)
    assert all(
        same(found, each)
        for found, each in zip(again.segments(s.id for s in stored), stored, strict=True)
    )
    kept = [
        again.segment(stored[-1].id) is again.segment(stored[-1].id),
        again.segment(stored[0].id) is not None,
    ]
    assert kept == [True, True]


# Once, however often it is delivered


def test_segments_and_events_are_stored_once(dataset: PreferenceDataset) -> None:
    first, second = segment(0), segment(1)
    assert dataset.add_segments([first, second, first]) == 2
    assert dataset.add_segments([second]) == 0
    assert dataset.add_events([answer(first, second), answer(first, second)]) == 1
    # the same event by its key: the first delivery counts
    late = answer(first, second, Answer.SECOND)
    again = PreferenceDataset.open(dataset.path)
    assert again.add_events([late]) == 0
    assert len(list((dataset.path / "events").iterdir())) == 1
    assert [row.answer for row in again.events()] == [Answer.FIRST]


def test_two_processes_write_one_table_each_and_see_each_other_after_refresh(
    dataset: PreferenceDataset,
) -> None:
    trainer = PreferenceDataset.open(dataset.path)
    first, second = segment(0), segment(1)
    dataset.add_segments([first, second])
    assert first.id not in trainer
    with pytest.raises(ValueError, match=r"is not in .*; call refresh\(\) if it was written since"):
        trainer.segment(first.id)
    trainer.add_events([answer(first, second)])
    # refreshes by itself where a segment is missing
    assert [p.first.id for p in trainer.preferences()] == [first.id]
    dataset.refresh()
    assert dataset.asked() == {comparison_id((second.id, first.id))}
    assert dataset.query_ids() == {answer(first, second).query_id}


def test_a_successor_does_not_overwrite_the_part_of_a_writer_thought_dead(
    dataset: PreferenceDataset,
) -> None:
    successor = PreferenceDataset.open(dataset.path)
    dataset.add_segments([segment(0)])
    zombie, dataset = dataset, successor
    dataset.add_segments([segment(1)])
    zombie.add_segments([segment(2)])
    assert set(PreferenceDataset.open(dataset.path).segment_ids()) == {
        segment(n).id for n in range(3)
    }


# Preferences


def test_preferences_come_in_the_order_of_their_first_answer(dataset: PreferenceDataset) -> None:
    s = [segment(number) for number in range(6)]
    dataset.add_segments(s)
    dataset.add_events([answer(s[0], s[1], Answer.TIE), answer(s[2], s[3], Answer.SECOND)])
    dataset.add_events([answer(s[4], s[5], Answer.INCOMPARABLE)])
    dataset.add_events(
        [answer(s[0], s[1], None, event="retract"), answer(s[0], s[1], Answer.FIRST, rev=2)]
    )

    def said(found: list[Preference]) -> list[tuple[int, int, str]]:
        return [(p.first.start, p.second.start, p.answer.value) for p in found]

    expected = [(0, 1, "first"), (2, 3, "second"), (4, 5, "incomparable")]
    assert said(dataset.preferences()) == expected
    assert said(PreferenceDataset.open(dataset.path).preferences()) == expected
    assert dataset.preferences(purpose="gold") == []


def test_counts_tell_everything_apart(dataset: PreferenceDataset) -> None:
    s = [segment(number, length=K - 1 if number == 0 else K) for number in range(8)]
    dataset.add_segments(s[:7])
    dataset.add_events(
        [
            answer(s[0], s[1], Answer.TIE, how="late"),
            answer(s[0], s[1], Answer.FIRST, labeler="bob", how="extra"),
            answer(s[2], s[3], Answer.INCOMPARABLE),
            answer(s[4], s[5], Answer.SECOND),
            answer(s[4], s[5], None, event="retract"),
            answer(s[4], s[6], None, event="skip", rev=0),
            answer(s[4], s[6], None, event="drop", rev=0, labeler=None, labeler_kind=None),
            answer(s[6], s[7], Answer.FIRST),
        ]
    )
    expected = {
        "queries": 5,
        "answers": 3,
        "first": 1,
        "ties": 1,
        "incomparable": 1,
        "late": 1,
        "extra": 1,
    }
    expected |= {"second": 0, "reused": 0, "retracted": 1, "skips": 1, "drops": 1}
    expected |= {"without_segments": 1, "segments": 7, "short_segments": 1}
    assert dataset.counts() == expected


def test_an_answer_whose_segments_were_moved_away_is_left_out_with_one_warning(
    dataset: PreferenceDataset,
) -> None:
    s = [segment(number) for number in range(4)]
    dataset.add_segments(s[:2])
    dataset.add_segments(s[2:])
    dataset.add_events([answer(s[0], s[1]), answer(s[2], s[3])])
    assert len(dataset.preferences()) == 2
    the_part(dataset, "segments").rename(dataset.path / "away")
    dataset.refresh()
    with pytest.warns(UserWarning, match="1 answered queries, the first of them .* left out"):
        assert len(dataset.preferences()) == 1
    assert len(dataset.preferences()) == 1
    assert any("1 queries lack a segment" in problem for problem in verify(dataset.path))


# Refusals


def test_what_is_not_a_dataset_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"nowhere is not a preference dataset: there is no dataset\.json in it"
    ):
        PreferenceDataset.open(tmp_path / "nowhere")
    (tmp_path / "dataset.json").write_text("{")
    with pytest.raises(
        ValueError, match=r"dataset\.json is damaged \(JSONDecodeError.*restore it from a copy"
    ):
        PreferenceDataset.open(tmp_path)
    (tmp_path / "dataset.json").write_text('{"schema_version": 2}')
    with pytest.raises(ValueError, match="has schema_version 2, this version of rlhp reads 1"):
        PreferenceDataset.open(tmp_path)


def test_a_run_directory_stands_for_its_preferences(dataset: PreferenceDataset) -> None:
    assert PreferenceDataset.open(dataset.path.parent).path == dataset.path


def test_nothing_is_created_over_something_else(dataset: PreferenceDataset, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"there is a preference dataset at .* already; open it"):
        PreferenceDataset.create(dataset.path, header=header())
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "thesis.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"holds something else \(thesis\.txt\)"):
        PreferenceDataset.create(foreign, header=header())
    with pytest.raises(ValueError, match="it lacks env, segment_length"):
        PreferenceDataset.create(tmp_path / "new", header={"run_ids": [], "spaces": PLAIN})
    half = tmp_path / "half"  # killed before the header was there
    (half / "segments").mkdir(parents=True)
    PreferenceDataset.create(half, header=header())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"length": K + 1}, "has 6 steps, this dataset at most 5"),
        (
            {"actions": np.zeros((K, 3), np.float32)},
            r"one row of act is float32\[2\] in this dataset, got float32\[3\]",
        ),
        ({"obs": {"x": np.zeros((K + 1, 3))}}, r"has the leaves \['x'\], the dataset \[''\]"),
        (
            {"actions": np.zeros((K, 2), complex)},
            r"one row of act is float32\[2\] in this dataset, got complex128\[2\]",
        ),
    ],
)
def test_a_segment_of_another_shape_is_refused_whole(
    dataset: PreferenceDataset, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        dataset.add_segments([segment(0), segment(1, **changes)])
    assert dataset.segment_ids() == []
    assert os.listdir(dataset.path / "segments") == []
    dataset.add_segments([segment(0)])


def test_the_dataset_needs_neither_torch_nor_ray() -> None:
    modules = "rlhp.preferences.exchange.tables, rlhp.preferences.reuse"
    code = f"import sys, {modules}; print({{'torch', 'ray'}} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
