"""What `import rlhp` gives: training, a run looked at, and its policy outside of it,
from a script or a notebook.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import warnings
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient

import rlhp
from rlhp.envs.make import make_env
from tests.small_runs import SMALL

SOURCE = """
import sys
import rlhp
print(sorted({"torch", "ray", "pandas", "pyarrow", "gymnasium"} & set(sys.modules)))
"""


def plain(folder: Path) -> dict[str, Any]:
    """A run as small as it can be, below this folder."""
    return {**SMALL, "runs_dir": str(folder)}


def short(folder: Path) -> dict[str, Any]:
    """The same, with episodes that end soon."""
    return {**plain(folder), "env": {"max_episode_steps": 20}}


def child() -> dict[str, str]:
    """Environment variables of a program that is to find this checkout."""
    return {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}


class Taller:
    """Prefers the higher first number of the observation."""

    def __init__(self) -> None:
        self.asked = 0

    def answer(self, query: rlhp.Query) -> rlhp.Answer:
        self.asked += 1
        first, second = (
            float(next(iter(each.obs.values())).mean()) for each in (query.first, query.second)
        )
        return rlhp.Answer.FIRST if first > second else rlhp.Answer.SECOND


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, ray_session: None) -> rlhp.Run:
    rows: list[dict[str, Any]] = []
    made = rlhp.train(plain(tmp_path_factory.mktemp("api")), serial=True, on_row=rows.append)
    assert [row["env_steps"] for row in rows] == list(made.metrics()["env_steps"])
    return made


def test_importing_it_loads_nothing_heavy_and_names_are_there() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SOURCE], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
    assert all(getattr(rlhp, name) is not None for name in dir(rlhp))
    with pytest.raises(AttributeError, match="trian"):
        rlhp.trian  # noqa: B018


def test_a_run_is_looked_at(run: rlhp.Run) -> None:
    assert run.state == "finished"
    assert run.summary is not None
    assert run.summary["env_steps"] == run.metrics()["env_steps"].max()
    assert "finished" in run.status()
    assert len(run.preferences().preferences()) == run.summary["labels_answered"] > 0
    assert rlhp.evaluate(run, episodes=2)["episodes"] == 2
    assert repr(rlhp.Run(run.path)) == repr(run)
    with pytest.raises(rlhp.RlhpError, match="no such run directory"):
        rlhp.Run(run.path / "nowhere")


def test_its_policy_acts_in_any_copy_of_the_environment(run: rlhp.Run) -> None:
    policy = run.policy()
    env = make_env(run.config.env)
    obs, _ = env.reset(seed=1)
    for _ in range(5):
        action = policy(obs)
        assert env.action_space.contains(action)
        np.testing.assert_array_equal(action, policy(obs))
        obs, *_ = env.step(action)
    drawn = run.policy(explore=True)
    assert not np.array_equal(drawn(obs), drawn(obs))


def test_a_teacher_that_no_module_names_answers_in_a_serial_run(
    tmp_path: Path, ray_session: None
) -> None:
    teacher = Taller()
    made = rlhp.train(plain(tmp_path), serial=True, teacher=teacher, name="taught")
    assert teacher.asked == len(made.preferences().preferences()) > 0
    assert made.path.name == "taught"


def test_what_cannot_be_copied_to_other_processes_is_refused_with_the_way_out(
    tmp_path: Path,
) -> None:
    teacher = Taller()
    teacher.lock = threading.Lock()  # type: ignore[attr-defined]
    with pytest.raises(rlhp.RlhpError, match=r"labels\.teacher\.name.*serial=True"):
        rlhp.train(plain(tmp_path), teacher=teacher)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("argument", ["env", "reward_module"])
def test_what_a_run_makes_several_times_is_no_object_that_is_made(
    tmp_path: Path, argument: str
) -> None:
    with pytest.raises(rlhp.RlhpError, match=r"class or a function.*made already"):
        rlhp.train(plain(tmp_path), **{argument: Taller()})  # type: ignore[arg-type]


def test_a_config_is_read_from_a_file_plain_data_or_one_that_was_loaded(tmp_path: Path) -> None:
    data = plain(tmp_path)
    (tmp_path / "a.yaml").write_text("env: {id: Pendulum-v1}\n")
    assert rlhp.load_config(tmp_path / "a.yaml").env.id == "Pendulum-v1"
    config = rlhp.load_config(data, sets=["labels.budget=7"])
    assert config.labels.budget == 7
    again = rlhp.load_config(config, sets=["seed=5"])
    assert (again.seed, again.labels.budget, again.learner) == (5, 7, config.learner)
    with pytest.raises(rlhp.RlhpError, match="did you mean labels"):
        rlhp.load_config({"label": {"budget": 3}})


SCRIPT = """
import rlhp
from tests.environments import Drift

class Taller:
    def answer(self, query):
        first, second = (next(iter(s.obs.values())).mean() for s in (query.first, query.second))
        return rlhp.Answer.FIRST if first > second else rlhp.Answer.SECOND

run = rlhp.train({PLAIN}, env=Drift, teacher=Taller, sets=["rollout.num_env_runners=1"])
print("state", run.state, "env", run.config.env.id, "answers", len(run.preferences().preferences()))
"""


def test_a_script_without_a_guard_trains_with_its_own_classes(tmp_path: Path) -> None:
    script = tmp_path / "mine.py"
    script.write_text(SCRIPT.replace("{PLAIN}", repr(short(tmp_path))))
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, env=child(), check=False
    )
    assert done.returncode == 0, done.stderr
    asked = SMALL["labels"]["budget"]
    said = f"state finished env tests.environments:Drift answers {asked}"
    assert done.stdout.splitlines()[-1] == said


CELLS = [
    """
import gymnasium as gym
import numpy as np
import rlhp

class Slider(gym.Env):
    observation_space = gym.spaces.Box(-1, 1, (1,), np.float32)
    action_space = gym.spaces.Box(-1, 1, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place = self.np_random.uniform(-1, 1, 1).astype(np.float32)
        return self.place, {}

    def step(self, action):
        self.place = np.clip(self.place + action, -1, 1).astype(np.float32)
        return self.place, -abs(float(self.place[0])), False, False, {}

rows = []
""",
    """
alone = rlhp.train(
    {PLAIN}, env=Slider, name="alone", serial=True, on_row=rows.append
)
assert rows and alone.policy()(np.zeros(1, np.float32)).shape == (1,)
alone.state
""",
    """
spread = rlhp.train(
    {PLAIN}, env=Slider, name="spread", sets=["rollout.num_env_runners=1"]
)
assert spread.evaluate(episodes=1)["episodes"] == 1
len(spread.metrics()) > 0, spread.state
""",
]


def test_a_notebook_trains_with_its_own_classes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for key, value in child().items():
        monkeypatch.setenv(key, value)
    data = {**short(tmp_path), "labels": {**SMALL["labels"], "teacher": {"name": "oracle"}}}
    sources = [cell.replace("{PLAIN}", repr(data)) for cell in CELLS]
    kinds = nbformat.v4
    cells = [kinds.new_code_cell(source) for source in sources]  # type: ignore[no-untyped-call]
    book = kinds.new_notebook(cells=cells)  # type: ignore[no-untyped-call]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what a Jupyter kernel says of its own start
        NotebookClient(book, timeout=240, kernel_name="python3").execute(cwd=str(tmp_path))
    shown = [
        output["data"]["text/plain"]
        for cell in book.cells
        for output in cell["outputs"]
        if output["output_type"] == "execute_result"
    ]
    assert shown == ["'finished'", "(True, 'finished')"]
