"""Who trains on which preference, and the tensors they become."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
import torch

from rlhp.models.architecture import Architecture
from rlhp.reward.data import Batch, TrainingSet, bag_count, is_held_out
from rlhp.types import Answer, Preference
from tests.reward.fit_samples import SPACES, STEPS, config, preference, preferences, segment


def examples(data: Iterable[Preference], *, seed: int = 0, **changes: Any) -> TrainingSet:
    settings = config(**changes)
    architecture = Architecture.of(settings, spaces=SPACES)
    made = TrainingSet(
        settings, architecture=architecture, spaces=SPACES, seed=seed, device=torch.device("cpu")
    )
    made.add(list(data))
    return made


def whole(made: TrainingSet) -> Batch:
    return made.batch(np.arange(len(made)))


def test_bags_are_those_of_a_bootstrap() -> None:
    counts = np.array([bag_count(f"query-{n}", member=0, seed=0) for n in range(4000)])
    left_out, mean = (counts == 0).mean(), counts.mean()
    # four standard errors
    assert abs(left_out - np.exp(-1)) < 4 * np.sqrt(np.exp(-1) * (1 - np.exp(-1)) / 4000)
    assert abs(mean - 1) < 4 / np.sqrt(4000)


def test_bags_depend_on_seed_member_and_query_and_on_nothing_else() -> None:
    assert [bag_count(f"query-{n}", member=1, seed=3) for n in range(12)] == [
        0,
        1,
        2,
        0,
        3,
        0,
        0,
        2,
        2,
        2,
        1,
        1,
    ]
    several = {
        tuple(bag_count(f"query-{n}", member=m, seed=s) for n in range(50))
        for m in range(3)
        for s in range(3)
    }
    assert len(several) == 9


def test_bags_do_not_depend_on_when_a_preference_arrives() -> None:
    data = preferences(30)
    at_once, piecemeal = examples(data), examples(data[:7])
    piecemeal.add(data[5:20])
    piecemeal.add(data)
    assert torch.equal(at_once.bags, piecemeal.bags)
    assert torch.equal(whole(at_once).obs, whole(piecemeal).obs)
    assert torch.equal(whole(at_once).actions, whole(piecemeal).actions)


def test_what_a_member_trains_on_never_steers_its_penalty() -> None:
    made = examples(preferences(40))
    for member in range(3):
        trained, validated = made.train_rows[member], made.validation_rows[member]
        assert not set(trained) & set(validated)
        assert set(trained) | set(validated) == set(range(40))
        assert np.bincount(trained, minlength=40).tolist() == made.bags[member].tolist()


def test_held_out_preferences_are_nobodys() -> None:
    made = examples(preferences(60), heldout_share=0.3)
    expected = [is_held_out(f"query-{n}", share=0.3) for n in range(60)]
    assert made.held_out.tolist() == expected
    assert 5 < sum(expected) < 30
    for rows in (*made.train_rows, *made.validation_rows):
        assert not made.held_out[rows].any()


def test_without_a_bootstrap_everyone_trains_on_all_but_a_tenth() -> None:
    made = examples(preferences(60), bootstrap=False)
    assert made.held_out.tolist() == [is_held_out(f"query-{n}", share=0.1) for n in range(60)]
    assert made.held_out.any()
    for rows, validated in zip(made.train_rows, made.validation_rows, strict=True):
        assert rows.tolist() == torch.nonzero(~made.held_out).flatten().tolist()
        assert validated.tolist() == torch.nonzero(made.held_out).flatten().tolist()


def test_two_answers_to_one_query_share_its_fate_and_a_repeated_one_is_ignored() -> None:
    made = examples(
        [preference(1), preference(1, labeler="somebody", answer=Answer.TIE), preference(1)]
    )
    assert len(made) == 2
    assert made.bags[:, 0].tolist() == made.bags[:, 1].tolist()
    assert made.add([preference(1), preference(2)]) == 1


def test_targets_are_one_zero_and_a_half() -> None:
    answers = (Answer.FIRST, Answer.SECOND, Answer.TIE)
    made = examples([preference(n, answer=answer) for n, answer in enumerate(answers)])
    assert made.target.tolist() == [[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]]


def test_incomparable_is_refused_and_nothing_half_taken_in() -> None:
    made = examples(preferences(2))
    with pytest.raises(
        ValueError, match="query query-9: incomparable has no target and is never trained on"
    ):
        made.add([preference(8), preference(9, answer=Answer.INCOMPARABLE)])
    assert len(made) == 2
    assert made.add([preference(8)]) == 1


def test_segments_are_flattened_without_their_last_observation() -> None:
    made, one = whole(examples([preference(0)])), segment(0)
    np.testing.assert_array_equal(made.obs[0, 0], one.obs[""][:-1].astype(np.float32))
    np.testing.assert_array_equal(made.actions[0, 0], one.actions)
    assert whole(examples([preference(0)], use_action=False)).actions.shape == (1, 2, STEPS, 0)


def test_short_segments_are_padded_and_masked_whichever_comes_first() -> None:
    data = [preference(0, length=3), preference(1), preference(2, length=5)]
    made = examples(data[:1])
    made.add(data[1:])
    assert whole(made).mask.sum(-1).tolist() == [[3, 3], [STEPS, STEPS], [5, 5]]
    for n, one in enumerate(data):
        np.testing.assert_array_equal(
            whole(made).actions[n, 1, : one.second.length], one.second.actions
        )
    assert whole(made).obs[~whole(made).mask].abs().sum() == 0
    assert whole(made).actions[~whole(made).mask].abs().sum() == 0


def test_growing_keeps_what_was_there() -> None:
    data = preferences(150)
    made = examples(data[:3])
    for start in range(3, 150, 49):
        made.add(data[start : start + 49])
    assert torch.equal(whole(made).obs, whole(examples(data)).obs)
    assert torch.equal(whole(made).actions, whole(examples(data)).actions)
    assert torch.equal(made.target, examples(data).target)


def test_a_segment_that_is_not_finite_is_named() -> None:
    one = preference(0)
    one.first.obs[""][2, 0] = np.inf
    with pytest.raises(
        ValueError, match="segment segment-0 holds observations or actions that are not finite"
    ):
        examples([one])


def test_true_returns_are_standardized_over_all_segments() -> None:
    data = preferences(20)
    made = examples(data[:5], loss="regression")
    made.add(data[5:])
    returns = np.array([(p.first.true_return, p.second.true_return) for p in data])
    np.testing.assert_allclose(
        made.part(np.arange(20)).returns,
        (returns - returns.mean()) / returns.std(),
        rtol=1e-5,
        atol=1e-6,
    )
