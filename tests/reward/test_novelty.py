"""How far the policy is from what was asked about."""

from __future__ import annotations

import pytest
import torch

from rlhp.reward.fit import FEWEST, Fitter, novelty
from tests.reward.fit_samples import SCALE, SPACES, config, preferences, transitions


def drawn(count: int, *, seed: int, shift: float = 0.0) -> torch.Tensor:
    return torch.randn(count, 4, generator=torch.Generator().manual_seed(seed)) + shift


def test_what_was_asked_about_is_about_one_away_and_what_is_far_is_far() -> None:
    asked = drawn(300, seed=0)
    near, far = novelty(drawn(100, seed=1), asked), novelty(drawn(100, seed=1, shift=6.0), asked)
    assert near is not None
    assert far is not None
    assert 0.7 < near < 1.4
    assert far > 5
    assert novelty(drawn(100, seed=1), torch.cat([asked, asked])) == near, (
        "a segment that was in two queries counts once"
    )


def test_a_little_way_from_a_line_that_was_asked_about_densely_is_not_far() -> None:
    line = torch.linspace(0, 1, 500)[:, None]
    found = novelty(torch.full((10, 1), 1.2), line)
    assert found is not None
    assert found < 1


def test_too_little_to_compare_gives_nothing() -> None:
    assert novelty(drawn(10, seed=0), drawn(FEWEST - 1, seed=1)) is None
    assert novelty(drawn(0, seed=0), drawn(50, seed=1)) is None
    assert novelty(drawn(10, seed=0), torch.zeros(50, 4)) is None, "all asked about the same point"


@pytest.mark.parametrize("away", [0.0, 8.0])
def test_a_fitter_compares_recent_transitions_with_its_preferences(away: float) -> None:
    made = Fitter(config(members=2, reservoir=200), spaces=SPACES, seed=0)
    assert made.novelty() is None
    obs, actions = transitions(600, seed=3)
    made.observe(obs, actions)
    made.add(preferences(60))
    made.pretrain(1)
    made.observe((obs[:200] + away * SCALE).astype("float32"), actions[:200])
    found = made.novelty()
    assert found is not None
    assert (found > 2) == (away > 0)
