"""Rewards of pictures: the grouped forward against a slow one per member, and the same
bits for the same picture.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from rlhp.envs.spaces import ActionSpec, Leaf, ObsSpec, Spaces
from rlhp.models.architecture import Architecture
from rlhp.models.convolution import REWARD
from rlhp.models.ensemble import build
from rlhp.models.picture_ensemble import PictureEnsemble
from rlhp.reward import fit as module
from rlhp.reward.data import Pictures
from rlhp.reward.fit import Fitter
from rlhp.reward.service import RewardModel
from rlhp.reward.versions import RewardPredictor, RewardWeights
from rlhp.types import Array
from tests.reward.fit_samples import config
from tests.reward.picture_samples import ACTIONS, pictures, preferences, spaces

MEMBERS = 3


def ensemble(size: int = 24, **changes: Any) -> PictureEnsemble:
    made = build(
        Architecture.of(config(**changes), spaces=spaces(size)),
        generator=torch.Generator().manual_seed(0),
    )
    assert isinstance(made, PictureEnsemble)
    return made


def inputs(rows: int, *, size: int = 24, seed: int = 0) -> tuple[Tensor, Tensor]:
    actions = np.random.default_rng(seed).normal(size=(rows, ACTIONS)).astype(np.float32)
    return torch.from_numpy(pictures(rows, size=size, seed=seed)), torch.from_numpy(actions)


def slow_forward(
    made: PictureEnsemble, obs: Tensor, actions: Tensor, member: int, *, standardized: bool = False
) -> Tensor:
    """One member alone, layer by layer, as torch has them."""
    convolution = made._convolution
    hidden = obs.float()
    if convolution.factor(tuple(obs.shape[1:])) > 1:  # type: ignore[arg-type]
        hidden = functional.avg_pool2d(hidden, 2)
    hidden = (
        (hidden * made.pixels.rate + made.pixels.shift).clamp(-5, 5)
        if standardized
        else hidden / 255
    )
    for layer, (filters, _, stride) in enumerate(convolution.layers):
        own = slice(member * filters, (member + 1) * filters)
        kernel, shift = made.kernels[layer][own], made.shifts[layer][own]
        hidden = functional.conv2d(hidden, kernel, None if convolution.normalize else shift, stride)
        if convolution.normalize:
            if made.training:
                mean, variance = hidden.mean((0, 2, 3)), hidden.var((0, 2, 3), correction=0)
            else:
                mean, variance = (
                    made.get_buffer(f"mean_{layer}")[own],
                    made.get_buffer(f"variance_{layer}")[own],
                )
            hidden = (hidden - mean[:, None, None]) / (variance[:, None, None] + 1e-5).sqrt()
            hidden = hidden * made.scales[layer][own][:, None, None] + shift[:, None, None]
        hidden = functional.leaky_relu(hidden, 0.01)
    hidden = torch.cat([hidden.flatten(1), actions], 1)
    last = len(made.weights) - 1
    for layer, (weight, bias) in enumerate(zip(made.weights, made.biases, strict=True)):
        hidden = hidden @ weight[member] + bias[member]
        hidden = hidden if layer == last else functional.leaky_relu(hidden, 0.01)
    return hidden[:, 0]


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(
    ("network", "size"),
    [("cnn_small", 24), ("cnn_small", 70), ("cnn_coarse", 70), ("cnn", 64), ("mlp", 12)],
)
def test_one_forward_is_that_of_every_member(network: str, size: int, training: bool) -> None:
    made = ensemble(size, network=network).train(training)
    obs, actions = inputs(5, size=size)
    for member in range(MEMBERS):
        # first, or the running statistics have moved
        slow = slow_forward(made, obs, actions, member)
        torch.testing.assert_close(made(obs, actions)[member], slow, rtol=1e-4, atol=1e-5)


def test_members_may_each_have_rows_of_their_own() -> None:
    made = ensemble(64, network="cnn")
    rows = [inputs(4, size=64, seed=seed) for seed in range(MEMBERS)]
    for training in (True, False):
        made.train(training)
        slow = [slow_forward(made, *rows[member], member) for member in range(MEMBERS)]
        own = made(
            torch.stack([obs for obs, _ in rows]), torch.stack([actions for _, actions in rows])
        )
        torch.testing.assert_close(own, torch.stack(slow), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("network", "size"), [("cnn_small", 24), ("cnn_coarse", 64), ("mlp", 12)])
def test_each_pixel_is_seen_as_it_differs_from_what_it_was(network: str, size: int) -> None:
    made = ensemble(size, network=network, pixels="standardized")
    known, other = inputs(50, size=size)[0], inputs(6, size=size, seed=1)
    before = made(*other)
    made.pixels.meet(known)
    assert not torch.allclose(made(*other), before)
    for member in range(MEMBERS):
        slow = slow_forward(made, *other, member, standardized=True)
        torch.testing.assert_close(made(*other)[member], slow, rtol=1e-4, atol=1e-5)
    own = made(*(torch.stack([part] * MEMBERS) for part in other))
    torch.testing.assert_close(own, made(*other), rtol=1e-4, atol=1e-5)
    exact = known.double() if size < 64 else functional.avg_pool2d(known.double(), 2)
    rate = 1 / (exact.std(0, correction=0) + 2.5)
    torch.testing.assert_close(made.pixels.rate[0], rate.float())
    torch.testing.assert_close(made.pixels.shift[0], (-exact.mean(0) * rate).float())


def test_the_scale_of_pixels_is_set_when_fitting_begins_and_stays() -> None:
    made = Fitter(
        config(pixels="standardized", batch_size=4, use_action=False), spaces=spaces(24), seed=0
    )
    made.add(preferences(8, size=24))
    made.observe(seen := pictures(100, size=24, seed=3), np.zeros((100, ACTIONS), np.float32))
    made.train(4)
    first = made.publish(1)
    rate = 1 / (seen.std(0) + 2.5)
    np.testing.assert_allclose(first.state["pixels.shift"][0], -seen.mean(0) * rate, rtol=1e-4)
    made.observe(pictures(100, size=24, seed=4) // 2, np.zeros((100, ACTIONS), np.float32))
    made.train(4)
    np.testing.assert_array_equal(made.publish(2).state["pixels.rate"], first.state["pixels.rate"])
    again = Fitter(
        config(pixels="standardized", batch_size=4, use_action=False), spaces=spaces(24), seed=0
    )
    again.load_state_dict(made.state_dict())
    again.add(preferences(8, size=24))
    again.train(4)
    np.testing.assert_array_equal(again.publish(3).state["pixels.rate"], first.state["pixels.rate"])


def test_running_statistics_are_the_mean_of_all_batches_at_first() -> None:
    made = ensemble(64, network="cnn").train()
    seen = []
    for seed in range(3):
        obs, actions = inputs(6, size=64, seed=seed)
        hidden = functional.conv2d(obs.float() / 255, made.kernels[0], None, 3)
        seen.append(hidden.mean((0, 2, 3)))
        made(obs, actions)
    torch.testing.assert_close(
        made.get_buffer("mean_0"), torch.stack(seen).mean(0), rtol=1e-4, atol=1e-6
    )


def test_dropout_drops_whole_filters_in_training_only_and_follows_its_generator() -> None:
    made = ensemble(dropout=0.5)
    plain = made.eval()(*inputs(6))
    torch.testing.assert_close(plain, ensemble()(*inputs(6)))
    dropped = [made.train()(*inputs(6), torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)]
    assert torch.equal(dropped[0], dropped[1])
    assert not torch.equal(dropped[0], dropped[2])
    kept = made._drop(torch.ones(4, 6, 3, 3), torch.Generator().manual_seed(0))
    assert {tuple(filter_.unique().tolist()) for row in kept for filter_ in row} == {(0.0,), (2.0,)}


def test_the_penalty_sees_weights_alone() -> None:
    made = ensemble(64, network="cnn")
    assert [len(weight) for weight in made.penalized()] == [MEMBERS] * 7
    counted = sum(weight.numel() for weight in made.penalized())
    others = sum(p.numel() for p in [*made.shifts, *made.scales, *made.biases])
    assert counted + others == sum(p.numel() for p in made.parameters())


def fitted(size: int, **changes: Any) -> RewardWeights:
    made = Fitter(config(hidden=(16,), **changes), spaces=spaces(size), seed=0)
    made.observe(pictures(150, size=size, seed=9), np.zeros((150, ACTIONS), np.float32))
    made.add(preferences(8, size=size))
    made.pretrain(3)
    return made.publish(1)


@pytest.mark.parametrize(
    ("network", "size", "pixels"),
    [("cnn", 64, "scaled"), ("cnn_small", 24, "scaled"), ("cnn_small", 24, "standardized")],
)
def test_the_same_version_and_picture_have_the_same_reward_bit_for_bit(
    network: str, size: int, pixels: str
) -> None:
    """In whatever batch, and after a trip through bytes; batch normalization is frozen
    with the version.
    """
    weights = fitted(size, network=network, dropout=0.3, pixels=pixels)
    obs, actions = (part.numpy() for part in inputs(300, size=size))
    predictor = RewardPredictor(RewardWeights.from_bytes(weights.to_bytes()))
    together = predictor.predict(obs, actions)
    assert together.std() > 0
    for start, stop in ((0, 1), (7, 8), (5, 140), (299, 300)):
        alone = RewardPredictor(weights).predict(obs[start:stop], actions[start:stop])
        np.testing.assert_array_equal(alone, together[start:stop])


@pytest.mark.optional
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here that torch could use")
def test_a_gpu_fits_and_prices_as_a_cpu_does() -> None:
    weights = fitted(64, network="cnn", device="cuda", dropout=0.3)
    obs, actions = (part.numpy() for part in inputs(300, size=64))
    on_gpu = RewardPredictor(weights, device="cuda")
    together = on_gpu.predict(obs, actions)
    np.testing.assert_allclose(
        together, RewardPredictor(weights).predict(obs, actions), rtol=1e-2, atol=1e-2
    )
    np.testing.assert_array_equal(on_gpu.predict(obs[5:140], actions[5:140]), together[5:140])


def test_each_member_is_scaled_over_the_reservoir() -> None:
    made = Fitter(config(network="cnn_small"), spaces=spaces(24), seed=0)
    rows = pictures(200, size=24, seed=1), np.zeros((200, ACTIONS), np.float32)
    made.observe(*rows)
    weights = made.publish(1)
    scaled = (
        RewardPredictor(weights).score(*rows) - weights.member_mean[:, None]
    ) / weights.member_std[:, None]
    np.testing.assert_allclose(scaled.mean(1), 0, atol=1e-4)
    np.testing.assert_allclose(scaled.std(1), 1, atol=1e-4)


def test_a_bright_side_is_learned_from_preferences() -> None:
    made = Fitter(config(network="cnn_small", lr=3e-3, use_action=False), spaces=spaces(24), seed=0)
    made.observe(pictures(100, size=24, seed=3), np.zeros((100, ACTIONS), np.float32))
    made.add(preferences(60, size=24))
    report = made.pretrain(25)
    assert report.heldout_accuracy is not None
    assert report.heldout_accuracy > 0.8


def test_a_step_in_pieces_is_the_step_in_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def states(per_piece: int) -> dict[str, Tensor]:
        monkeypatch.setattr(module, "PICTURE_PREFERENCES_PER_PIECE", per_piece)
        # With an error rate no pair is so sure that its gradient is rounding, of which
        # Adam makes whole steps.
        settings = config(members=3, hidden=(8,), batch_size=8, use_action=False, error_rate=0.1)
        made = Fitter(settings, spaces=spaces(24), seed=0)
        made.add(preferences(12, size=24))
        made.train(8 * 5)
        network: dict[str, Tensor] = made.state_dict()["network"]
        return network

    whole, pieces = states(8), states(2)
    del whole["batches"]  # what batch normalization counts, which this network has not
    # a constant reward says nothing about preferences: its gradient is rounding alone
    del whole["biases.1"]
    for name, value in whole.items():
        torch.testing.assert_close(pieces[name], value, rtol=1e-3, atol=2e-5)


def test_frames_are_kept_once_and_every_stack_comes_back() -> None:
    rng = np.random.default_rng(0)
    film = rng.integers(0, 256, (30, 12, 12), dtype=np.uint8)
    film[:3] = film[3]  # an episode's start: one frame four times
    stacks = np.stack([film[step : step + 4] for step in range(25)])
    # a jump: all four are new
    stacks[11:] = np.stack([film[step : step + 4] for step in range(12, 26)])
    kept = Pictures((4, 12, 12), device=torch.device("cpu"))
    kept.grow(2, candidates=2, steps=10)
    kept.put(0, 0, stacks[:10])
    kept.grow(3, candidates=2, steps=25)
    kept.put(1, 1, stacks)
    kept.put(0, 1, stacks[3:6])
    taken = kept.take(torch.tensor([[0, 1]]))
    assert taken.shape == (1, 2, 2, 25, 4, 12, 12)
    np.testing.assert_array_equal(taken[0, 1, 1], stacks)
    np.testing.assert_array_equal(taken[0, 0, 0, :10], stacks[:10])
    np.testing.assert_array_equal(taken[0, 0, 0, 10:], np.repeat(stacks[9:10], 15, 0))
    np.testing.assert_array_equal(taken[0, 0, 1, 3:], np.repeat(stacks[5:6], 22, 0))
    assert kept._used == (10 + 3) + (11 + 3 + 14 + 3) + (3 + 3)


def test_a_replica_takes_pictures_of_many_environments_read_only_or_not_contiguous() -> None:
    weights = fitted(24, network="cnn_small")
    model = RewardModel(spaces(24), newest=lambda: weights)
    film = pictures(2 * 9, size=24, seed=5).reshape(2, 9, 2, 24, 24)
    obs = film[:, ::2]
    actions = np.random.default_rng(0).normal(size=(2, 5, ACTIONS)).astype(np.float32)
    actions.setflags(write=False)
    rewards, version = model.predict(obs, actions)
    assert (rewards.shape, version) == ((2, 5), 1)
    alone = RewardPredictor(weights).predict(np.ascontiguousarray(obs[1]), actions[1])
    np.testing.assert_array_equal(rewards[1], alone)


def test_a_module_of_the_users_own_gets_pictures() -> None:
    own = build(
        Architecture.of(
            config(module="tests.reward.picture_samples:Brightness"), spaces=spaces(24)
        ),
        generator=torch.Generator().manual_seed(0),
    )
    obs, actions = inputs(4)
    torch.testing.assert_close(own(obs, actions)[0], (obs.float() / 255).mean((1, 2, 3)))


def channel_last() -> Spaces:
    return Spaces(
        obs=ObsSpec(leaves=(Leaf(path="", shape=(20, 30, 3), dtype="|u1"),)),
        action=ActionSpec(shape=(), dtype="<i8", choices=(3,)),
    )


def test_colors_last_become_colors_first_and_come_back() -> None:
    spec = channel_last().obs
    assert spec.picture == (3, 20, 30)
    assert not spec.plain
    shown: Array = np.random.default_rng(0).integers(0, 256, (4, 20, 30, 3), dtype=np.uint8)
    rows = spec.flatten({"": shown})
    np.testing.assert_array_equal(rows, shown.transpose(0, 3, 1, 2))
    np.testing.assert_array_equal(np.stack([spec.flatten_one(each) for each in shown]), rows)
    np.testing.assert_array_equal(spec.unflatten(rows)[""], shown)
    assert spec.flat_space().contains(rows[0])
    assert REWARD["cnn_small"].features((3, 20, 30)) > 0
