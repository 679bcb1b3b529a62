"""A published reward version: its bytes, and the prices it gives."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from rlhp.reward.versions import RewardPredictor, RewardWeights
from rlhp.types import DecodeError
from tests.reward.fit_samples import ACTION, OBS, fitter, transitions

HERE = "tests.reward.fit_samples"


def published(**changes: Any) -> RewardWeights:
    return fitter(**changes).publish(3)


@pytest.fixture(scope="module")
def weights() -> RewardWeights:
    return published()


def test_weights_survive_their_bytes(weights: RewardWeights) -> None:
    again = RewardWeights.from_bytes(weights.to_bytes())
    assert (again.version, again.architecture, again.target_std) == (
        3,
        weights.architecture,
        weights.target_std,
    )
    assert again.state.keys() == weights.state.keys()
    for name, array in weights.state.items():
        np.testing.assert_array_equal(again.state[name], array)
    rows = transitions(100, seed=1)
    np.testing.assert_array_equal(
        RewardPredictor(again).predict(*rows), RewardPredictor(weights).predict(*rows)
    )


def test_bytes_hold_no_pickle(weights: RewardWeights) -> None:
    with np.load(io.BytesIO(weights.to_bytes()), allow_pickle=False) as file:
        assert json.loads(file["header"].tobytes())["version"] == 3
        assert not any(file[name].dtype.hasobject for name in file.files)


@pytest.mark.parametrize("kept", [0, 1, 100, -1])
def test_damaged_bytes_are_refused_with_the_bytes_attached(
    weights: RewardWeights, kept: int
) -> None:
    data = weights.to_bytes()[:kept]
    with pytest.raises(
        DecodeError, match="these are not reward weights, or damaged ones"
    ) as caught:
        RewardWeights.from_bytes(data)
    assert caught.value.data == data


def test_a_flipped_bit_is_noticed(weights: RewardWeights) -> None:
    data = bytearray(weights.to_bytes())
    at = data.index(weights.state["weights.1"].tobytes()[:64])
    data[at] ^= 1
    with pytest.raises(DecodeError, match="damaged ones: Bad CRC-32"):
        RewardWeights.from_bytes(bytes(data))


def test_another_format_is_named(weights: RewardWeights, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rlhp.reward.versions.FORMAT", 2)
    data = weights.to_bytes()
    monkeypatch.undo()
    with pytest.raises(DecodeError, match="they have format 2, this program reads 1"):
        RewardWeights.from_bytes(data)


def test_versions_begin_at_one(weights: RewardWeights) -> None:
    with pytest.raises(ValueError, match=r"reward versions count 1, 2, 3, \.\.\.; got 0"):
        replace(weights, version=0)


def test_each_member_has_its_own_scale(weights: RewardWeights) -> None:
    with pytest.raises(ValueError, match="one mean and std for each of 3 members"):
        replace(weights, member_std=np.ones(2, np.float32))


@pytest.mark.parametrize("target_std", [1.0, 0.05])
def test_a_label_is_the_mean_of_the_scaled_members(target_std: float) -> None:
    predictor = RewardPredictor(made := published(target_std=target_std))
    rows = transitions(700, seed=2)
    scores = predictor.score(*rows)
    slow = [
        target_std
        * np.mean(
            [(r - m) / s for r, m, s in zip(row, made.member_mean, made.member_std, strict=True)]
        )
        for row in scores.T.astype(np.float64)
    ]
    labels = predictor.predict(*rows)
    assert scores.shape == (3, 700)
    assert labels.shape == (700,)
    assert scores.dtype == labels.dtype == np.float32
    np.testing.assert_allclose(labels, slow, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "changes", [{}, {"module": f"{HERE}:Linear"}, {"use_action": False, "activation": "tanh"}]
)
def test_a_transition_has_the_same_reward_bit_for_bit_in_any_batch(changes: dict[str, Any]) -> None:
    predictor = RewardPredictor(published(**changes))
    obs, actions = transitions(2000, seed=3)
    together = predictor.predict(obs, actions)
    rng = np.random.default_rng(0)
    for size in (0, 1, 7, 128, 511, 512, 513, 1999):
        some = rng.choice(2000, size, replace=False)
        np.testing.assert_array_equal(predictor.predict(obs[some], actions[some]), together[some])


def test_a_reward_that_is_not_finite_names_the_version_and_the_cause(
    weights: RewardWeights,
) -> None:
    obs, actions = transitions(5, seed=4)
    broken = {name: array.copy() for name, array in weights.state.items()}
    broken["biases.2"][:] = np.inf
    with pytest.raises(
        ValueError,
        match=r"reward version 3 gave 5 of 5 .* its weights have diverged: lower reward\.lr",
    ):
        RewardPredictor(replace(weights, state=broken)).predict(obs, actions)
    obs[2, 0] = np.nan
    with pytest.raises(
        ValueError, match=r"reward version 3 gave 1 of 5 .* so were their observations or actions"
    ):
        RewardPredictor(weights).predict(obs, actions)


def test_other_shapes_are_refused(weights: RewardWeights) -> None:
    with pytest.raises(
        ValueError, match=r"\[B, 3\] and encoded actions \[B, 2\]; got \(4, 3\) and \(4, 3\)"
    ):
        RewardPredictor(weights).predict(
            np.zeros((4, OBS), np.float32), np.zeros((4, ACTION + 1), np.float32)
        )


def test_a_device_that_is_not_there_is_named(weights: RewardWeights) -> None:
    with pytest.raises(
        ValueError,
        match=r"reward\.device='nonsense' cannot be used here: .* Set reward\.device='cpu'\.",
    ):
        RewardPredictor(weights, device="nonsense")
