"""The labeling actor: one answer has one version, and a version always says the same."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from rlhp.reward.service import NoRewardYet, RewardModel
from rlhp.reward.versions import RewardWeights
from rlhp.types import DecodeError
from tests.preferences.dataset_samples import PLAIN
from tests.reward.versions import ENVS, OBS, ROWS, diverged, fragment, weights


def serving(*versions: int) -> RewardModel:
    """A reward model that was given these versions, in this order."""
    model = RewardModel(PLAIN, newest=lambda: None)
    for version in versions:
        model.load(weights(version))
    return model


def test_before_the_first_version_there_is_no_reward() -> None:
    model = serving()
    with pytest.raises(
        NoRewardYet, match="no reward version has been published yet; the run is still in warm-up"
    ):
        model.predict(*fragment())
    with pytest.raises(NoRewardYet):
        model.score(np.zeros((1, OBS), np.float32), np.zeros((1, 2), np.float32))
    assert model.status().version == 0


def test_a_replica_that_starts_anew_serves_the_newest_published_version() -> None:
    model = RewardModel(PLAIN, newest=lambda: weights(7))
    assert model.status().version == 7
    rewards, version = model.predict(*fragment())
    assert version == 7
    assert rewards.shape == (ENVS, ROWS)
    assert rewards.dtype == np.float32


def test_a_version_published_while_the_replica_was_starting_is_found_when_it_is_needed() -> None:
    published: list[RewardWeights] = []
    model = RewardModel(PLAIN, newest=lambda: published[-1] if published else None)
    published.append(weights(1))
    assert model.status().version == 0
    assert model.predict(*fragment())[1] == 1


def test_the_same_version_observation_and_action_have_the_same_reward_bit_for_bit() -> None:
    obs, actions = fragment(rows=700)
    whole, _ = serving(3).predict(obs, actions)
    one_row, _ = serving(1, 3).predict(obs[1:2, 640:641], actions[1:2, 640:641])
    assert one_row.tobytes() == whole[1, 640].tobytes()
    again, _ = RewardModel(
        PLAIN, newest=lambda: RewardWeights.from_bytes(weights(3).to_bytes())
    ).predict(obs, actions)
    assert again.tobytes() == whole.tobytes()


def test_arrays_out_of_a_shared_memory_are_read_only_and_labeled_all_the_same() -> None:
    obs, actions = fragment()
    expected, _ = serving(1).predict(obs, actions)
    obs.flags.writeable = actions.flags.writeable = False
    np.testing.assert_array_equal(serving(1).predict(obs, actions)[0], expected)


def test_the_two_newest_versions_are_kept() -> None:
    model = serving(1, 2, 3)
    obs, actions = fragment()
    assert model.predict(obs, actions)[1] == 3
    assert model.predict(obs, actions, version=2)[1] == 2
    np.testing.assert_array_equal(
        model.predict(obs, actions, version=2)[0], serving(2).predict(obs, actions)[0]
    )
    with pytest.raises(
        LookupError, match=r"reward version 1 is not held, only \[2, 3\]; ask for the newest"
    ):
        model.predict(obs, actions, version=1)


def test_an_older_version_is_ignored() -> None:
    model = serving(1, 4)
    assert model.load(weights(2)) == 4
    assert model.load(weights(4).to_bytes()) == 4
    assert model.status().version == 4
    with pytest.raises(LookupError, match=r"only \[1, 4\]"):
        model.predict(*fragment(), version=2)


def test_scores_are_those_of_every_member() -> None:
    obs, actions = fragment()
    scores, version = serving(5).score(obs.reshape(-1, OBS), actions.reshape(-1, 2))
    assert (scores.shape, version) == ((2, ENVS * ROWS), 5)
    assert np.abs(scores[0] - scores[1]).max() > 0


def test_one_answer_has_one_version_while_versions_are_swapped() -> None:
    versions = {number: weights(number) for number in range(1, 20)}
    obs, actions = fragment()
    expected = {number: serving(number).predict(obs, actions)[0].tobytes() for number in versions}
    model = serving()
    model.load(versions[1])
    answers: list[tuple[bytes, int]] = []
    done = threading.Event()

    def ask() -> None:
        while not done.is_set():
            rewards, version = model.predict(obs, actions)
            answers.append((rewards.tobytes(), version))

    thread = threading.Thread(target=ask)
    thread.start()
    for number in range(2, 20):
        model.load(versions[number])
    done.set()
    thread.join()
    assert answers
    for rewards, version in answers:
        assert rewards == expected[version]
    seen = [version for _, version in answers]
    assert seen == sorted(seen), "versions on a replica only grow"


def test_a_reward_that_is_not_finite_is_refused_and_kept_for_the_driver() -> None:
    model = serving(1)
    model.load(diverged(2))
    with pytest.raises(
        ValueError,
        match=r"predicted rewards must be finite; reward version 2 gave 21 of 21 that are",
    ):
        model.predict(*fragment())
    assert str(model.status().fatal).startswith(
        "predicted rewards must be finite; reward version 2"
    )


def test_an_observation_that_is_not_finite_is_refused_too() -> None:
    obs, actions = fragment()
    obs[0, 0, 0] = np.nan
    model = serving(1)
    with pytest.raises(
        ValueError, match="gave 1 of 21 that are not, and so were their observations or actions"
    ):
        model.predict(obs, actions)
    assert model.status().fatal is not None


def test_the_status_counts_calls_and_transitions() -> None:
    model = serving(1)
    for _ in range(3):
        model.predict(*fragment())
    status = model.status()
    assert (status.calls, status.transitions, status.fatal) == (3, 3 * ENVS * ROWS, None)
    assert status.us_per_transition > 0


def test_bytes_that_are_no_weights_change_nothing() -> None:
    model = serving(1)
    with pytest.raises(DecodeError, match="these are not reward weights, or damaged ones"):
        model.load(weights(2).to_bytes()[:-100])
    assert model.predict(*fragment())[1] == 1
