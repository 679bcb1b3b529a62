"""Exports: what other tools read is what was stored."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from rlhp.envs.spaces import Spaces
from rlhp.preferences.dataset import PreferenceDataset, verify
from rlhp.preferences.exchange.tables import Format, export
from rlhp.types import Answer
from tests.preferences.dataset_samples import NESTED, PLAIN, K, answer, header, same, segment

FORMATS: tuple[Format, ...] = ("npz", "jsonl", "parquet")


def filled(path: Path, spaces: Spaces = PLAIN) -> PreferenceDataset:
    dataset = PreferenceDataset.create(path, header=header(spaces))
    s = [segment(number, spaces, length=3 if number == 1 else K) for number in range(6)]
    s[2] = segment(
        2, spaces, env_reward=None, predicted_reward=np.ones(K, np.float32), reward_version=1
    )
    for each in s:
        dataset.add_segments([each])
    dataset.add_events([answer(s[0], s[1], Answer.TIE)])
    dataset.add_events(
        [answer(s[2], s[0], Answer.INCOMPARABLE), answer(s[3], s[4], None, event="skip", rev=0)]
    )
    dataset.add_events([answer(s[0], s[3], Answer.FIRST), answer(s[4], s[5], purpose="gold")])
    return dataset


@pytest.mark.parametrize("spaces", [PLAIN, NESTED])
def test_npz_holds_padded_arrays_and_no_pickle(tmp_path: Path, spaces: Spaces) -> None:
    dataset = filled(tmp_path / "preferences", spaces)
    summary = export(dataset.path, tmp_path / "out.npz", to="npz")
    assert (summary.preferences, summary.incomparable, summary.segments) == (3, 1, 4)
    with np.load(tmp_path / "out.npz", allow_pickle=False) as found:
        assert found["pairs"].tolist() == [[0, 1], [2, 0], [0, 3]]
        np.testing.assert_array_equal(found["targets"], [0.5, np.nan, 1.0])
        assert found["answers"].tolist() == ["tie", "incomparable", "first"]
        assert found["mask"].sum(1).tolist() == found["length"].tolist() == [K, 3, K, K]
        for row, name in enumerate(found["segment_ids"]):
            stored = dataset.segment(str(name))
            for leaf in spaces.obs.leaves:
                obs = found[f"obs.{leaf.path}" if leaf.path else "obs"]
                assert obs.dtype == leaf.dtype
                np.testing.assert_array_equal(obs[row, : stored.length + 1], stored.obs[leaf.path])
                assert not obs[row, stored.length + 1 :].any()
            np.testing.assert_array_equal(found["actions"][row][found["mask"][row]], stored.actions)
        assert np.isnan(found["env_reward"][2]).all()
        assert found["predicted_reward"][2].tolist() == [1.0] * K
        assert Spaces.from_json(json.loads(str(found["header"]))["spaces"]) == spaces


def test_jsonl_holds_one_preference_per_line_with_whole_segments(tmp_path: Path) -> None:
    dataset = filled(tmp_path / "preferences", NESTED)
    summary = export(tmp_path, tmp_path / "sub" / "out.jsonl", to="jsonl")
    lines = [json.loads(line) for line in summary.out.read_text().splitlines()]
    assert [(line["answer"], line["target"]) for line in lines] == [
        ("tie", 0.5),
        ("incomparable", None),
        ("first", 1.0),
    ]
    first = lines[0]["first"]
    stored = dataset.segment(first["id"])
    assert first["obs"] == {path: leaf.tolist() for path, leaf in stored.obs.items()}
    assert first["actions"] == stored.actions.tolist()
    assert lines[1]["first"]["env_reward"] is None
    assert len(pd.read_json(summary.out, lines=True)) == 3


def test_jsonl_refuses_what_json_cannot_say(tmp_path: Path) -> None:
    dataset = PreferenceDataset.create(tmp_path / "d", header=header())
    odd = segment(0, obs={"": np.full((K + 1, 3), np.inf, np.float32)})
    dataset.add_segments([odd, segment(1)])
    dataset.add_events([answer(odd, segment(1))])
    with pytest.raises(
        ValueError,
        match="holds a NaN or an infinite value, which JSON cannot express; export to npz",
    ):
        export(dataset.path, tmp_path / "out.jsonl", to="jsonl")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["d"]


def test_parquet_is_a_dataset_of_one_part_per_table(tmp_path: Path) -> None:
    dataset = filled(tmp_path / "preferences", NESTED)
    assert len(list((dataset.path / "segments").iterdir())) == 6
    summary = export(dataset.path, tmp_path / "compact", to="parquet")
    assert (summary.preferences, summary.incomparable, summary.segments) == (3, 1, 6)
    compact = PreferenceDataset.open(tmp_path / "compact")
    (part,) = (compact.path / "segments").iterdir()
    assert len(list((compact.path / "events").iterdir())) == 1
    assert pq.read_metadata(part).num_row_groups == 1
    assert compact.events() == dataset.events()
    assert compact.header == dataset.header
    assert compact.segment_ids() == dataset.segment_ids()
    assert all(same(compact.segment(each), dataset.segment(each)) for each in dataset.segment_ids())
    assert verify(compact.path) == []


@pytest.mark.parametrize("compacted", [False, True])
def test_pandas_reads_both_tables(tmp_path: Path, compacted: bool) -> None:
    dataset = filled(tmp_path / "preferences")
    path = (
        export(dataset.path, tmp_path / "compact", to="parquet").out if compacted else dataset.path
    )
    events = pd.read_parquet(path / "events")
    assert events["event"].tolist() == ["answer", "answer", "skip", "answer", "answer"]
    assert events["answer"].tolist()[:2] == ["tie", "incomparable"]
    assert events["p_first"].tolist()[0] == 0.5
    segments = pd.read_parquet(path / "segments").set_index("segment_id")
    stored = dataset.segment(dataset.segment_ids()[0])
    rows = np.frombuffer(segments.loc[stored.id, "obs"], "<f4").reshape(-1, 3)
    np.testing.assert_array_equal(rows, stored.obs[""])


def test_a_segment_stored_twice_is_exported_once(tmp_path: Path) -> None:
    dataset = filled(tmp_path / "preferences")
    part = next((dataset.path / "segments").iterdir())
    (part.parent / "part-00000099-copy.parquet").write_bytes(part.read_bytes())
    assert export(dataset.path, tmp_path / "compact", to="parquet").segments == 6
    assert len(pd.read_parquet(tmp_path / "compact" / "segments")) == 6


def test_an_export_never_overwrites_and_says_when_there_is_nothing(tmp_path: Path) -> None:
    dataset = PreferenceDataset.create(tmp_path / "d", header=header())
    for to in FORMATS:
        with pytest.raises(
            ValueError, match=r"nothing to export: .* holds no train answer that stands"
        ):
            export(dataset.path, tmp_path / "out", to=to)
    with pytest.raises(ValueError, match="one of npz, parquet, jsonl, imitation; got 'csv'"):
        export(dataset.path, tmp_path / "out", to="csv")  # type: ignore[arg-type]
    (tmp_path / "out").write_text("mine")
    with pytest.raises(ValueError, match="out exists already; choose another name"):
        export(dataset.path, tmp_path / "out", to="npz")
    with pytest.raises(ValueError, match="is not a preference dataset"):
        export(tmp_path / "nowhere", tmp_path / "new", to="npz")
