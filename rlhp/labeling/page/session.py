"""The cookie of a session: it is the labeler's token, so a session outlives the server and ends with the token."""

from __future__ import annotations

from rlhp.types import digest


def cookie_name(run: str) -> str:
    """One per run: a browser sends the cookies of a host to all of its ports, so two runs would fight over one."""
    return f"rlhp_session_{digest('session', run)[:8]}"
