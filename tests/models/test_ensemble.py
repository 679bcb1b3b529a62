"""The ensemble's networks: one batched forward, and modules of the user's own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rlhp.models.architecture import Architecture
from rlhp.models.ensemble import Ensemble, Network, build
from tests.reward.fit_samples import ACTION, OBS, SPACES, config, transitions

HERE = "tests.reward.fit_samples"


def network(*, seed: int = 0, **changes: Any) -> Network:
    return build(
        Architecture.of(config(**changes), spaces=SPACES),
        generator=torch.Generator().manual_seed(seed),
    )


def inputs(rows: int = 6, *, plus: float = 0.0) -> tuple[Tensor, Tensor]:
    obs, actions = transitions(rows, seed=3)
    return torch.from_numpy(obs + np.float32(plus)), torch.from_numpy(actions + np.float32(plus))


def slow_forward(
    ensemble: Ensemble, obs: Tensor, actions: Tensor, *, activation: nn.Module
) -> Tensor:
    """Member by member, layer by layer."""
    members = []
    for m in range(3):
        hidden = ensemble.inputs(torch.cat([obs, actions], 1))
        for layer, (weight, bias) in enumerate(zip(ensemble.weights, ensemble.biases, strict=True)):
            hidden = hidden @ weight[m] + bias[m]
            hidden = activation(hidden) if layer < len(ensemble.weights) - 1 else hidden
        members.append(hidden[:, 0])
    return torch.stack(members)


@pytest.mark.parametrize(
    ("name", "activation"),
    [
        ("leaky_relu", nn.LeakyReLU(0.01)),
        ("relu", nn.ReLU()),
        ("tanh", nn.Tanh()),
        ("silu", nn.SiLU()),
    ],
)
def test_one_forward_is_that_of_every_member(name: str, activation: nn.Module) -> None:
    ensemble = network(activation=name)
    assert isinstance(ensemble, Ensemble)
    torch.testing.assert_close(
        ensemble(*inputs()), slow_forward(ensemble, *inputs(), activation=activation)
    )


def test_members_may_each_have_rows_of_their_own() -> None:
    ensemble = network()
    rows = [inputs(), inputs(plus=1), inputs(plus=-1)]
    own = ensemble(
        torch.stack([obs for obs, _ in rows]), torch.stack([actions for _, actions in rows])
    )
    for m in range(3):
        torch.testing.assert_close(own[m], ensemble(*rows[m])[m])


def test_members_start_differently_and_a_seed_repeats_them() -> None:
    rewards = network()(*inputs())
    assert not torch.equal(rewards[0], rewards[1])
    torch.testing.assert_close(network()(*inputs()), rewards, rtol=0, atol=0)
    assert not torch.equal(network(seed=1)(*inputs()), rewards)


def test_without_hidden_layers_the_reward_is_linear() -> None:
    ensemble = network(hidden=())
    obs, actions = inputs()
    middle = ensemble((obs + obs.flip(0)) / 2, (actions + actions.flip(0)) / 2)
    torch.testing.assert_close(
        middle, (ensemble(obs, actions) + ensemble(obs.flip(0), actions.flip(0))) / 2
    )


def test_without_actions_only_observations_enter() -> None:
    assert network(use_action=False)(inputs()[0], inputs()[1][:, :0]).shape == (3, 6)


def test_dropout_acts_in_training_only_and_follows_its_generator() -> None:
    ensemble = network(dropout=0.5)
    plain = ensemble.eval()(*inputs())
    torch.testing.assert_close(plain, network()(*inputs()))
    dropped = [
        ensemble.train()(*inputs(), torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)
    ]
    assert torch.equal(dropped[0], dropped[1])
    assert not torch.equal(dropped[0], dropped[2])
    assert not torch.equal(dropped[0], plain)


def test_a_new_scale_of_the_inputs_leaves_every_reward_as_it_was() -> None:
    ensemble = network()
    assert isinstance(ensemble, Ensemble)
    ensemble.inputs.set(np.array([0.0, 1.0, 2.0, 0.0, 0.1]), np.array([2.0, 0.5, 30.0, 1.0, 0.5]))
    before = ensemble(*inputs())
    rows = np.concatenate(transitions(100, seed=4), 1)
    ensemble.rescale_inputs(rows.mean(0), rows.std(0))
    torch.testing.assert_close(ensemble(*inputs()), before, rtol=1e-4, atol=1e-5)
    assert float(ensemble.inputs(torch.from_numpy(rows)).mean()) < 1e-4


def test_the_penalty_sees_weights_and_no_biases() -> None:
    assert [tuple(weight.shape) for weight in network().penalized()] == [
        (3, OBS + ACTION, 16),
        (3, 16, 16),
        (3, 16, 1),
    ]
    own = network(module=f"{HERE}:Linear")
    assert [tuple(weight.shape) for weight in own.penalized()] == [(3, 1, OBS + ACTION)]


def test_a_module_of_the_users_own_is_built_once_per_member() -> None:
    own = network(module=f"{HERE}:Linear")
    rewards = own(*inputs())
    assert rewards.shape == (3, 6)
    assert not torch.equal(rewards[0], rewards[1])
    torch.testing.assert_close(network(module=f"{HERE}:Linear")(*inputs()), rewards, rtol=0, atol=0)
    torch.testing.assert_close(own(*(torch.stack([part] * 3) for part in inputs())), rewards)


def test_a_users_module_leaves_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    own = network(module=f"{HERE}:Linear", module_kwargs={"dropout": 0.5})
    dropped = [own.train()(*inputs(), torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)]
    assert torch.equal(dropped[0], dropped[1])
    assert not torch.equal(dropped[0], dropped[2])
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("module", "message"),
    [
        ("no_colon", r"reward\.module is named package\.module:Name, got 'no_colon'"),
        (
            "not.there:Name",
            r"'not\.there' cannot be imported \(ModuleNotFoundError: No module named 'not'\)",
        ),
        (f"{HERE}:Missing", r"reward\.module=.*: module .* has no 'Missing'"),
        (f"{HERE}:Fussy", r"could not be built with the keywords action_size, obs_size: TypeError"),
        (f"{HERE}:NOT_A_MODULE", r"must be a torch\.nn\.Module, got dict"),
        (
            f"{HERE}:TwoDimensional",
            r"takes \[B, 3\] and \[B, 2\] and returns rewards \[B\]; .* it returned \[2, 1\]",
        ),
        ("torch.nn:Identity", r"with B = 2 it failed: TypeError"),
    ],
)
def test_a_module_that_cannot_be_used_is_refused_in_one_line(module: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        network(module=module)
    assert "\n" not in str(caught.value)


def test_wrong_keywords_for_a_module_are_named() -> None:
    with pytest.raises(
        ValueError,
        match="could not be built with the keywords action_size, obs_size, widht: TypeError",
    ):
        network(module=f"{HERE}:Linear", module_kwargs={"widht": 3})
