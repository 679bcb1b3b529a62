"""A game through the whole program: emulator, env runner, Redis, teacher, dataset,
reward ensemble, policy, film.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rlhp import program
from rlhp.frames import nbytes, slides
from rlhp.preferences.dataset import PreferenceDataset
from rlhp.storage.metrics import read_metrics
from rlhp.storage.rundir import RunDir
from tests.small_runs import small

pytestmark = pytest.mark.usefixtures("ray_session")
pytest.importorskip(
    "ale_py", reason="Atari games need ale-py, which is not installed: pip install ale-py"
)


def test_a_policy_is_trained_on_a_game_from_a_teacher_s_answers(tmp_path: Path) -> None:
    config = small(
        runs_dir=str(tmp_path),
        env={
            "id": "ALE/Breakout-v5",
            "hide_termination": True,
            "termination_penalty": 1.0,
            "max_episode_steps": 40,
            "atari": {"size": 42, "stack": 3},
        },
        rollout={"num_envs_per_env_runner": 2},
        labels={"budget": 16, "initial_share": 0.75, "teacher": {"name": "oracle"}},
        query={"segment_length": 10},
        reward={"network": "cnn_small", "pretrain_epochs": 1},
        learner={"network": "cnn_small", "total_env_steps": 480},
        clips={"enabled": True},
    )
    rundir = RunDir.create(config, "small")
    summary = program.train(config, rundir=rundir, serial=True)
    assert summary.env_steps >= 480
    rows = read_metrics(rundir.metrics_file)
    assert max(row.get("reward/version", 0) for row in rows) >= 1
    assert any(np.isfinite(row.get("predicted_return_mean", np.nan)) for row in rows)
    dataset = PreferenceDataset.open(rundir.path)
    assert len(dataset.preferences()) >= 12
    for preference in dataset.preferences():
        for segment in (preference.first, preference.second):
            assert segment.obs[""].shape == (11, 3, 42, 42)
            assert slides(segment.obs[""])
            assert nbytes(segment.obs[""]) == 13 * 42 * 42
            assert segment.state_kind == "replay"
