"""What `import rlhp` gives: training, a run looked at, and its policy outside of it,
from a script or a notebook.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

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


def test_what_other_processes_cannot_import_is_refused_with_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(rlhp.RlhpError, match=r"labels\.teacher\.name.*serial=True"):
        rlhp.train(plain(tmp_path), teacher=Taller())
    assert not list(tmp_path.iterdir())


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


NOTEBOOK = """
import asyncio
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

async def cell():
    return rlhp.train({PLAIN}, env=Slider, sets=["env.max_episode_steps=20"], serial=True)

run = asyncio.run(cell())
print("state", run.state, "action", run.policy()(np.zeros(1, np.float32)).shape)
"""
SCRIPT = """
import rlhp
from tests.environments import Drift

run = rlhp.train({PLAIN}, env=Drift, sets=["rollout.num_env_runners=1"])
print("state", run.state, "env", run.config.env.id)
"""


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (NOTEBOOK, "state finished action (1,)"),
        (SCRIPT, "state finished env tests.environments:Drift"),
    ],
    ids=["notebook", "script"],
)
def test_a_notebook_with_its_own_classes_and_a_script_without_a_guard(
    tmp_path: Path, code: str, said: str
) -> None:
    script = tmp_path / "mine.py"
    data = {**plain(tmp_path), "env": {"max_episode_steps": 20}}
    if code is NOTEBOOK:
        data["labels"] = {**SMALL["labels"], "teacher": {"name": "oracle"}}
    script.write_text(code.replace("{PLAIN}", repr(data)))
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, env=child(), check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == said
