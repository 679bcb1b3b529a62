"""Which convolutional network reads which pictures."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from rlhp.config.schema import Network
from rlhp.models.convolution import POLICY, REWARD, Convolution, choose

ATARI, DOT, COLORS = (4, 84, 84), (2, 24, 24), (3, 210, 160)


@pytest.mark.parametrize("picture", [ATARI, DOT, COLORS])
@pytest.mark.parametrize(
    "convolution",
    [POLICY["cnn_small"], REWARD["cnn_small"], REWARD["cnn_coarse"], REWARD["cnn"], POLICY["mlp"]],
)
def test_features_are_counted_as_torch_counts_them(
    convolution: Convolution, picture: tuple[int, int, int]
) -> None:
    if convolution is REWARD["cnn"] and picture is DOT:
        return
    factor = convolution.factor(picture)
    hidden = nn.AvgPool2d(factor)(torch.zeros(1, *picture))
    for filters, kernel, stride in convolution.layers:
        hidden = nn.Conv2d(hidden.shape[1], filters, kernel, stride)(hidden)
    assert convolution.features(picture) == hidden.numel()


@pytest.mark.parametrize(
    ("network", "picture", "chosen"),
    [
        ("auto", ATARI, "cnn"),
        ("auto", DOT, "cnn_small"),
        ("auto", None, None),
        ("mlp", None, None),
        ("mlp", DOT, "mlp"),
        ("cnn_small", ATARI, "cnn_small"),
    ],
)
def test_auto_goes_by_the_picture(
    network: Network, picture: tuple[int, int, int] | None, chosen: str | None
) -> None:
    assert choose(network, picture, of=REWARD, key="reward.network") == chosen


def test_what_cannot_be_read_is_refused_with_a_way_out() -> None:
    with pytest.raises(
        ValueError, match=r"learner\.network=cnn reads pictures, .*; set learner\.network=auto"
    ):
        choose("cnn", None, of=POLICY, key="learner.network")
    with pytest.raises(
        ValueError, match=r"cnn is too deep for pictures of 24 x 24 pixels; set k=cnn_small"
    ):
        choose("cnn", DOT, of=REWARD, key="k")
