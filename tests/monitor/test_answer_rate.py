"""Answers per minute."""

from __future__ import annotations

import time

import pytest

from rlhp.monitor.answer_rate import AnswerRate


def test_the_rate_of_answers_is_that_of_the_last_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: seconds)
    rate, rates = AnswerRate(), []
    for seconds, answered in [  # noqa: B007
        (0.0, 0),
        (0.5, 5),
        (10.0, 10),
        (30.0, 20),
        (89.0, 20),
        (149.0, 20),
        (150.0, 19),
    ]:
        rates.append(rate(answered))
    assert rates == [0.0, 0.0, 60.0, 40.0, 0.0, 0.0, 0.0], "an undo is no negative rate"
