"""The link that opens a page: `rlhp train` and `rlhp serve` print it, and whoever opens it is the admin `local`."""

from __future__ import annotations

from contextlib import suppress

from rlhp.query.labelers import Labelers
from rlhp.rundir import RunDir


def link_token(url: str, *, run: str, rundir: RunDir | None) -> str:
    """The token of that link: the one in the run directory while it opens the page, else a new one."""
    labelers = Labelers(url, run=run)
    try:
        token = None if rundir is None else rundir.page_token()
        if token is None or labelers.find(token) is None:
            token = labelers.link()
            if rundir is not None:
                with suppress(OSError):  # somebody else's directory: the next server prints another link
                    rundir.write_page_token(token)
        return token
    finally:
        labelers.close()
