"""Fitting the ensemble: what it learns, what it must not see, and that it goes on where
it stopped.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from rlhp.reward.fit import Fitter
from rlhp.reward.penalty import HIGHEST, LOWEST
from rlhp.reward.versions import RewardPredictor
from rlhp.system.memory import flushes
from rlhp.types import Answer
from tests.reward.fit_samples import (
    SPACES,
    config,
    env_rewards,
    fitter,
    preference,
    preferences,
    transitions,
)

HERE = "tests.reward.fit_samples"


def at_least(right: int, *, of: int, chance: float) -> float:
    """P(so many right or more) if each were right with this chance: a one-sided
    binomial test.
    """
    return sum(
        math.comb(of, k) * chance**k * (1 - chance) ** (of - k) for k in range(right, of + 1)
    )


def test_it_finds_a_linear_reward_from_300_preferences() -> None:
    right = asked = 0
    for seed in range(3):
        made = fitter(seed=seed, data=0, batch_size=64)
        made.add(preferences(300, start=1000 * seed))
        made.pretrain(40)
        predictor = RewardPredictor(made.publish(1))
        rows = transitions(1000, seed=50 + seed)
        true, predicted = env_rewards(*rows), predictor.predict(*rows)
        pairs = np.random.default_rng(seed).permutation(1000).reshape(-1, 2)
        right += int(
            (
                (true[pairs[:, 0]] > true[pairs[:, 1]])
                == (predicted[pairs[:, 0]] > predicted[pairs[:, 1]])
            ).sum()
        )
        asked += len(pairs)
    # single steps, harder than the segments it was shown; rejects an accuracy of 0.85
    # or less at the 0.1 % level
    assert at_least(right, of=asked, chance=0.85) < 0.001


def test_held_out_accuracy_is_that_of_answers_nobody_trained_on() -> None:
    report = fitter(data=200, heldout_share=0.3).pretrain(30)
    assert report.heldout_accuracy is not None
    assert report.train_accuracy is not None
    assert report.heldout_accuracy > 0.85
    assert report.train_accuracy > 0.95
    assert report.calibration_error is not None
    assert 0 < report.calibration_error < 0.3


def test_regression_on_true_returns_learns_too() -> None:
    made = fitter(data=100, loss="regression", lr=0.01)
    before = made.report()
    after = made.pretrain(30)
    assert before.train_loss is not None
    assert after.train_loss is not None
    assert after.train_loss < 0.2 * before.train_loss
    assert after.loss_floor == 0.0


def test_changing_an_answer_out_of_the_bag_leaves_that_member_alone() -> None:
    data = preferences(20)
    made = [fitter(data=0, l2_adaptive=False) for _ in range(2)]
    bags = made[0]._examples
    made[0].add(data)
    row = next(n for n in range(20) if bags.bags[0, n] == 0 and bags.bags[1, n] > 0)
    other = Answer.FIRST if data[row].answer is Answer.SECOND else Answer.SECOND
    made[1].add([preference(n, answer=other if n == row else None) for n in range(20)])
    for fitting in made:
        fitting.pretrain(5)
    one, two = (fitting.publish(1) for fitting in made)
    for name in ("weights.0", "weights.1", "weights.2", "biases.0", "biases.1", "biases.2"):
        np.testing.assert_array_equal(one.state[name][0], two.state[name][0])
    assert not np.array_equal(one.state["weights.0"][1], two.state["weights.0"][1])


def test_a_member_with_an_empty_bag_waits() -> None:
    made = fitter(data=0)
    empty = [
        n
        for n in range(50)
        if made._examples._count(f"query-{n}", 0) == 0 < made._examples._count(f"query-{n}", 1)
    ]
    made.add([preference(empty[0])])
    before = made.publish(1).state
    report = made.pretrain(5)
    after = made.publish(2).state
    np.testing.assert_array_equal(before["weights.1"][0], after["weights.1"][0])
    assert not np.array_equal(before["weights.1"][1], after["weights.1"][1])
    assert report.train_loss is not None


def test_after_every_publication_each_member_has_mean_0_and_std_1_over_recent_transitions() -> None:
    made = fitter(target_std=0.05)
    for version in (1, 2, 3):
        made.train(160)
        rows = transitions(600, seed=version)
        made.observe(*rows)
        weights = made.publish(version)
        predictor = RewardPredictor(weights)
        scaled = (predictor.score(*rows) - weights.member_mean[:, None]) / weights.member_std[
            :, None
        ]
        np.testing.assert_allclose(scaled.mean(1, dtype=np.float64), 0, atol=1e-4)
        np.testing.assert_allclose(scaled.std(1, dtype=np.float64), 1, rtol=1e-4)
        labels = predictor.predict(*rows).astype(np.float64)
        assert abs(labels.mean()) < 1e-5
        assert labels.std() <= 0.05 * (1 + 1e-4)


def test_a_carried_center_gives_recent_transitions_the_mean_that_the_version_before_gave_them() -> (
    None
):
    made = fitter(data=100, center="carried", target_std=0.1)
    made.pretrain(10)
    first = made.publish(1)
    made.observe(*transitions(2000, seed=7))
    made.train(640)
    second = made.publish(2, before=first)
    rows = made._reservoir.rows()
    old, new = RewardPredictor(first).predict(*rows), RewardPredictor(second).predict(*rows)
    assert new.mean() == pytest.approx(old.mean(), abs=1e-4)
    scores = RewardPredictor(second).score(*rows)
    assert np.allclose(
        ((scores - second.member_mean[:, None]) / second.member_std[:, None]).std(1), 1.0, atol=1e-3
    )


def test_a_recent_center_forgets_the_version_before() -> None:
    made = fitter(data=100, center="recent")
    made.pretrain(10)
    first = made.publish(1)
    made.observe(*transitions(2000, seed=7))
    predicted = RewardPredictor(made.publish(2, before=first)).predict(*made._reservoir.rows())
    assert predicted.mean() == pytest.approx(0, abs=1e-4)


def test_publishing_follows_the_observations_and_changes_no_reward() -> None:
    made = fitter()
    made.pretrain(3)
    first = made.publish(1)
    obs, actions = transitions(500, seed=8)
    made.observe(3 * obs, actions)
    second = made.publish(2)
    assert not np.array_equal(first.state["inputs.std"], second.state["inputs.std"])
    rows = transitions(300, seed=9)
    old, new = (RewardPredictor(weights).score(*rows) for weights in (first, second))
    np.testing.assert_allclose(new, old, rtol=1e-4, atol=1e-4)


def test_before_any_transition_the_preferences_give_the_inputs_their_scale() -> None:
    made = Fitter(config(), spaces=SPACES, seed=0)
    made.add(preferences(50))
    made.pretrain(1)
    with pytest.raises(
        ValueError,
        match=r"reward version 1 needs recent transitions .* call observe\(\) before publish\(\)",
    ):
        made.publish(1)
    std = made.state_dict()["network"]["inputs.std"][:3]
    np.testing.assert_allclose(std, [1.0, 0.1, 20.0], rtol=0.2)


def test_the_loss_ratio_is_in_the_band_or_the_penalty_moves_toward_it() -> None:
    made = fitter(data=30, l2=1e-4, l2_adaptive=True)
    made.pretrain(150)
    penalty = made._penalty
    grows, shrinks = penalty.ratio > 1.5, penalty.ratio < 1.1
    before = penalty.weights.copy()
    made.train(16 * 10)
    for m in range(3):
        if grows[m]:
            assert penalty.weights[m] > before[m] or penalty.weights[m] == HIGHEST
        if shrinks[m]:
            assert penalty.weights[m] < before[m] or penalty.weights[m] == LOWEST
    assert grows.any()  # 30 preferences are learned by heart


def test_a_strong_penalty_keeps_a_member_from_learning_by_heart() -> None:
    weak, strong = (fitter(data=30, l2=l2, l2_adaptive=False).pretrain(60) for l2 in (0.0, 0.1))
    assert weak.train_loss is not None
    assert strong.train_loss is not None
    assert strong.train_loss > 2 * weak.train_loss


def test_the_training_loss_never_falls_below_its_floor() -> None:
    made = fitter(data=0)
    made.add([preference(n, answer=Answer.TIE if n % 3 == 0 else None) for n in range(40)])
    report = made.pretrain(100)
    assert report.train_loss is not None
    assert report.loss_floor is not None
    assert report.loss_floor > 0.051
    assert report.loss_floor <= report.train_loss < report.loss_floor + 0.1


def test_members_differ() -> None:
    made = fitter()
    made.pretrain(10)
    made.publish(1)
    correlation = made.report().member_correlation
    assert correlation is not None
    assert 0 < correlation < 0.9999


def test_uses_that_fill_no_minibatch_are_carried_over() -> None:
    made = fitter()
    assert [made.train(uses).updates for uses in (10, 5.5, 0.5, 47, 1)] == [0, 0, 1, 3, 4]


def test_an_epoch_is_one_pass_over_the_preferences() -> None:
    assert fitter(data=60).pretrain(3).updates == 3 * 4  # 60 preferences, 16 at a time
    assert fitter(data=5).pretrain(3).updates == 3


def test_pretraining_stops_early_when_validation_gets_no_better() -> None:
    noise = [preference(n, answer=Answer.FIRST if n % 2 else Answer.SECOND) for n in range(40)]
    made = [fitter(data=0, l2=0.0, lr=0.02) for _ in range(2)]
    for one in made:
        one.add(noise)
    assert made[0].pretrain(60, early_stop=5).updates < made[1].pretrain(60).updates


def test_a_fit_takes_for_zero_what_would_only_be_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bool] = []
    monkeypatch.setattr(Fitter, "_step", lambda _: seen.append(flushes()))
    fitter().pretrain(1)
    assert seen
    assert all(seen)
    assert not flushes(), "the caller's thread is as it was"


def test_training_without_preferences_is_refused() -> None:
    with pytest.raises(
        ValueError, match="no preference to train on yet, of 0 taken in; add some before training"
    ):
        fitter(data=0).pretrain(1)


def test_a_report_without_data_says_that_it_knows_nothing() -> None:
    report = fitter(data=0).report()
    assert report.preferences == 0
    assert (
        report.train_loss
        is report.heldout_accuracy
        is report.calibration_error
        is report.loss_floor
        is None
    )


def test_forgotten_data_comes_back_into_the_same_bags() -> None:
    made = fitter(data=20)
    bags = made._examples.bags
    made.forget_data()
    assert made.size == 0
    made.add(preferences(20))
    assert torch.equal(made._examples.bags, bags)


def test_a_diverging_ensemble_is_named() -> None:
    with pytest.raises(
        ValueError, match=r"the reward ensemble diverged: losses .*; lower reward\.lr"
    ):
        fitter(lr=1e30, l2_adaptive=False).pretrain(20)


def test_short_segments_train_like_the_others() -> None:
    made = fitter(data=0)
    made.add([preference(n, length=3 if n % 2 else 8) for n in range(60)])
    report = made.pretrain(40)
    assert report.train_accuracy is not None
    assert report.train_accuracy > 0.95


def test_a_module_of_the_users_own_learns() -> None:
    made = fitter(data=150, module=f"{HERE}:Linear", lr=0.03)
    report = made.pretrain(12)
    assert report.heldout_accuracy is not None
    assert report.heldout_accuracy > 0.85
    rows = transitions(400, seed=12)
    assert (
        np.corrcoef(RewardPredictor(made.publish(1)).predict(*rows), env_rewards(*rows))[0, 1] > 0.9
    )


def test_a_restarted_fitter_knows_as_before_whether_the_answers_are_explained() -> None:
    made = fitter(data=20, l2=0.0, l2_adaptive=False)
    made.pretrain(200)
    assert made.explained
    again = fitter(data=0, l2=0.0, l2_adaptive=False)
    again.load_state_dict(made.state_dict())
    again.add(preferences(20))
    assert again.explained
    again.add(preferences(5, start=20))
    assert not again.explained, "new answers are to be gone through"


def test_a_state_of_before_is_refused_in_a_line() -> None:
    made = fitter()
    state = made.state_dict()
    del state["side"]
    with pytest.raises(ValueError, match="an earlier rlhp saved no 'side'") as caught:
        fitter().load_state_dict(state)
    assert "\n" not in str(caught.value)
