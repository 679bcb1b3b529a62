"""The columnar env runner does what a plain loop does, and what RLlib's own runner does, only in columns."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import ray
import torch
from gymnasium.envs.classic_control.cartpole import CartPoleVectorEnv
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.core.columns import Columns
from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from ray.tune.registry import register_env

from rlhp.config import RunConfig
from rlhp.learn.settings import algorithm_config
from rlhp.rollout.acting import executed_actions
from rlhp.rollout.envs import make_env, probe
from rlhp.rollout.runner import EPISODES, ColumnarEnvRunner
from rlhp.types import Array
from tests.environments import LENGTH
from tests.small_runs import action_space, env_runner, small

ENVS = 3
RAW = {"normalize_obs": False}
DRIFT = {"id": "tests.environments:Drift", "max_episode_steps": LENGTH}
EXAMPLES = {
    "box": DRIFT,
    "discrete": {**DRIFT, "kwargs": {"discrete": True}},
    "dict and multi-discrete": {**DRIFT, "id": "tests.environments:TwoWheels"},
    "variable length": {**DRIFT, "kwargs": {"ends_early": True}},
    "one step": {**DRIFT, "id": "tests.rollout.example_envs:Countdown", "kwargs": {"steps": 1}},
}


def example(name: str, **changes: Any) -> RunConfig:
    """A small run of the example environment whose policy sees observations as they are."""
    return small(env=EXAMPLES[name], learner=RAW, **changes)


def by_episode(episodes: list[SingleAgentEpisode]) -> dict[str, list[SingleAgentEpisode]]:
    """The chunks of every episode, in the order of sampling."""
    chunks: dict[str, list[SingleAgentEpisode]] = defaultdict(list)
    for episode in episodes:
        chunks[episode.id_].append(episode)
    return chunks


def joined(chunks: list[SingleAgentEpisode], column: str) -> Array:
    """One column of an episode over all its chunks."""
    get = {"actions": "get_actions", "rewards": "get_rewards"}[column]
    whole: Array = np.concatenate([getattr(chunk, get)() for chunk in chunks])
    return whole


def place_of(episode_id: str) -> tuple[int, int]:
    """Environment and running number of an episode."""
    _, env, number = episode_id.rsplit("-", 2)
    return int(env), int(number)


def finished(runner: ColumnarEnvRunner) -> list[tuple[float, float, int]]:
    """(true return, predicted return, length) of every episode that ended, in the order of ending."""
    return [tuple(item) for item in runner.metrics.peek(EPISODES)]


def stock_runner(config: RunConfig) -> SingleAgentEnvRunner:
    """RLlib's own runner with the same network and environment."""
    register_env("stock", lambda _: make_env(config.env))
    gym.registry.pop("rllib-single-agent-env-v0", None)  # RLlib registers it again, and Gymnasium warns
    ours = env_runner(config)[0].config
    stock = (
        PPOConfig()
        .api_stack(enable_rl_module_and_learner=True, enable_env_runner_and_connector_v2=True)
        .environment("stock")
        .env_runners(num_env_runners=0, num_envs_per_env_runner=ENVS, batch_mode="truncate_episodes")
        .rl_module(model_config=ours._model_config)
    )
    return SingleAgentEnvRunner(config=stock, worker_index=0)


@pytest.mark.parametrize("explore", [True, False])
def test_until_the_first_reset_it_reproduces_rllibs_own_runner(explore: bool) -> None:
    config = small(env={**DRIFT, "kwargs": {"fixed_start": True}}, learner=RAW)
    ours, _, _ = env_runner(config)
    stock = stock_runner(config)
    ours.module.set_state(stock.module.get_state())
    found = []
    for runner in (stock, ours):
        torch.manual_seed(3)
        found.append(runner.sample(num_timesteps=ENVS * (LENGTH - 1), explore=explore))
    assert len(found[0]) == len(found[1]) == ENVS
    for theirs, mine in zip(*found, strict=True):
        assert len(theirs) == len(mine) == LENGTH - 1
        np.testing.assert_allclose(mine.get_observations(), theirs.get_observations(), rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(mine.get_actions(), theirs.get_actions(), rtol=1e-4, atol=1e-6)
        names = (Columns.ACTION_LOGP, Columns.ACTION_DIST_INPUTS) if explore else (Columns.ACTION_DIST_INPUTS,)
        for name in names:
            np.testing.assert_allclose(
                mine.get_extra_model_outputs(name), theirs.get_extra_model_outputs(name), rtol=1e-4, atol=1e-5
            )


@pytest.mark.parametrize("name", EXAMPLES)
def test_observations_returns_and_ends_are_those_of_a_plain_loop(name: str) -> None:
    config = example(name)
    runner, _, _ = env_runner(config)
    seeds = np.random.default_rng([runner._seed, 0]).integers(2**31 - 1, size=ENVS)
    episodes = [episode for _ in range(4) for episode in runner.sample(num_timesteps=40, explore=True)]
    chunks = by_episode(episodes)
    spaces = probe(config.env).spaces
    returns: dict[str, float] = {}
    for env_index in range(ENVS):
        env = make_env(config.env)
        seed: int | None = int(seeds[env_index])
        for episode_id in sorted((id_ for id_ in chunks if place_of(id_)[0] == env_index), key=place_of):
            obs, _ = env.reset(seed=seed)
            seed = None
            returns[episode_id] = 0.0
            for chunk in chunks[episode_id]:
                executed = executed_actions(chunk.get_actions(), env.action_space)
                for step, action in enumerate(executed):
                    expected = np.asarray(spaces.obs.flatten_one(obs), np.float32)
                    np.testing.assert_array_equal(chunk.get_observations(step), expected)
                    obs, reward, terminated, truncated, _ = env.step(action)
                    returns[episode_id] += float(np.float32(reward))
                last = chunk is chunks[episode_id][-1]
                np.testing.assert_array_equal(
                    chunk.get_observations(-1), np.asarray(spaces.obs.flatten_one(obs), np.float32)
                )
                assert last or not chunk.is_done, "only the last chunk of an episode may be done"
            assert (terminated, truncated) == (chunk.is_terminated, chunk.is_truncated)
    done = {id_ for id_ in chunks if chunks[id_][-1].is_done}
    assert len(done) > 3
    true_returns = sorted(true for true, _, _ in finished(runner))
    assert true_returns == pytest.approx(sorted(returns[id_] for id_ in done))


@pytest.mark.parametrize("name", EXAMPLES)
def test_chunks_of_one_episode_follow_each_other_and_none_is_empty(name: str) -> None:
    runner, _, _ = env_runner(example(name))
    chunks = by_episode([episode for _ in range(5) for episode in runner.sample(num_timesteps=33, explore=True)])
    lengths = sorted(length for _, _, length in finished(runner))
    for parts in chunks.values():
        at = 0
        for part in parts:
            assert part.t_started == at
            assert len(part) > 0
            at += len(part)
        assert at <= LENGTH
    assert lengths == sorted(sum(map(len, parts)) for parts in chunks.values() if parts[-1].is_done)
    for env in range(ENVS):
        numbers = sorted(number for index, number in map(place_of, chunks) if index == env)
        assert numbers == list(range(len(numbers)))


@pytest.mark.parametrize("wanted", [1, 3, 7, 60, 100])
def test_at_least_the_wanted_number_of_real_steps_is_taken_and_resets_are_not_counted(wanted: int) -> None:
    runner, source, _ = env_runner(example("box"))
    for _ in range(4):
        before = runner.metrics.peek("num_env_steps_sampled_lifetime", default=0)
        episodes = runner.sample(num_timesteps=wanted, explore=True)
        steps = sum(map(len, episodes))
        assert wanted <= steps < wanted + ENVS
        assert runner.metrics.peek("num_env_steps_sampled_lifetime") - before == steps
    rows = sum(obs.shape[0] * obs.shape[1] for obs in source.obs)
    assert rows >= runner.metrics.peek("num_env_steps_sampled_lifetime")


def test_the_learner_gets_exactly_what_the_reward_model_said() -> None:
    runner, source, _ = env_runner(example("variable length"))
    for _ in range(4):
        chunks = by_episode(runner.sample(num_timesteps=40, explore=True))
        said = {value.tobytes() for value in source.rewards[-1].reshape(-1)}
        learned = np.concatenate([joined(parts, "rewards") for parts in chunks.values()])
        assert learned.dtype == np.float32
        assert {value.tobytes() for value in learned} <= said
    assert runner.metrics.peek("reward_version") == 1


def test_a_segment_shows_the_learners_predicted_rewards_bit_for_bit() -> None:
    runner, _, basket = env_runner(example("variable length"))
    chunks = by_episode([episode for _ in range(6) for episode in runner.sample(num_timesteps=33, explore=True)])
    assert len(basket.segments) > 20
    assert any(len(chunks[segment.episode]) > 1 for segment in basket.segments), "some span several fragments"
    for segment in basket.segments:
        steps = slice(segment.start, segment.start + segment.length)
        assert segment.predicted_reward is not None
        assert segment.predicted_reward.tobytes() == joined(chunks[segment.episode], "rewards")[steps].tobytes()
        executed = executed_actions(joined(chunks[segment.episode], "actions")[steps], runner.env.single_action_space)
        np.testing.assert_array_equal(segment.actions, executed)


def test_segments_hold_executed_actions_and_every_leaf_in_its_own_type() -> None:
    config = example("dict and multi-discrete")
    runner, _, basket = env_runner(config)
    runner.sample(num_timesteps=100, explore=True)
    env = make_env(config.env)
    for segment in basket.segments:
        assert segment.obs["place"].dtype == np.float64
        assert segment.obs["phase"].shape == (segment.length + 1,)
        assert all(env.action_space.contains(action) for action in segment.actions)
        moved = np.diff(segment.obs["place"], axis=0)
        np.testing.assert_allclose(moved[:, 0], 0.1 * segment.actions[:, 0], atol=1e-9)


def test_sampled_gaussians_leave_the_bounds_and_executed_actions_do_not() -> None:
    runner, source, _ = env_runner(example("box"))
    sampled = np.concatenate([episode.get_actions() for episode in runner.sample(num_timesteps=300, explore=True)])
    executed = np.concatenate([actions.reshape(-1, 2) for actions in source.actions])
    assert np.abs(sampled).max() > 1
    assert executed.min() == -0.5
    assert executed.max() == 1.5


def test_the_reward_model_sees_raw_observations_whatever_the_policy_sees() -> None:
    runner, source, _ = env_runner(small(env=DRIFT))
    for _ in range(3):
        episodes = runner.sample(num_timesteps=60, explore=True)
    raw = source.obs[-1].reshape(-1, 3)
    assert raw[:, 2].min() >= 0, "the share of time left, as the environment shows it"
    assert raw[:, 2].max() <= 1
    seen = np.concatenate([episode.get_observations() for episode in episodes])
    assert seen[:, 2].min() < -0.5, "normalised"
    first, later = source.model.label(source.obs[-1], source.actions[-1])
    assert (first.tobytes(), later) == (source.rewards[-1].tobytes(), 1)


def test_simulator_state_belongs_to_the_observation_beside_it() -> None:
    config = small(env={"id": "InvertedPendulum-v5", "max_episode_steps": 25}, learner=RAW)
    runner, _, basket = env_runner(config)
    runner.sample(num_timesteps=150, explore=True)
    assert basket.segments
    for segment in basket.segments:
        assert segment.state_kind == "mujoco"
        assert segment.state is not None
        np.testing.assert_array_equal(segment.state[:, :4], segment.obs[""][:-1])  # qpos and qvel
        assert (np.diff(segment.state[:, 4]) > 0).all(), "time goes on within a segment"


def test_the_vector_environment_of_cartpole_itself_obeys_the_same_rules() -> None:
    config = small(env={"id": "CartPole-v1"}, learner=RAW)
    runner, _, basket = env_runner(config)
    assert isinstance(runner.env.unwrapped, CartPoleVectorEnv)
    chunks = by_episode([episode for _ in range(5) for episode in runner.sample(num_timesteps=90, explore=True)])
    plain: Any = gym.make("CartPole-v1").unwrapped
    plain.reset(seed=0)
    for parts in chunks.values():
        assert np.abs(parts[0].get_observations(0)).max() <= 0.05, "an episode begins where a reset begins"
        for part in parts:
            obs, actions = part.get_observations(), part.get_actions()
            for step, action in enumerate(actions):
                plain.state, plain.steps_beyond_terminated = obs[step], None
                after, _, terminated, _, _ = plain.step(int(action))
                np.testing.assert_allclose(obs[step + 1], after, atol=1e-5)
                assert terminated == (part.is_terminated and step == len(actions) - 1)
    ended = finished(runner)
    assert len(ended) > 10
    assert all(true == length for true, _, length in ended), "CartPole pays one per step"
    assert all(segment.state is None and segment.state_kind == "none" for segment in basket.segments)


def test_warm_up_offers_unpriced_segments_and_makes_nothing_to_learn_from() -> None:
    runner, source, basket = env_runner(small(env=DRIFT, rollout={"segments_per_fragment": 1}))
    result = runner.warm_up(100)
    assert 100 <= result["steps"] < 100 + ENVS
    assert source.obs == [], "nobody is asked for a reward"
    assert len(basket.segments) > 10, "all of them, whatever segments_per_fragment says"
    assert all(segment.predicted_reward is None for segment in basket.segments)


def test_an_episode_that_began_in_the_warm_up_has_no_predicted_return() -> None:
    runner, _, _ = env_runner(small(env=DRIFT))
    runner.warm_up(ENVS * (LENGTH - 2))
    runner.sample(num_timesteps=ENVS * (LENGTH + 5), explore=True)
    ended = finished(runner)
    assert len(ended) == 2 * ENVS
    assert sum(np.isnan(predicted) for _, predicted, _ in ended) == ENVS
    assert all(np.isfinite(true) for true, _, _ in ended)


def test_at_most_the_configured_number_of_segments_is_offered_and_the_rest_is_counted() -> None:
    runner, _, basket = env_runner(small(env=DRIFT, rollout={"segments_per_fragment": 2}))
    for _ in range(3):
        runner.sample(num_timesteps=100, explore=True)
    assert len(basket.segments) == 6
    basket.full = True
    runner.sample(num_timesteps=100, explore=True)
    assert runner.metrics.peek("segments_offered") == 6
    assert runner.metrics.peek("segments_dropped") > 20


def test_short_episodes_give_short_segments_that_are_counted() -> None:
    runner, _, basket = env_runner(example("one step"))
    runner.sample(num_timesteps=30, explore=True)
    assert {segment.length for segment in basket.segments} == {1}
    assert runner.metrics.peek("segments_short") == len(basket.segments)


def test_the_control_arm_learns_from_scaled_env_rewards_and_offers_nothing() -> None:
    config = small(env=DRIFT, labels={"source": "none"}, learner=RAW)
    runner, source, basket = env_runner(config)
    first = runner.sample(num_timesteps=60, explore=True)
    second = runner.sample(num_timesteps=60, explore=True)
    paid = -np.linalg.norm(first[0].get_observations(slice(1, None))[:, :2], axis=1)
    own = first[0].get_rewards() / paid
    assert own == pytest.approx(own[0], rel=1e-4), "by its own, the first time"
    scale = second[0].get_rewards() / -np.linalg.norm(second[0].get_observations(slice(1, None))[:, :2], axis=1)
    assert scale == pytest.approx(scale[0], rel=1e-4)
    assert scale[0] == pytest.approx(1 / runner._moments.known["reward"].std()[0], rel=1e-4)
    assert source.obs == []
    assert basket.segments == []


def test_the_control_reward_is_centred_where_no_episode_can_end_early() -> None:
    for hide, mean in ((False, -1.0), (True, 0.0)):
        config = small(env={**DRIFT, "hide_termination": hide}, labels={"source": "none"}, learner=RAW)
        runner, _, _ = env_runner(config)
        rewards = np.concatenate([each.get_rewards() for each in runner.sample(num_timesteps=60, explore=True)])
        assert rewards.std() == pytest.approx(1, rel=1e-4)
        assert rewards.mean() < mean if mean else rewards.mean() == pytest.approx(0, abs=1e-5)


def test_without_leave_no_segment_carries_the_env_reward() -> None:
    for share in (True, False):
        runner, _, basket = env_runner(small(env=DRIFT, labels={"share_env_reward": share}))
        runner.sample(num_timesteps=60, explore=True)
        assert {segment.env_reward is not None for segment in basket.segments} == {share}


def test_twice_the_same_seed_is_twice_the_same_rollout_and_another_seed_is_another() -> None:
    found = []
    for seed in (0, 0, 1):
        config = small(env=DRIFT, seed=seed)
        runner, _, basket = env_runner(config)
        runner.sample(num_timesteps=60, explore=True)
        found.append([(segment.id, segment.obs[""].tobytes()) for segment in basket.segments])
    assert found[0] == found[1]
    assert {obs for _, obs in found[0]}.isdisjoint({obs for _, obs in found[2]})


@pytest.mark.usefixtures("ray_session")
def test_an_env_runner_that_was_restarted_plays_other_episodes() -> None:
    config = small(env=DRIFT, labels={"source": "none"}, rollout={"num_env_runners": 1})
    settings = algorithm_config(config, probe(config.env).spaces, action_space=action_space(config))
    remote = ray.remote(num_cpus=0, max_restarts=1, max_task_retries=1)(ColumnarEnvRunner)

    def played(runner: Any) -> tuple[bytes, bytes]:
        (episode, *_) = ray.get(runner.sample.remote(num_timesteps=30, explore=True))
        return episode.get_observations(0).tobytes(), episode.get_actions().tobytes()

    first, twin = (remote.remote(config=settings, worker_index=1) for _ in range(2))
    before = played(first)
    assert played(twin) == before, "by the seed of the run"
    ray.kill(first, no_restart=False)
    after = played(first)
    assert after[0] != before[0]
    assert after[1] != before[1]
    for runner in (first, twin):
        ray.kill(runner)


@pytest.mark.parametrize("wish", [{"num_episodes": 2}, {"num_timesteps": 5, "random_actions": True}])
def test_what_it_does_not_sample_is_refused(wish: dict[str, Any]) -> None:
    runner, _, _ = env_runner(small(env=DRIFT))
    with pytest.raises(ValueError, match="this env runner collects fragments of env steps; whole episodes, random"):
        runner.sample(**wish)


def test_rllibs_metrics_are_there_under_its_names() -> None:
    runner, _, _ = env_runner(small(env=DRIFT))
    runner.sample(num_timesteps=130, explore=True)
    true = [value for value, _, _ in finished(runner)]
    assert runner.metrics.peek("episode_return_mean") == pytest.approx(np.mean(true))
    assert runner.metrics.peek("episode_len_mean") == LENGTH
    assert runner.metrics.peek("num_episodes") == len(true)
    assert runner.metrics.peek("predicted_mean") == pytest.approx(0, abs=5)
    assert 0 < runner.metrics.peek("predicted_std") < 10
    assert set(runner.get_metrics()) >= {"num_env_steps_sampled", "num_env_steps_sampled_lifetime", "label_wait_ms"}


@pytest.mark.parametrize("name", ["box", "discrete", "dict and multi-discrete"])
def test_log_probabilities_of_a_whole_fragment_are_those_of_its_rows_bit_for_bit(name: str) -> None:
    runner, _, _ = env_runner(example(name))
    fragment = runner._collect(100, explore=True)
    assert np.isfinite(fragment.logp).all()
    for row in range(fragment.logp.shape[1]):
        one = slice(row, row + 1)
        alone = runner._logp(fragment.dist_inputs[:, one], fragment.sampled[:, one], explore=True)
        assert alone.tobytes() == fragment.logp[:, one].tobytes()


def test_executed_actions_are_the_same_for_a_rollout_and_an_evaluation() -> None:
    box = gym.spaces.Box(np.array([-2.0, 0.0]), np.array([2.0, 10.0]), dtype=np.float64)
    scaled = executed_actions(np.array([[-1.0, -1.0], [0.0, 0.5], [7.0, -9.0]]), box)
    assert scaled.tolist() == [[-2.0, 0.0], [0.0, 7.5], [2.0, 0.0]]
    assert scaled.dtype == np.float64
    assert executed_actions(np.array([0, 3]), gym.spaces.Discrete(4, start=-1)).tolist() == [-1, 2]
    several = gym.spaces.MultiDiscrete([3, 2], start=[5, -2])
    assert executed_actions(np.array([[0, 1], [2, 0]]), several).tolist() == [[5, -1], [7, -2]]
    with pytest.raises(TypeError, match="no such action space: MultiBinary"):
        executed_actions(np.zeros((1, 2)), gym.spaces.MultiBinary(2))


def test_the_action_space_of_a_small_run_is_that_of_its_environment() -> None:
    assert action_space(example("discrete")) == gym.spaces.Discrete(4, start=2)
