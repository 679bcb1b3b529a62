"""The end of a run: no answer stays at the queue without a word.

The reward trainer stores answers as long as it lives. One that is silent at the end,
killed or stuck, leaves them at the queue, and so do labelers who answer while it goes.
The driver stores what is left; where it cannot, the run has not finished, and says so.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from rlhp.errors import RlhpError, curable, one_line
from rlhp.preferences.dataset import PreferenceDataset
from rlhp.queue.queue import QueryQueue
from rlhp.reward.trainer import take_in
from rlhp.storage.lease import TakenOver
from rlhp.storage.rundir import RunDir

log = logging.getLogger(__name__)


def refuse_renamed(url: str, rundir: RunDir) -> None:
    """RlhpError where answers of this run wait at the queue under the name that its
    directory had before.

    A run's queue is called as its directory is. Renamed or copied, it would ask those
    queries again.
    """
    info = rundir.info()
    if info.name == rundir.name or not info.id:
        return
    with QueryQueue(url, run=info.name) as before:
        left = before.stats().backlog if before.run_id == info.id else 0
    if left > 0:
        raise RlhpError(
            f"{rundir.path}: the run was called {info.name}, and {left} answers to it are not on "
            f"disk: they wait at the queue under that name. Call the directory {info.name} again "
            "and resume it, which stores them; after that it may have another name"
        )


@contextmanager
def nothing_left(
    queue: QueryQueue, rundir: RunDir, *, say: Callable[[str], object]
) -> Iterator[None]:
    """At the end of the block, store what the queue still holds; a block that fails
    only says how much that is.
    """
    try:
        yield
    except TakenOver:
        raise
    except BaseException:
        with suppress(ConnectionError):
            if (left := queue.stats().backlog) > 0:
                say(f"{left} answers are not on disk yet: {_resume(rundir)}")
        raise
    try:
        stored = _store(queue, rundir)
    except TakenOver:
        raise
    except Exception as error:
        if not curable(error):
            raise
        _tell(queue, rundir, error, say=say)
    else:
        if stored:
            say(
                f"{stored} answers that the reward trainer had not taken in are on disk; nothing "
                "was learned from them"
            )


def _store(queue: QueryQueue, rundir: RunDir) -> int:
    if not queue.stats().backlog:
        return 0
    dataset = PreferenceDataset.open(rundir.preferences)
    stored = 0
    # Another object is another reader, which is given again what one of this process
    # was and could not store.
    with QueryQueue(queue.url, run=queue.run, owner=queue.owner) as again:
        while count := take_in(again, dataset):
            stored += count
    return stored


def _tell(
    queue: QueryQueue, rundir: RunDir, error: Exception, *, say: Callable[[str], object]
) -> None:
    """The run reached its end and is not finished."""
    many = "an unknown number of"
    with suppress(ConnectionError):
        many = str(queue.stats().backlog)
    text = f"{many} answers are not on disk ({one_line(error)}): {_resume(rundir)}"
    log.warning(text, exc_info=error)
    say(f"warning: {text}")
    rundir.update(state="interrupted", error=text)


def _resume(rundir: RunDir) -> str:
    return f"they wait at the queue, and rlhp train --resume {rundir.path} stores them"
