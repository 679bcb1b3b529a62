"""Answers of an earlier run, copied into a new one."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from rlhp.envs.spaces import Spaces
from rlhp.preferences.dataset import PreferenceDataset, verify
from rlhp.preferences.reuse import merge_into
from rlhp.types import Answer
from tests.preferences.dataset_samples import NESTED, PLAIN, K, answer, header, same, segment


@pytest.fixture
def source(tmp_path: Path) -> PreferenceDataset:
    dataset = PreferenceDataset.create(
        tmp_path / "old" / "preferences", header=header(run_ids=["old"])
    )
    s = [segment(number, run="old") for number in range(6)]
    dataset.add_segments(s)
    dataset.add_events(
        [answer(s[0], s[1], Answer.TIE, stream_id="1-0", note="close"), answer(s[2], s[3])]
    )
    dataset.add_events(
        [answer(s[2], s[3], None, event="retract"), answer(s[2], s[3], Answer.SECOND, rev=2)]
    )
    dataset.add_events(
        [answer(s[0], s[2], None, event="skip", rev=0), answer(s[1], s[3], purpose="gold")]
    )
    return dataset


@pytest.fixture
def target(tmp_path: Path) -> PreferenceDataset:
    return PreferenceDataset.create(tmp_path / "new", header=header())


def test_the_answers_that_stand_are_copied_with_their_segments(
    source: PreferenceDataset, target: PreferenceDataset
) -> None:
    assert merge_into(target, source.path.parent) == 3
    again = PreferenceDataset.open(target.path)
    found = again.preferences()
    assert [p.answer for p in found] == [Answer.TIE, Answer.SECOND]
    assert all(same(p.first, source.segment(p.first.id)) for p in found)
    assert len(again.preferences(purpose="gold")) == 1
    assert again.counts()["reused"] == 3
    assert again.counts()["segments"] == 4  # only those that an answer is about
    assert [row.note for row in again.events()][:2] == ["reused from old: close", "reused from old"]
    assert [row.stream_id for row in again.events()] == [None] * 3
    assert again.header["run_ids"] == ["r1", "old"]
    assert verify(target.path) == []


def test_copying_again_copies_only_what_is_new(
    source: PreferenceDataset, target: PreferenceDataset
) -> None:
    merge_into(target, source.path)
    assert merge_into(target, source.path) == 0
    source.add_events(
        [answer(source.segment(source.segment_ids()[4]), source.segment(source.segment_ids()[5]))]
    )
    assert merge_into(target, source.path) == 1
    assert len(target.preferences()) == 3


def test_a_run_that_reused_passes_the_origin_on(
    source: PreferenceDataset, target: PreferenceDataset, tmp_path: Path
) -> None:
    merge_into(target, source.path)
    third = PreferenceDataset.create(tmp_path / "third", header=header(run_ids=["third"]))
    merge_into(third, target.path)
    assert [row.note for row in third.events()][1] == "reused from old"


def _with_action(spaces: Spaces, size: int) -> Spaces:
    return replace(spaces, action=replace(spaces.action, shape=(size,)))


@pytest.mark.parametrize(
    ("spaces", "message"),
    [
        (
            _with_action(PLAIN, 3),
            r"action is shape \(3,\), dtype <f4 here and shape \(2,\), dtype <f4 there",
        ),
        (
            NESTED,
            r"observation leaf 'camera' is shape \(2, 4, 4\), dtype \|u1 here and missing there",
        ),
    ],
)
def test_other_spaces_are_refused_by_the_name_of_the_leaf(
    source: PreferenceDataset, tmp_path: Path, spaces: Spaces, message: str
) -> None:
    target = PreferenceDataset.create(tmp_path / "new", header=header(spaces))
    with pytest.raises(ValueError, match=f"answers about other spaces cannot be reused: {message}"):
        merge_into(target, source.path)
    assert target.segment_ids() == []


def test_longer_segments_are_refused(source: PreferenceDataset, tmp_path: Path) -> None:
    target = PreferenceDataset.create(tmp_path / "new", header=header(segment_length=K - 1))
    with pytest.raises(
        ValueError, match=r"do not fit into segments of 4; set query\.segment_length=5"
    ):
        merge_into(target, source.path)


def test_nothing_to_reuse_is_an_error(target: PreferenceDataset, tmp_path: Path) -> None:
    empty = PreferenceDataset.create(tmp_path / "empty", header=header())
    with pytest.raises(
        ValueError, match=r"there is no answer to reuse in .*empty; name another run"
    ):
        merge_into(target, empty.path)
    with pytest.raises(ValueError, match="is not a preference dataset"):
        merge_into(target, tmp_path / "nowhere")


def test_another_environment_with_the_same_spaces_is_a_warning(
    source: PreferenceDataset, tmp_path: Path
) -> None:
    target = PreferenceDataset.create(tmp_path / "new", header=header(env={"id": "Other-v0"}))
    with pytest.warns(
        UserWarning, match="reusing answers about Sample-v0 for Other-v0: the spaces agree"
    ):
        assert merge_into(target, source.path) == 3


def test_answers_without_segments_are_not_reused(
    source: PreferenceDataset, target: PreferenceDataset
) -> None:
    source.add_events([answer(segment(8), segment(9))])
    with pytest.warns(
        UserWarning, match="1 answers in .* have lost their segments and are not reused"
    ):
        assert merge_into(target, source.path) == 3
    assert json.loads((target.path / "dataset.json").read_text())["run_ids"] == ["r1", "old"]
