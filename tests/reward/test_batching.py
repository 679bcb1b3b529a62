"""Requests that meet are priced together, and nobody can tell from the reward."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from rlhp.reward.service import RequestBatcher, RewardModel
from rlhp.types import Array
from tests.preferences.dataset_samples import PLAIN
from tests.reward.versions import fragment, weights


class Slow:
    """Waits in its first call until it is let go, so that others queue up behind it."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.started, self.go = threading.Event(), threading.Event()

    def __call__(self, obs: Array, actions: Array) -> Array:
        self.sizes.append(len(obs))
        self.started.set()
        assert self.go.wait(30)
        if (obs < 0).any():
            raise ValueError("a negative one")
        return np.stack([obs.sum(1), actions.sum(1)])


def together(requests: list[Array]) -> tuple[Slow, RequestBatcher, list[object]]:
    """The first request, and while it is served all the others."""
    slow, gate = Slow(), RequestBatcher()

    def ask(obs: Array) -> object:
        try:
            return gate(slow, obs, obs + 1)
        except ValueError as error:
            return str(error)

    with ThreadPoolExecutor(len(requests)) as pool:
        first = pool.submit(ask, requests[0])
        assert slow.started.wait(30)
        others = [pool.submit(ask, obs) for obs in requests[1:]]
        while len(gate._waiting) < len(others):
            threading.Event().wait(0.001)
        slow.go.set()
        return slow, gate, [first.result(), *(other.result() for other in others)]


def test_all_that_wait_are_served_by_one_call_and_each_gets_its_own() -> None:
    requests = [np.full((count, 3), float(count)) for count in (4, 1, 2, 3)]
    slow, gate, answers = together(requests)
    assert slow.sizes == [4, 6]
    assert gate.rounds == 2
    for obs, answer in zip(requests, answers, strict=True):
        np.testing.assert_array_equal(np.asarray(answer), np.stack([obs.sum(1), (obs + 1).sum(1)]))


def test_an_error_reaches_all_whom_it_concerns() -> None:
    _, _, answers = together([np.ones((1, 3)), -np.ones((1, 3)), np.ones((2, 3))])
    assert answers[1:] == ["a negative one"] * 2
    assert not isinstance(answers[0], str)


@pytest.mark.parametrize("runners", [8])
def test_rewards_are_the_same_bits_whoever_else_asks(runners: int) -> None:
    model = RewardModel(PLAIN, newest=lambda: weights(1))
    asked = [fragment(rows=40 + index) for index in range(runners)]
    alone = [model.predict(*each)[0].tobytes() for each in asked]
    with ThreadPoolExecutor(runners) as pool:
        for _ in range(5):
            met = pool.map(lambda each: model.predict(*each)[0].tobytes(), asked)
            assert list(met) == alone
    status = model.status()
    assert status.calls == 6 * runners
    assert status.rounds <= status.calls
