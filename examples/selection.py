"""A selection strategy: ask about the pairs that the ensemble finds hardest to tell."""

from collections.abc import Sequence

import numpy as np

from rlhp.types import Array, Segment


class CloseCalls:
    """Higher scores are asked sooner."""

    def rank(
        self,
        pairs: Sequence[tuple[Segment, Segment]],
        returns: Array | None,
        rng: np.random.Generator,
    ) -> Array:
        if returns is None:  # before the first reward version
            return rng.random(len(pairs))
        # returns: [M, C, 2] predicted by each member, for each candidate
        first_C, second_C = returns.mean(0).T
        scores_C: Array = -np.abs(first_C - second_C)
        return scores_C
