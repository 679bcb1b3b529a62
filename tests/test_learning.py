"""It learns: on a task whose reward is known, from preferences alone, over seeds, by a
test and not by eye.

The task is `Drift`: a point that is paid for being near the origin, twenty steps an
episode. Five seeds train from 200 answers each; every seed's policy is compared with
uniform actions on the same starts.
"""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from rlhp import program
from rlhp.run.summary import Summary
from rlhp.storage.metrics import read_metrics
from rlhp.storage.rundir import RunDir
from tests.small_runs import small

pytestmark = [pytest.mark.usefixtures("ray_session"), pytest.mark.learning]

SEEDS = range(5)
LEVEL = 0.05
"""Level of the permutation test: with five seeds a sign flip of all has probability
1/32.
"""


@pytest.fixture(scope="module")
def trained(
    tmp_path_factory: pytest.TempPathFactory,
) -> list[tuple[Summary, list[dict[str, float]]]]:
    """The end of one run per seed, and its metrics."""
    found = []
    for seed in SEEDS:
        config = small(
            seed=seed,
            name=f"learn-{seed}",
            runs_dir=str(tmp_path_factory.mktemp("runs")),
            labels={"budget": 200, "teacher": {"name": "oracle"}},
            reward={
                "hidden": [32, 32],
                "members": 3,
                "pretrain_epochs": 100,
                "lr": 3e-3,
                "batch_size": 16,
                "publish_every_steps": 1000,
                "label_uses_per_step": 1.0,
                "target_std": 0.1,
            },
            learner={
                "hidden": [32, 32],
                "train_batch_size": 600,
                "minibatch_size": 60,
                "num_epochs": 8,
                "lr": 3e-3,
                "gamma": 0.9,
                "log_std_init": -0.5,
                "total_env_steps": 9_000,
            },
            evaluation={"episodes": 30},
        )
        rundir = RunDir.create(config, "learn")
        summary = program.train(config, rundir=rundir, serial=True)
        found.append((summary, read_metrics(rundir.metrics_file)))
    return found


def test_preferences_alone_make_a_policy_that_beats_chance(
    trained: list[tuple[Summary, list[dict[str, float]]]],
) -> None:
    gains = np.array([summary.true_return - summary.random_return for summary, _ in trained])
    flips = np.array(list(itertools.product((-1, 1), repeat=len(gains))))
    as_large = ((flips * gains).mean(1) >= gains.mean() - 1e-12).mean()
    assert as_large <= LEVEL, f"gains over chance by seed: {gains.round(2).tolist()}"


def test_held_out_answers_are_ranked_better_than_by_chance(
    trained: list[tuple[Summary, list[dict[str, float]]]],
) -> None:
    accuracies = [rows[-1]["reward/heldout_accuracy"] for _, rows in trained]
    assert min(accuracies) > 0.5, f"by seed: {accuracies}"


def test_no_more_was_asked_than_the_budget(
    trained: list[tuple[Summary, list[dict[str, float]]]],
) -> None:
    assert all(summary.labels_answered <= 200 for summary, _ in trained)
    assert all(summary.labels_answered >= 190 for summary, _ in trained)


def test_the_seed_changes_the_run(
    trained: list[tuple[Summary, list[dict[str, float]]]], tmp_path: Path
) -> None:
    assert len({summary.true_return for summary, _ in trained}) == len(trained)
