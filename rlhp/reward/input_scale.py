"""The scale on which reward networks see observations: set when fitting begins, and moved along with what is observed.

Only an ensemble of MLPs can take up a change of scale, in its first layer. Convolutions cannot, where it is another at
each place of the picture, and nobody knows how a user's module would: for them the first scale stays.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from rlhp.reward.examples import Examples
from rlhp.reward.network import Ensemble, Network
from rlhp.reward.normalizer import Moments, Reservoir
from rlhp.reward.optimizer import rescale_memory
from rlhp.reward.picture_network import PictureEnsemble
from rlhp.spaces import Spaces

SOME = 16
"""Preferences that stand in for transitions where none were observed yet."""


def scale_inputs(
    network: Network,
    reservoir: Reservoir,
    examples: Examples,
    *,
    spaces: Spaces,
    optimizer: torch.optim.Optimizer,
    again: bool,
) -> None:
    """Standardize inputs by all that was observed, or by the preferences where nothing was yet.

    `again`: not the first time, so that rewards have to stay what they were.
    """
    if isinstance(network, PictureEnsemble):
        if not again:
            network.pixels.meet(_pictures(reservoir, examples).to(network.batches.device))
        return
    if not hasattr(network, "inputs"):  # a user's module for pictures, which it sees as 0 to 1
        return
    moments = _moments(reservoir, examples)
    mean, std = moments.mean.copy(), moments.std.copy()
    if spaces.action.choices:
        mean[spaces.obs.size :], std[spaces.obs.size :] = 0.0, 1.0
    size = len(network.inputs.mean)  # without the actions where the network does not standardize them
    mean, std = mean[:size], std[:size]
    if not again:
        network.inputs.set(mean, std)
    elif isinstance(network, Ensemble):
        scale = network.rescale_inputs(mean, std)
        rescale_memory(optimizer, network.penalized()[0], scale=scale)


def _moments(reservoir: Reservoir, examples: Examples) -> Moments:
    moments = reservoir.moments
    if moments.count == 0:
        everything = examples.batch(np.arange(len(examples)))
        inputs = torch.cat([everything.obs, everything.actions], -1)[everything.mask]
        moments = Moments(inputs.shape[1])
        moments.add(inputs.cpu().numpy())
    return moments


def _pictures(reservoir: Reservoir, examples: Examples) -> Tensor:
    """uint8 [B, C, H, W]."""
    if len(reservoir):
        return torch.from_numpy(reservoir.rows()[0])
    some = examples.batch(np.arange(min(len(examples), SOME)))
    return some.obs[some.mask]
