"""PPO's loss (Schulman et al. 2017) as a pure function of tensors.

Shapes: B rows of a minibatch, D inputs of a distribution.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor


class Losses(NamedTuple):
    """Means over a minibatch; `total` is what gradients are taken of."""

    total: Tensor
    policy: Tensor
    value: Tensor
    """Clipped."""
    value_unclipped: Tensor
    entropy: Tensor
    kl: Tensor
    """From the policy that acted to the present one; 0 where its penalty is off."""


class Weights(NamedTuple):
    """What a loss is made of."""

    clip: float
    """Ratios beyond 1 - clip and 1 + clip gain nothing more."""
    value: float
    value_clip: float
    """Most that one squared error counts; infinity for no such bound."""
    entropy: float
    kl: Tensor | None
    """None: off."""


def ppo_loss(
    rows: dict[str, Tensor], *, now: Any, then: Any, values_B: Tensor, weights: Weights
) -> Losses:
    """`rows`: actions, action_logp, advantages and value_targets, one per step.

    `now` and `then` are the action distributions of the present policy and of the one
    that acted; the latter is looked at for the KL penalty alone.
    """
    advantages_B = rows["advantages"]
    ratio_B = (now.logp(rows["actions"]) - rows["action_logp"]).exp()
    bounded_B = ratio_B.clamp(1 - weights.clip, 1 + weights.clip)
    policy = -torch.min(advantages_B * ratio_B, advantages_B * bounded_B).mean()
    error_B = (values_B - rows["value_targets"]).square()
    unclipped = error_B.mean()
    value = (
        unclipped
        if weights.value_clip == float("inf")
        else error_B.clamp(max=weights.value_clip).mean()
    )
    entropy = now.entropy().mean()
    total = policy + weights.value * value - weights.entropy * entropy
    if weights.kl is None:
        return Losses(total, policy, value, unclipped, entropy, torch.zeros_like(policy))
    kl = then.kl(now).mean()
    return Losses(total + weights.kl * kl, policy, value, unclipped, entropy, kl)
