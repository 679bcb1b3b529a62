"""Preferences that leave for other tools and come back are the same preferences."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest

from rlhp.envs.spaces import Spaces
from rlhp.preferences.dataset import PreferenceDataset
from rlhp.preferences.exchange.imitation import import_imitation, import_npz
from rlhp.preferences.exchange.npz import NpzFile
from rlhp.preferences.exchange.tables import export
from rlhp.preferences.reuse import merge_into
from rlhp.types import Answer
from tests.preferences.dataset_samples import NESTED, PLAIN, K, answer, header, same, segment

LIKE = header() | {"spaces": PLAIN.to_json()}
PEER = Path(__file__).resolve().parents[2] / ".bench" / "imitation" / "bin" / "python"


def filled(path: Path, spaces: Spaces = PLAIN) -> PreferenceDataset:
    """Four answers, one of them incomparable, over segments of which one is short and
    one without env rewards.
    """
    dataset = PreferenceDataset.create(path, header=header(spaces))
    s = [segment(number, spaces, length=3 if number == 1 else K) for number in range(5)]
    s[2] = segment(2, spaces, env_reward=None)
    dataset.add_segments(s)
    dataset.add_events(
        [
            answer(s[0], s[1], Answer.TIE),
            answer(s[2], s[0], Answer.INCOMPARABLE),
            answer(s[0], s[3], Answer.FIRST),
            answer(s[4], s[3], Answer.SECOND, labeler="bob"),
        ]
    )
    return dataset


def known(dataset: PreferenceDataset) -> list[tuple[str, str, str, Answer, str]]:
    return [(p.query, p.first.id, p.second.id, p.answer, p.labeler) for p in dataset.preferences()]


@pytest.mark.parametrize("spaces", [PLAIN, NESTED])
def test_what_npz_holds_comes_back(tmp_path: Path, spaces: Spaces) -> None:
    dataset = filled(tmp_path / "preferences", spaces)
    export(dataset.path, tmp_path / "out.npz", to="npz")
    done = import_npz(tmp_path / "out.npz", tmp_path / "again")
    again = PreferenceDataset.open(done.out)
    assert (done.preferences, done.segments) == (4, 5)
    assert known(again) == known(dataset)
    for each in again.segment_ids():
        back, was = again.segment(each), dataset.segment(each)
        assert all(
            np.array_equal(back.obs[leaf.path], was.obs[leaf.path]) for leaf in spaces.obs.leaves
        )
        assert np.array_equal(back.actions, was.actions)
        assert (back.env_reward is None) == (was.env_reward is None)
        assert (back.length, back.terminated, back.truncated, back.env_steps) == (
            was.length, was.terminated, was.truncated, was.env_steps,
        )  # fmt: skip


def test_what_was_imported_can_be_reused_by_a_run(tmp_path: Path) -> None:
    export(filled(tmp_path / "preferences").path, tmp_path / "out.npz", to="npz")
    import_npz(tmp_path / "out.npz", tmp_path / "again")
    run = PreferenceDataset.create(tmp_path / "run", header=header(run_ids=["r2"]))
    assert merge_into(run, tmp_path / "again") == 4
    assert len(run.preferences()) == 4


def test_what_imitation_holds_comes_back(tmp_path: Path) -> None:
    dataset = filled(tmp_path / "preferences")
    done = export(dataset.path, tmp_path / "out.npz", to="imitation")
    assert (done.preferences, done.incomparable, done.segments) == (4, 1, 4)
    with np.load(tmp_path / "out.npz", allow_pickle=False) as found:
        assert found["preferences"].tolist() == [0.5, 1.0, 0.0]
        assert found["lengths"].tolist() == [K, 3, K, K, K, K]
        assert found["obs"].shape == (found["lengths"].sum() + 6, 3)
    again = PreferenceDataset.open(
        import_imitation(tmp_path / "out.npz", tmp_path / "again", like=dataset.header).out
    )
    assert known(again) == [each for each in known(dataset) if each[3] is not Answer.INCOMPARABLE]
    for each in again.segment_ids():
        assert np.array_equal(again.segment(each).obs[""], dataset.segment(each).obs[""])


def bare(path: Path, **changes: object) -> Path:
    """What a program that knows nothing of ours writes: one pair, three steps each."""
    arrays = {
        "obs": np.zeros((8, 3)), "acts": np.ones((6, 2)), "lengths": np.array([3, 3]),
        "terminal": np.array([False, True]), "preferences": np.array([0.75]),
    }  # fmt: skip
    arrays["obs"][4:] = 1.0
    np.savez(path, **(arrays | changes))  # type: ignore[arg-type]
    return path


def test_a_probability_becomes_the_likelier_answer_and_its_strength(tmp_path: Path) -> None:
    done = import_imitation(
        bare(tmp_path / "f.npz"), tmp_path / "d", like=LIKE | {"segment_length": 2}
    )
    dataset = PreferenceDataset.open(done.out)
    (row,) = dataset.events()
    assert (row.answer, row.strength, row.labeler, row.purpose) == (
        Answer.FIRST,
        0.5,
        "imitation",
        "train",
    )
    first, second = dataset.segments([row.first_id, row.second_id])
    assert (first.terminated, second.terminated, first.env_reward, dataset.segment_length) == (
        False,
        True,
        None,
        3,
    )
    assert not same(first, second)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        (
            {"acts": np.ones((5, 2))},
            "lengths add up to 6 steps, so 6 acts and 8 obs are needed; got 5 and 8",
        ),
        (
            {"preferences": np.array([1.5])},
            r"1 probabilities for 2 fragments: one in \[0, 1\] per pair",
        ),
        ({"preferences": np.array([1.0, 0.0])}, "2 probabilities for 2 fragments"),
        ({"preferences": np.array([{}])}, "cannot be imported"),
        (
            {"lengths": np.array([3, 2**63 + 3], np.uint64)},
            f"'lengths' is to fit into int64, got {2**63 + 3}",
        ),
    ],
)
def test_what_does_not_fit_is_refused_and_leaves_nothing(
    tmp_path: Path, changes: dict[str, object], complaint: str
) -> None:
    with pytest.raises(ValueError, match=complaint):
        import_imitation(bare(tmp_path / "f.npz", **changes), tmp_path / "d", like=LIKE)
    assert not (tmp_path / "d").exists()


def test_an_export_of_another_version_is_named(tmp_path: Path) -> None:
    export(filled(tmp_path / "d").path, tmp_path / "f.npz", to="npz")
    with np.load(tmp_path / "f.npz") as file:
        arrays = dict(file)
    arrays["header"] = np.array(
        json.dumps(json.loads(str(arrays["header"])) | {"schema_version": 99})
    )
    np.savez(tmp_path / "f.npz", **arrays)
    with pytest.raises(
        ValueError,
        match=r"f\.npz cannot be imported: .*schema_version 99, this version of rlhp reads",
    ):
        import_npz(tmp_path / "f.npz", tmp_path / "again")


@pytest.mark.parametrize(("value", "fits"), [(255, True), (256, False)])
def test_whole_numbers_do_not_become_others_in_a_smaller_type(
    tmp_path: Path, value: int, fits: bool
) -> None:
    np.savez(tmp_path / "f.npz", obs=np.array([7, value], np.uint16))
    found = NpzFile.read(tmp_path / "f.npz")
    if fits:
        assert found.numbers("obs", kinds="iu", shape=(None,), like="|u1").tolist() == [7, value]
    else:
        with pytest.raises(ValueError, match="'obs' is to fit into uint8, got 256"):
            found.numbers("obs", kinds="iu", shape=(None,), like="|u1")


def test_files_of_another_kind_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"lacks the array 'header'; docs/labeling.md lists what an import needs"
    ):
        import_npz(bare(tmp_path / "f.npz"), tmp_path / "d")
    (tmp_path / "text").write_text("not an npz")
    with pytest.raises(ValueError, match="cannot be imported"):
        import_npz(tmp_path / "text", tmp_path / "d")
    with pytest.raises(
        ValueError, match=r"one observation array, this dataset 3 leaves .*; export to npz"
    ):
        export(filled(tmp_path / "n", NESTED).path, tmp_path / "o.npz", to="imitation")


def lines_in_the_page(which: str) -> str:
    """The program on the page that begins with this comment."""
    page = (Path(__file__).resolve().parents[2] / "docs" / "labeling.md").read_text(
        encoding="utf-8"
    )
    (found,) = [part for part in page.split("```python\n")[1:] if part.startswith(f"# {which}")]
    return found.partition("```")[0]


@pytest.mark.optional
def test_imitation_itself_reads_and_writes_it_with_the_lines_in_the_page(tmp_path: Path) -> None:
    if (
        not PEER.exists()
        or subprocess.run([str(PEER), "-c", "import imitation"], check=False).returncode
    ):
        pytest.skip(
            "imitation has no environment here: python -m benchmarks.side_by_side makes one"
        )
    dataset = filled(tmp_path / "preferences")
    export(dataset.path, tmp_path / "pairs.npz", to="imitation")
    program = lines_in_the_page("into imitation") + lines_in_the_page("out of imitation")
    done = subprocess.run(
        [str(PEER), "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    back = import_imitation(tmp_path / "back.npz", tmp_path / "again", like=dataset.header)
    again = PreferenceDataset.open(back.out)
    said = [each for each in dataset.preferences() if each.answer is not Answer.INCOMPARABLE]
    for mine, theirs in zip(said, again.preferences(), strict=True):
        assert mine.answer == theirs.answer
        assert np.array_equal(mine.first.obs[""], theirs.first.obs[""])
        assert np.array_equal(mine.second.actions, theirs.second.actions)
