"""A run that sees pixels alone, end to end: frames through Redis and onto the disk,
answers, a policy.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rlhp import program
from rlhp.config.schema import RunConfig
from rlhp.preferences.dataset import PreferenceDataset
from rlhp.reward.versions import RewardStore
from rlhp.storage.metrics import read_metrics
from rlhp.storage.rundir import RunDir
from tests.program_parts import ON_THE_CLOCK
from tests.small_runs import small

pytestmark = pytest.mark.usefixtures("ray_session")


def dot(directory: Path, **changes: Any) -> RunConfig:
    """A dot in a field of 12 x 12 pixels, and networks to go with it."""
    settings: dict[str, Any] = {
        "env": {"id": "MovingDot-v0", "kwargs": {"size": 12}, "max_episode_steps": 20},
        "labels": {"budget": 12, "teacher": {"name": "oracle"}},
        "reward": {"dropout": 0.2, "use_action": False, "hidden": [8]},
        "runs_dir": str(directory),
    }
    return small(**{**settings, **changes})


def train(config: RunConfig) -> tuple[RunDir, list[dict[str, Any]]]:
    rundir = RunDir.create(config, "dot")
    program.train(config, rundir=rundir, serial=True)
    rows = [
        {name: row[name] for name in row if name not in ON_THE_CLOCK}
        for row in read_metrics(rundir.metrics_file)
    ]
    return rundir, rows


def test_a_run_on_pixels_reaches_its_end_and_repeats_itself(tmp_path: Path) -> None:
    rundir, rows = train(dot(tmp_path / "one"))
    assert rows[-1]["labels/answered"] == 12
    dataset = PreferenceDataset.open(rundir.preferences)
    assert dataset.spaces.obs.picture == (2, 12, 12)
    for preference in dataset.preferences():
        for segment in (preference.first, preference.second):
            obs = segment.obs[""]
            assert obs.dtype == np.uint8
            assert obs.shape == (segment.length + 1, 2, 12, 12)
            np.testing.assert_array_equal(obs[1:, 0], obs[:-1, 1])
            assert ((obs == 255).sum((2, 3)) == 4).all(), "every frame shows one dot"
    newest = RewardStore(rundir.path / "reward").newest()
    assert newest is not None
    assert newest.version > 1
    assert newest.architecture.network == "cnn_small"
    assert (rundir.path / "videos" / "policy.webm").exists()
    _, again = train(dot(tmp_path / "two"))
    assert again == rows


def test_the_control_arm_sees_pixels_too(tmp_path: Path) -> None:
    _, rows = train(dot(tmp_path, labels={"source": "none"}, learner={"total_env_steps": 180}))
    assert rows[-1]["env_steps"] >= 180
