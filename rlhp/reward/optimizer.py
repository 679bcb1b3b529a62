"""The optimiser of the ensemble, and what it remembers when the scale of an input changes."""

from __future__ import annotations

import torch
from torch import Tensor

from rlhp.config import RewardConfig

REMEMBERED = {"exp_avg": 1, "exp_avg_sq": 2, "square_avg": 2}
"""What Adam and RMSprop keep of past gradients, and in which power."""


def optimizer_for(config: RewardConfig, parameters: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
    """Adam or RMSprop. Neither mixes members: what is stacked in one parameter is updated number by number."""
    if config.optimizer == "rmsprop":
        return torch.optim.RMSprop(parameters, lr=config.lr)
    return torch.optim.Adam(parameters, lr=config.lr, betas=(config.adam_beta1, 0.999))


def rescale_memory(optimizer: torch.optim.Optimizer, weight: Tensor, *, scale: Tensor) -> None:
    """Adjust to a weight [M, F, H] whose rows grew by scale [F]: the gradients of such a row are that much smaller."""
    memory = optimizer.state[weight]
    for name in memory.keys() & REMEMBERED.keys():
        memory[name].div_(scale[:, None] ** REMEMBERED[name])
