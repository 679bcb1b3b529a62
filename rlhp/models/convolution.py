"""Convolutional networks by name, for policies and for rewards: how many layers, and
for which pictures.

    network      policy               reward
    cnn          Mnih et al. 2015     Christiano et al. 2017, A.2
    cnn_coarse   two layers, of which the first goes in large steps: the fastest on a CPU
    cnn_small    two layers, for small pictures
    mlp          none: pixels as a row of numbers
    auto         cnn for pictures of 64 pixels and more, cnn_small for smaller ones, mlp for all
                 other observations
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from rlhp.config.schema import Network
from rlhp.errors import RlhpError

Picture = tuple[int, int, int]
"""C, H, W."""

LARGE = 64
"""Pixels along the shorter edge, from which a picture is large."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Convolution:
    """Layers of (filters, kernel, stride), no padding."""

    layers: tuple[tuple[int, int, int], ...]
    halve_large: bool = False
    """Large pictures are first averaged over squares of 2 x 2."""
    normalize: bool = False
    """Batch normalization after each layer."""

    def factor(self, picture: Picture) -> int:
        """Edge of the squares that are averaged before the first layer; 1 for none."""
        return 2 if self.halve_large and min(picture[1:]) >= LARGE else 1

    def shapes(self, picture: Picture) -> list[Picture]:
        """Of what each layer puts out; an edge of 0 or less where the picture is too
        small.
        """
        factor = self.factor(picture)
        height, width = picture[1] // factor, picture[2] // factor
        found: list[Picture] = []
        for filters, kernel, stride in self.layers:
            height, width = (height - kernel) // stride + 1, (width - kernel) // stride + 1
            found.append((filters, height, width))
        return found

    def features(self, picture: Picture) -> int:
        """Numbers that the last layer puts out; without layers, all that the picture
        holds.
        """
        return prod(self.shapes(picture)[-1] if self.layers else picture)


_BOTH = {
    "mlp": Convolution(layers=()),
    "cnn_coarse": Convolution(layers=((16, 8, 4), (16, 3, 2)), halve_large=True),
    "cnn_small": Convolution(layers=((16, 4, 2), (16, 3, 2)), halve_large=True),
}
POLICY = {**_BOTH, "cnn": Convolution(layers=((32, 8, 4), (64, 4, 2), (64, 3, 1)))}
REWARD = {
    **_BOTH,
    "cnn": Convolution(layers=((16, 7, 3), (16, 5, 2), (16, 3, 1), (16, 3, 1)), normalize=True),
}


def choose(
    network: Network, picture: Picture | None, *, of: dict[str, Convolution], key: str
) -> str | None:
    """A name in `of`, None for observations that are no pictures; ValueError, which
    names `key`, for what cannot be.
    """
    if picture is None:
        if network in ("auto", "mlp"):
            return None
        raise RlhpError(
            f"{key}={network} reads pictures, and what this environment shows is none (a uint8 "
            f"Box of three dimensions); set {key}=auto"
        )
    if network == "auto":
        network = "cnn" if min(picture[1:]) >= LARGE else "cnn_small"
    if any(min(shape) < 1 for shape in of[network].shapes(picture)):
        other = "mlp" if network == "cnn_small" else "cnn_small"
        raise RlhpError(
            f"{key}={network} is too deep for pictures of {picture[1]} x {picture[2]} pixels; set "
            f"{key}={other}"
        )
    return network
