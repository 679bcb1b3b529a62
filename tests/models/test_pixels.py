"""What networks see of pictures: bytes as 0 to 1, or pixels as they differ from the
first ones.
"""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from rlhp.models.pixels import CLIP, FLOOR, Pixels


def some(count: int = 40, *, seed: int = 0, size: int = 6) -> torch.Tensor:
    """[count, 2, size, size] bytes."""
    drawn = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 2, size, size), generator=drawn, dtype=torch.uint8)


@pytest.mark.parametrize("factor", [1, 2])
def test_scaled_pictures_go_from_0_to_1(factor: int) -> None:
    pixels = Pixels((2, 6, 6), factor=factor, standardize=False)
    pixels.meet(some())
    expected = functional.avg_pool2d(some().float(), factor) / 255
    torch.testing.assert_close(pixels(some()), expected)
    assert pixels.state_dict() == {}, "nothing to save"


@pytest.mark.parametrize("factor", [1, 2])
def test_standardized_ones_are_as_the_first_are_scaled_whatever_comes_later(factor: int) -> None:
    pixels = Pixels((2, 6, 6), factor=factor, standardize=True)
    torch.testing.assert_close(pixels(some()), functional.avg_pool2d(some().float(), factor) / 255)
    pixels.meet(some())
    pixels.meet(some(seed=1) // 4)
    first = functional.avg_pool2d(some().double(), factor)
    later = functional.avg_pool2d(some(seed=2).double(), factor)
    slow = (later - first.mean(0)) / (first.std(0, correction=0) + FLOOR)
    torch.testing.assert_close(pixels(some(seed=2)), slow.float(), rtol=1e-4, atol=1e-5)
    again = Pixels((2, 6, 6), factor=factor, standardize=True)
    again.load_state_dict(pixels.state_dict())
    again.meet(some(seed=3))
    torch.testing.assert_close(again(some(seed=2)), pixels(some(seed=2)), rtol=0, atol=0)


def test_a_pixel_that_never_changed_is_no_more_than_the_clip() -> None:
    still = torch.full((10, 2, 6, 6), 87, dtype=torch.uint8)
    pixels = Pixels((2, 6, 6), factor=1, standardize=True)
    pixels.meet(still)
    assert (pixels(still).abs() < 1e-4).all()
    still[3, 0, 2, 2] = 147
    seen = pixels(still)
    assert seen[3, 0, 2, 2] == CLIP
    assert (seen.abs() < 1e-4).sum() == seen.numel() - 1


def test_networks_side_by_side_see_what_each_would_alone() -> None:
    pixels = Pixels((2, 6, 6), factor=2, standardize=True)
    pixels.meet(some())
    side_by_side = torch.cat([some(seed=1), some(seed=2)], dim=1)
    alone = torch.cat([pixels(some(seed=seed)) for seed in (1, 2)], dim=1)
    torch.testing.assert_close(pixels(side_by_side, copies=2), alone, rtol=0, atol=0)


def test_pictures_that_are_floats_already_stay_as_they_are() -> None:
    given = some().float().contiguous(memory_format=torch.channels_last)
    for standardize in (False, True):
        Pixels((2, 6, 6), factor=1, standardize=standardize)(given)
        assert torch.equal(given, some().float())
