"""Which of two ensembles explains the answers better that it was not fitted to: the answers decide, not a setting.

Whether a reward needs the action differs from task to task. A cost of torque cannot be seen in states, and an ensemble
that does not see actions misses it. Where nothing is paid for actions, whatever an ensemble says about them is an error
that the policy exploits at once. So both kinds are fitted to the same answers, and each new reward version is the one
that predicts the answers outside its members' bags better.

Shapes: M members, N preferences.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from rlhp.reward.examples import Part

CLEARLY = 2.5
"""Standard errors by which an ensemble that sees actions has to be ahead before it takes over; it goes when it is no
longer ahead at all. On tasks that pay nothing for actions the lead stayed below this over hundreds of answers."""
FACTORS = np.geomspace(0.03, 10.0, 26).tolist()
NEVER_SURE = 0.005
"""Probabilities stay this far from 0 and 1, so that a single answer decides nothing."""


def out_of_bag(first_MN: Tensor, second_MN: Tensor, part: Part) -> Tensor:
    """Log-likelihood [N] of each answer under the members that were not trained on it; 0 where all of them were.

    The members average their probabilities. Predicted returns are multiplied by the one factor under which all answers
    are likeliest: an ensemble may be sure beyond reason and still rank segments best, and rewards have no scale.
    """
    judges_MN = part.validation.to(first_MN.dtype)
    count_N = judges_MN.sum(0)
    found = []
    for factor in FACTORS:
        p_MN = (factor * (first_MN - second_MN)).sigmoid()
        p_N = ((judges_MN * p_MN).sum(0) / count_N.clamp(min=1)).clamp(NEVER_SURE, 1 - NEVER_SURE)
        likely_N = part.target * p_N.log() + (1 - part.target) * (1 - p_N).log()
        found.append(torch.where(count_N > 0, likely_N, 0.0))
    return max(found, key=lambda likely_N: float(likely_N.sum()))


def sees_action(seeing_N: Tensor, blind_N: Tensor, *, now: bool) -> bool:
    """Whether the ensemble that sees actions is to be published, from what both make of each answer (`out_of_bag`).

    `now`: whether it is the one that is published so far.
    """
    lead_N = (seeing_N - blind_N)[(seeing_N != 0) & (blind_N != 0)]
    if now or len(lead_N) < 2:
        return now and float(lead_N.sum()) >= 0
    return bool(float(lead_N.sum()) > CLEARLY * float(lead_N.std()) * len(lead_N) ** 0.5)
