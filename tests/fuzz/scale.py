"""How many examples a fuzz test draws: few in CI, ten times as many with `make fuzz`."""

from __future__ import annotations

import os


def times(count: int) -> int:
    """`count`, times what RLHP_FUZZ says."""
    return count * int(os.environ.get("RLHP_FUZZ") or 1)
