"""How a teacher is named: the published presets, one of one's own, and one line for
what is wrong with it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rlhp.config.schema import TeacherConfig
from rlhp.labeling.teachers import PRESETS, BPrefTeacher, make_teacher
from rlhp.types import Answer, Query
from tests.labeling.parts import segment

FIRST, SECOND = Answer.FIRST, Answer.SECOND


def knobs(name: str, **overrides: Any) -> dict[str, float | None]:
    teacher = make_teacher(TeacherConfig(name=name, **overrides), seed=9)
    assert isinstance(teacher, BPrefTeacher)
    assert teacher.seed == 9
    plain = {"beta": None, "gamma": 1.0, "mistake": 0.0, "skip": 0.0, "equal": 0.0}
    return {
        knob: getattr(teacher, knob)
        for knob, value in plain.items()
        if getattr(teacher, knob) != value
    }


def test_the_presets_are_the_published_ones() -> None:
    assert {name: knobs(name) for name in PRESETS} == {
        "oracle": {},
        "noisy": {"beta": 1.0},
        "mistake": {"mistake": 0.1},
        "skip": {"skip": 0.1},
        "equal": {"equal": 0.1},
        "myopic": {"gamma": 0.9},
    }


def test_keys_that_are_set_count_on_top_of_the_preset() -> None:
    assert knobs("mistake", mistake=0.3, beta=2.0) == {"mistake": 0.3, "beta": 2.0}
    assert knobs("skip", skip=0.0) == {}


def test_a_misspelled_preset_is_told_the_right_spelling() -> None:
    with pytest.raises(
        ValueError,
        match=r"a teacher is one of oracle, noisy, .*got 'orcale'; did you mean 'oracle'\?",
    ):
        make_teacher(TeacherConfig(name="orcale"), seed=0)


def test_keys_of_the_other_kind_of_teacher_are_refused() -> None:
    with pytest.raises(
        ValueError, match=r"teacher\.kwargs are for a teacher of your own, got .* with 'noisy'"
    ):
        make_teacher(TeacherConfig(name="noisy", kwargs={"beta": 2}), seed=0)
    with pytest.raises(
        ValueError,
        match=r"beta, skip belong to the built-in teachers.*pass them in teacher\.kwargs",
    ):
        make_teacher(TeacherConfig(name="mine:Mine", beta=1, skip=0.1), seed=0)


def test_a_teacher_of_ones_own_is_named_with_its_kwargs() -> None:
    config = TeacherConfig(name="tests.labeling.own_teacher:TallerIsBetter", kwargs={"margin": 0.5})
    teacher = make_teacher(config, seed=0)
    taller = segment([0, 0], name="tall", obs=[[2.0], [2.0], [2.0]])
    smaller = segment([9, 9], name="small", obs=[[1.0], [1.0], [1.0]])
    assert teacher.answer(Query(id="q", candidates=(taller, smaller))) is FIRST
    assert teacher.answer(Query(id="q", candidates=(smaller, taller))) is SECOND


def test_the_example_of_ones_own_teacher_is_under_25_lines() -> None:
    assert len((Path(__file__).parent / "own_teacher.py").read_text().splitlines()) < 25


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory that is not on the import path."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path / "unrelated"))  # restores sys.path afterwards
    return tmp_path


def test_a_module_in_the_working_directory_is_found_and_given_the_seed(elsewhere: Path) -> None:
    (elsewhere / "teacher_in_cwd.py").write_text(
        "class Mine:\n"
        "    def __init__(self, seed, shift=0):\n"
        "        self.seed = seed + shift\n"
        "    def answer(self, query):\n"
        "        return None\n"
    )
    assert vars(
        make_teacher(TeacherConfig(name="teacher_in_cwd:Mine", kwargs={"shift": 2}), seed=40)
    ) == {"seed": 42}
    assert vars(
        make_teacher(TeacherConfig(name="teacher_in_cwd:Mine", kwargs={"seed": 1}), seed=40)
    ) == {"seed": 1}


@pytest.mark.parametrize(
    ("name", "source", "message"),
    [
        ("wrong_a:", "", r"labels\.teacher\.name is named package\.module:Name, got 'wrong_a:'"),
        (
            "not_there:Mine",
            "",
            r"'not_there' cannot be imported \(ModuleNotFoundError: No module named 'not_there'\)",
        ),
        (
            "wrong_c:Mine",
            "1 / 0\n",
            r"'wrong_c' cannot be imported \(ZeroDivisionError: division by zero\)",
        ),
        (
            "wrong_d:Mime",
            "class Mine: ...\n",
            r"module 'wrong_d' has no 'Mime'; did you mean 'Mine'\?",
        ),
        (
            "wrong_e:Mine",
            "class Mine: ...\n",
            r"teacher 'wrong_e:Mine' has no method answer\(query\)",
        ),
        (
            "wrong_f:Mine",
            "Mine = 3\n",
            r"teacher 'wrong_f:Mine' is a int, not a class or a function that builds one",
        ),
        (
            "wrong_g:Mine",
            "def Mine(): raise OSError('no\\ndisk')\n",
            r"could not be built with \{\}: OSError: no disk",
        ),
    ],
)
def test_what_is_wrong_with_a_teacher_is_told_in_one_line(
    elsewhere: Path, name: str, source: str, message: str
) -> None:
    (elsewhere / (name.partition(":")[0] + ".py")).write_text(source) if source else None
    with pytest.raises(ValueError, match=message) as caught:
        make_teacher(TeacherConfig(name=name), seed=0)
    assert "\n" not in str(caught.value)
