"""`rlhp export` and `rlhp import` from the command line: what goes out comes back, and
can be trained on.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rlhp.cli import data as exchange
from rlhp.cli import main
from rlhp.config import loading
from rlhp.preferences.dataset import PreferenceDataset
from rlhp.storage.rundir import RunDir
from tests.preferences.dataset_samples import answer, header, segment


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run directory with two answers."""
    config = loading.parse({"env": {"id": "E"}, "runs_dir": str(tmp_path), "name": "demo"})
    rundir = RunDir.create(config, "demo")
    dataset = PreferenceDataset.create(rundir.preferences, header=header())
    s = [segment(number) for number in range(4)]
    dataset.add_segments(s)
    dataset.add_events([answer(s[0], s[1]), answer(s[2], s[3], labeler="bob")])
    return rundir.path


def rlhp(*words: object) -> int:
    return main.run([str(word) for word in words])


@pytest.mark.parametrize("form", ["npz", "imitation"])
def test_there_and_back(
    run: Path, tmp_path: Path, form: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out, again = tmp_path / "pairs.npz", tmp_path / "imported"
    assert rlhp("export", run, "--to", form, "--out", out) == 0
    like = ["--like", run] if form == "imitation" else []
    assert rlhp("import", out, "--from", form, "--out", again, *like) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == f"{out}: 2 preferences (0 incomparable), 4 segments"
    assert said[1:] == [
        f"{again}: 2 preferences, 4 segments",
        f"train on them with --set labels.reuse={again}",
    ]
    assert [p.labeler for p in PreferenceDataset.open(again).preferences()] == ["ann", "bob"]


def test_mistakes_are_one_line(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "f").write_text("{}")
    assert rlhp("import", tmp_path / "f", "--from", "imitation", "--out", tmp_path / "o") == 2
    assert "--like RUN is needed for imitation and label-studio" in capsys.readouterr().err
    assert rlhp("export", run, "--to", "npz", "--out", tmp_path / "o", "--pairs", 3) == 2
    assert "--pairs and --url are for label-studio, not for npz" in capsys.readouterr().err
    assert rlhp("import", tmp_path / "f", "--from", "npz", "--out", tmp_path / "o") == 2
    assert "cannot be imported" in capsys.readouterr().err
    assert not (tmp_path / "o").exists()


def test_annotations_come_back(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stored = PreferenceDataset.open(run)
    row = stored.live()[0]
    data = {
        "query": row.query_id,
        "first": row.first_id,
        "second": row.second_id,
        "shown_left": "first",
    }
    result = [{"from_name": "preference", "value": {"choices": ["right"]}}]
    task = {"data": data, "annotations": [{"completed_by": 1, "result": result}]}
    (tmp_path / "p.json").write_text(json.dumps([task]))
    assert (
        rlhp(
            "import",
            tmp_path / "p.json",
            "--from",
            "label-studio",
            "--like",
            run,
            "--out",
            tmp_path / "o",
        )
        == 0
    )
    assert [p.answer.value for p in PreferenceDataset.open(tmp_path / "o").preferences()] == [
        "second"
    ]


def test_the_formats_are_those_that_exist() -> None:
    from typing import get_args

    from rlhp.preferences.exchange.tables import Format

    to = next(each for each in exchange.export.params if each.name == "to")
    assert set(to.type.choices) == {*get_args(Format), "label-studio"}  # type: ignore[attr-defined]
