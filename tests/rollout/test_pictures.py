"""Games through the env runner: each frame kept once, scores apart from rewards, and
segments that play again.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from ray import cloudpickle

from rlhp.config.schema import ClipsConfig, RunConfig
from rlhp.envs.atari_replay import replay, steps_of
from rlhp.frames import nbytes, slides
from rlhp.labeling.clips.views import make_view
from rlhp.learn.evaluate import evaluate, random_act
from rlhp.rollout.runner import EPISODES
from rlhp.types import Array, Segment, decode, encode
from tests.small_runs import env_runner, small

pytest.importorskip(
    "ale_py", reason="Atari games need ale-py, which is not installed: pip install ale-py"
)

FRAME = 84 * 84


def game(
    name: str = "Breakout", *, hidden: bool = True, limit: int = 150, **changes: Any
) -> RunConfig:
    env = {"id": f"ALE/{name}-v5", "hide_termination": hidden, "max_episode_steps": limit}
    query = {"segment_length": min(25, limit), "pool": 100}
    learner = {"network": "cnn_small", "train_batch_size": 90, "minibatch_size": 45}
    reward = {"network": "cnn_small"}
    return small(
        env=env, query=query, learner=learner, reward=reward, clips={"enabled": True}, **changes
    )


def collected(config: RunConfig, *, steps: int, times: int = 1) -> list[Segment]:
    runner, _, basket = env_runner(config)
    try:
        for _ in range(times):
            runner.warm_up(steps)
    finally:
        runner.stop()
    return basket.segments


def same(one: Segment, other: Segment) -> bool:
    return (
        one.id == other.id
        and np.array_equal(one.obs[""], other.obs[""])
        and np.array_equal(one.actions, other.actions)
    )


@pytest.mark.parametrize(("hidden", "limit", "steps"), [(True, 70, 25), (False, 20, 20)])
def test_segments_keep_each_frame_once_and_come_back_the_same(
    hidden: bool, limit: int, steps: int
) -> None:
    segments = collected(game(hidden=hidden, limit=limit), steps=150, times=2)
    assert len(segments) > 6
    for segment in segments:
        obs = segment.obs[""]
        assert obs.shape == (steps + 1, 4, 84, 84)
        assert slides(obs)
        assert nbytes(obs) == (steps + 4) * FRAME
        sent = cloudpickle.dumps(segment)
        assert len(sent) < (steps + 5) * FRAME
        arrived = cloudpickle.loads(sent)
        assert nbytes(arrived.obs[""]) == nbytes(obs)
        assert same(arrived, segment)
        assert same(decode(encode(segment)), segment)
    starts = [segment.obs[""][0] for segment in segments if segment.start == 0]
    assert bool(starts) == (limit < 25), "the windows of longer episodes begin at a random offset"
    assert all((stack == stack[0]).all() for stack in starts)


def test_what_is_learned_from_and_priced_are_the_same_stacks_each_frame_once() -> None:
    config = game(labels={"share_env_reward": True})
    runner, source, _ = env_runner(config)
    episodes = runner.sample(num_timesteps=90, explore=True)
    runner.stop()
    assert sum(len(episode) for episode in episodes) >= 90
    for env, episode in enumerate(episodes):
        buffer = episode.observations
        np.testing.assert_array_equal(buffer.data[:-1], source.obs[0][env])
        assert buffer.data.dtype == np.uint8
        sent = cloudpickle.dumps(episode)
        assert len(sent) < (len(episode) + 5) * FRAME
        np.testing.assert_array_equal(cloudpickle.loads(sent).observations.data, buffer.data)


def test_a_return_is_the_game_s_score_and_not_the_clipped_reward() -> None:
    runner, _, basket = env_runner(game("Qbert", limit=100))
    runner.sample(num_timesteps=330, explore=True)
    returns = [true for true, *_ in runner.metrics.peek(EPISODES)]
    runner.stop()
    assert max(returns) >= 25
    paid = [segment.env_reward for segment in basket.segments if segment.env_reward is not None]
    assert paid
    assert max(reward.max() for reward in paid) <= 1


def test_an_evaluation_plays_whole_games_and_reports_their_scores() -> None:
    found = evaluate(
        lambda envs: random_act(envs), game("Qbert", limit=400).env, episodes=2, seed=0
    )
    assert all(length < 400 for length in found.lengths)
    assert all(score >= 25 and score % 25 == 0 for score in found.returns)


def test_a_segment_is_drawn_as_the_console_showed_it_by_playing_its_game_again() -> None:
    config = game(limit=10_000)
    segments = collected(config, steps=900)
    games = [steps_of(segment.state)[0] for segment in segments if segment.state is not None]
    assert len(games) == len(segments)
    restarts = [sum(begun[-25:] > 0) for begun in games]
    assert max(restarts) == 1, "one of these segments should see a game end and the next begin"
    view = make_view(config.env, ClipsConfig())
    chosen = [segments[int(np.argmax(restarts))], segments[-1]]
    for segment in chosen:
        assert segment.state is not None
        screens, gray = replay(config.env, segment.state)
        assert screens.shape == (25, 210, 160, 3)
        assert np.abs(gray - unblanked(segment, gray)).max() <= 1
        frames = view.frames(segment)
        assert frames.shape[1] / frames.shape[2] == pytest.approx(210 / 160, rel=0.02)
        assert np.ptp(frames.astype(int), axis=-1).max() > 50, "in color"


def unblanked(segment: Segment, gray: Array) -> Array:
    """The newest frames of a segment where they are not blanked, and what was played
    again where they are.
    """
    seen = segment.obs[""][: segment.length, -1].astype(float)
    seen[:, :7] = gray[:, :7]
    return seen


def test_a_game_that_does_not_play_again_is_shown_as_the_policy_saw_it() -> None:
    config = game()
    first, second = collected(config, steps=200)[:2]
    swapped = Segment(
        **{name: getattr(first, name) for name in first.__slots__} | {"state": second.state}
    )
    frames = make_view(config.env, ClipsConfig()).frames(swapped)
    assert (frames[..., 0] == frames[..., 1]).all()
    np.testing.assert_array_equal(frames[:, ::3, ::3, 0], first.obs[""][:-1, -1])
