"""What is read off an hour of a game: how the two curves agree, whether memory grows."""

from __future__ import annotations

import pytest

from benchmarks import atari_memory, pong


def rows(count: int) -> list[pong.Row]:
    return [
        {
            "env_steps": 100 * i,
            "wall_seconds": 10.0 * i,
            "env_runners/episode_return_mean": float(i),
            "predicted_return_mean": 2.0 * i if i > 5 else None,
            "memory/query_actor_mb": 500.0 + i / 100,
            "env_runners/game_score_mean": -21 + i / 100 if i % 7 == 0 else None,
        }
        for i in range(count)
    ]


def test_curves_are_thinned_to_points_that_keep_the_first_and_the_last() -> None:
    made = pong.curve(rows(1000))
    assert {len(made[name]) for name in pong.CURVE} == {pong.POINTS}
    assert len(made["score"]) == len(made["score_steps"]) == pong.SCORE_POINTS
    assert made["score_steps"] == sorted(made["score_steps"])
    assert -21 < made["score"][0] < made["score"][-1] < -11, (
        "means of games that ended at about a time"
    )
    assert pong.curve(rows(7))["score"] == [-21], "of one game, and without any there are none"
    assert pong.curve([])["score"] == []
    assert (made["env_steps"][0], made["env_steps"][-1]) == (0, 99_900)
    assert pong.agreement({"curve": made}) == pytest.approx(1.0), (
        "where nothing was predicted yet, nothing is compared"
    )
    assert pong.thin([]) == []


def test_growth_is_that_after_the_first_quarter_whatever_single_readings_say() -> None:
    series = atari_memory.memory(rows(1000))["query actor"]
    middle, most, slope = atari_memory.growth(series)
    assert slope == pytest.approx(3.6)  # 0.01 MB in 10 s
    assert 502 < middle < most < 510
    filling = [[0.0, 10.0], [100.0, 200.0], *([1000.0 + i, 400.0] for i in range(50))]
    filling[30][1] = 9000.0
    assert atari_memory.growth(filling) == (400.0, 9000.0, 0.0)
