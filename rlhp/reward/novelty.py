"""How far the policy's newest observations are from everything that was ever asked about.

A reward is only known where somebody compared segments. A policy that leaves that region is paid by extrapolation, and
held-out answers cannot tell: they are from the region too.

Shapes: B newest observations, N observations in answered segments, O observation as a row.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

FEWEST = 20
"""Different observations below which a distance between two of them says little."""
CLOSE = 0.25
"""Standard deviations per coordinate that are never called far, however densely was asked."""


def novelty(newest_BO: Tensor, asked_NO: Tensor) -> float | None:
    """Median distance of the newest to the nearest that was asked about, in units of that among those asked about.

    About 1 where the policy does what was asked about, 2 where it is twice as far from it as asked segments are from
    each other. Those distances count as `CLOSE` at least, or the least move would be novel where few coordinates were
    asked about densely. None with too little to compare. Both in standardized coordinates, one observation per segment,
    of which some may be the same.
    """
    asked_NO = torch.unique(asked_NO, dim=0)
    if len(asked_NO) < FEWEST or len(newest_BO) == 0:
        return None
    among_NN = torch.cdist(asked_NO, asked_NO)
    among_NN.fill_diagonal_(torch.inf)
    spacing = float(among_NN.min(1).values.median())
    away = float(torch.cdist(newest_BO, asked_NO).min(1).values.median())
    return away / max(spacing, CLOSE * math.sqrt(asked_NO.shape[1]))
