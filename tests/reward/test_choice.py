"""The answers decide whether a reward sees actions."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from rlhp.reward.data import Subset
from rlhp.reward.fit import Fitter, out_of_bag, sees_action
from rlhp.reward.versions import RewardPredictor
from rlhp.types import Answer, Preference
from tests.reward.fit_samples import ACTION, OBS, SPACES, config, preferences, transitions


def part(p_first: Tensor, validation: Tensor) -> Subset:
    target = torch.stack([p_first, 1 - p_first], -1)
    return Subset(
        target=target,
        present=torch.ones_like(target, dtype=torch.bool),
        returns=torch.zeros(len(target), 2),
        bags=(~validation).float(),
        validation=validation,
        held_out=torch.zeros(len(target), dtype=torch.bool),
    )


def pairs(margin: Tensor) -> Tensor:
    """Returns of pairs, the second 0."""
    return torch.stack([margin, torch.zeros_like(margin)], -1)


def test_each_answer_is_judged_by_the_members_that_did_not_train_on_it() -> None:
    margin = torch.tensor([[4.0, 4.0, 4.0], [-4.0, -4.0, -4.0]])
    validation = torch.tensor([[True, False, False], [False, True, False]])
    likely = out_of_bag(pairs(margin), part(torch.ones(3), validation))
    assert likely[0] > likely[1], (
        "the first answer by the member that agrees, the second by the one that does not"
    )
    assert likely[2] == 0, "nobody judges what all trained on"


def test_being_sure_beyond_reason_is_no_fault_where_pairs_are_ranked_alike() -> None:
    rng = np.random.default_rng(0)
    true = torch.from_numpy(rng.normal(size=60)).float()
    target = (true + 0.5 * torch.from_numpy(rng.normal(size=60)).float() > 0).float()
    everyone = torch.ones(1, 60, dtype=torch.bool)
    calm = out_of_bag(pairs(true[None]), part(target, everyone))
    sure = out_of_bag(pairs(5 * true[None]), part(target, everyone))
    assert abs(float(calm.sum() - sure.sum())) < 0.2


def test_a_lead_by_chance_changes_nothing_and_a_clear_one_does() -> None:
    rng = np.random.default_rng(1)
    blind = torch.full((400,), -0.6)
    by_chance = blind + torch.from_numpy(rng.normal(0.02, 0.5, 400)).float()
    clear = blind + torch.from_numpy(rng.normal(0.2, 0.5, 400)).float()
    assert not sees_action(by_chance, blind, now=False)
    assert sees_action(by_chance, blind, now=True) == bool((by_chance - blind).sum() >= 0)
    assert sees_action(clear, blind, now=False)
    assert not sees_action(blind - 0.1, blind, now=True)
    assert not sees_action(torch.zeros(0), torch.zeros(0), now=False)


def fitted(*, by_action: bool) -> Fitter:
    """Fitted to answers that go by the actions alone, or by the observations alone."""
    made = Fitter(
        config(members=2, use_action="auto", bootstrap=True, l2=3e-3, l2_adaptive=False),
        spaces=SPACES,
        seed=0,
    )
    made.observe(*transitions(300, seed=0))
    told = []
    for each in preferences(300):
        first, second = (
            float((each.actions if by_action else each.obs[""][:-1])[:, 0].sum())
            for each in (each.first, each.second)
        )
        answer = Answer.FIRST if first > second else Answer.SECOND
        told.append(
            Preference(
                query=each.query, candidates=(each.first, each.second), answer=answer, labeler="ann"
            )
        )
    made.add(told)
    made.pretrain(60)
    return made


def test_a_reward_of_actions_alone_is_published_by_the_ensemble_that_sees_them() -> None:
    made = fitted(by_action=True)
    weights = made.publish(1)
    assert made.sees_action
    assert (weights.architecture.action_size, weights.architecture.members) == (ACTION, 2)
    obs, actions = transitions(400, seed=5)
    assert np.corrcoef(RewardPredictor(weights).predict(obs, actions), actions[:, 0])[0, 1] > 0.8


def test_a_reward_of_observations_alone_is_published_without_actions() -> None:
    made = fitted(by_action=False)
    weights = made.publish(1)
    assert not made.sees_action
    assert weights.architecture.action_size == 0
    assert weights.state["weights.0"].shape[1] == OBS
    obs, actions = transitions(400, seed=5)
    predictor = RewardPredictor(weights)
    np.testing.assert_array_equal(predictor.predict(obs, actions), predictor.predict(obs, -actions))
    assert np.corrcoef(predictor.predict(obs, actions), obs[:, 0])[0, 1] > 0.8


def test_a_published_side_predicts_what_it_did_while_it_was_fitted_beside_the_other() -> None:
    made = fitted(by_action=False)
    obs, actions = transitions(50, seed=6)
    weights = made.publish(1)
    made._network.eval()
    with torch.no_grad():
        both = made._network(torch.from_numpy(obs), torch.from_numpy(actions))
    np.testing.assert_allclose(
        RewardPredictor(weights).score(obs, actions), both[2:].numpy(), atol=1e-6
    )
