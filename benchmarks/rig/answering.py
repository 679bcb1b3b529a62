"""How fast queries are leased and answered over the embedded Redis, from processes of
their own.

Two kinds of processes. `clients` call the two scripts that every answer needs, a lease
(two queries at a time) and an answer: the queue's own speed. `labelers` are those of a
run: they look at the state, fetch and decode both segments, ask a teacher that compares
two sums, and keep their lease alive.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.rig.samples import segment
from rlhp.labeling.worker import LabelerWorker
from rlhp.queue.embedded import EmbeddedRedis
from rlhp.queue.queue import QueryQueue
from rlhp.queue.records import body_of
from rlhp.types import Answer, Query, Segment, encode

ANSWERS = 2000
LABELERS = (1, 2)


def queue() -> dict[str, Any]:
    """Answers per second: whole labelers of the run, and leases and answers alone."""
    found = {}
    with tempfile.TemporaryDirectory() as scratch, EmbeddedRedis(Path(scratch) / "redis") as server:
        for labelers in LABELERS:
            for name, answer_all in (
                ("labelers", _answer_as_labeler),
                ("clients", _lease_and_answer),
            ):
                with QueryQueue(server.url, run=f"{name}-{labelers}") as asked:
                    asked.open(cap=ANSWERS, config_sha256="0" * 64)
                    began = time.perf_counter()
                    _ask(asked, ANSWERS)
                    found["asked_per_second"] = ANSWERS / (time.perf_counter() - began)
                    found[f"{name}_{labelers}_per_second"] = _answers_per_second(
                        asked, labelers, answer_all
                    )
    return found


def _ask(asked: QueryQueue, count: int) -> None:
    pool: list[Segment] = [segment(number) for number in range(200)]
    payloads = {each.id: encode(each) for each in pool}
    draws = np.random.default_rng(0)
    pairs: set[tuple[int, int]] = set()
    while len(pairs) < count:
        one, other = sorted(int(each) for each in draws.choice(len(pool), 2, replace=False))
        pairs.add((one, other))
    for number, (one, other) in enumerate(sorted(pairs)):
        query = Query(id=f"q{number}", candidates=(pool[one], pool[other]))
        ids = (query.first.id, query.second.id)
        status = asked.put(
            query=query.id,
            candidates=(ids[0], ids[1]),
            body=body_of(query),
            payloads={id_: payloads[id_] for id_ in ids},
        )
        assert status == "ok", status


def _answers_per_second(
    asked: QueryQueue,
    processes: int,
    answer_all: Callable[[QueryQueue, str, float], tuple[int, float]],
) -> float:
    """All processes begin at one moment; the last answer ends the measurement."""
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        list(pool.map(time.sleep, [0.2] * processes))  # started, and done with their imports
        began = time.time() + 1.0
        ended = [
            pool.submit(answer_all, asked, f"labeler-{number}", began)
            for number in range(processes)
        ]
        found = [each.result() for each in ended]
    assert sum(count for count, _ in found) == ANSWERS, found
    return ANSWERS / (max(moment for _, moment in found) - began)


def _lease_and_answer(asked: QueryQueue, labeler: str, began: float) -> tuple[int, float]:
    """Two scripts per answer, as a page calls them; how many answers, and when the last
    one was given.
    """
    time.sleep(max(0.0, began - time.time()))
    count = 0
    while leases := asked.lease(labeler=labeler, page=labeler, n=2):
        for lease in leases:
            status = asked.answer(
                query=lease.query,
                labeler=labeler,
                page=labeler,
                token=lease.token,
                answer=Answer.FIRST,
            )
            count += status == "ok"
    return count, time.time()


def _answer_as_labeler(asked: QueryQueue, labeler: str, began: float) -> tuple[int, float]:
    """A labeler of the run with a teacher that compares two sums."""
    worker = LabelerWorker(asked, _Larger(), name=labeler)
    time.sleep(max(0.0, began - time.time()))
    while worker.step():
        pass
    return worker.counts.answers, time.time()


class _Larger:
    def answer(self, query: Query) -> Answer | None:
        return Answer.FIRST if query.first.true_return > query.second.true_return else Answer.SECOND
