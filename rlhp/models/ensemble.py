"""The networks behind predicted rewards: an ensemble of MLPs in one batched forward, or
modules of the user's own.

Those for pictures are in `rlhp.models.picture_ensemble`.

Shapes: M members, B rows, O observation as a row, A encoded action (0 without actions),
F = O + A inputs of an MLP.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from rlhp.errors import RlhpError, one_line
from rlhp.models.architecture import Architecture
from rlhp.models.normalizer import InputNormalizer
from rlhp.models.picture_ensemble import PictureEnsemble
from rlhp.system import imports
from rlhp.types import Array

LEAK = 0.01


class Ensemble(nn.Module):
    """M independent MLPs (obs, action) -> reward, evaluated as one: weights are stacked
    [M, in, out].

    A linear output. The last `architecture.blind` members see zeros in place of the
    action. Dropout acts in training mode only, draws every row's mask anew (both
    segments of a query differ), and needs a generator.
    """

    sees: Tensor | None

    def __init__(self, architecture: Architecture, *, generator: torch.Generator) -> None:
        super().__init__()
        self.inputs = InputNormalizer(
            obs_size=architecture.obs_size, action_size=architecture.action_size
        )
        self._activation, self._dropout = architecture.activation, architecture.dropout
        self._obs_size = architecture.obs_size
        sees = None
        if architecture.blind:
            sees = torch.ones(
                architecture.members, 1, architecture.obs_size + architecture.action_size
            )
            sees[architecture.members - architecture.blind :, :, architecture.obs_size :] = 0
        self.register_buffer("sees", sees, persistent=False)
        sizes = (architecture.obs_size + architecture.action_size, *architecture.hidden, 1)
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        for fan_in, fan_out in pairwise(sizes):
            bound = fan_in**-0.5  # as nn.Linear draws both
            for parameters, rows in ((self.weights, fan_in), (self.biases, 1)):
                drawn = torch.rand(architecture.members, rows, fan_out, generator=generator)
                parameters.append(nn.Parameter((2 * drawn - 1) * bound))

    def forward(
        self, obs: Tensor, actions: Tensor, generator: torch.Generator | None = None
    ) -> Tensor:
        """Raw [B, O] and [B, A], or [M, B, ...] with rows of each member's own ->
        rewards [M, B].
        """
        hidden: Tensor = self.inputs(torch.cat([obs, actions], -1)).expand(
            len(self.weights[0]), -1, -1
        )
        if self.sees is not None:
            hidden = hidden * self.sees
        *layers, (weight, bias) = zip(self.weights, self.biases, strict=True)
        for hidden_weight, hidden_bias in layers:
            hidden = self._drop(
                self._activate(torch.baddbmm(hidden_bias, hidden, hidden_weight)), generator
            )
        # a matrix product with one column is slow, more so backwards
        rewards: Tensor = (hidden * weight.transpose(1, 2)).sum(-1) + bias.squeeze(-1)
        return rewards

    def penalized(self) -> list[Tensor]:
        """What the L2 penalty acts on, each [M, ...]: weights, no biases."""
        return list(self.weights)

    @torch.no_grad()
    def rescale_inputs(self, mean_F: Array, std_F: Array) -> Tensor:
        """Standardize by these from now on; the first layer takes up the change, so
        rewards stay what they were.

        Exact but for rounding and for inputs that were clipped. Returns the factor [F]
        by which the columns of the first layer grew, for the optimizer's moments.
        """
        shift, scale = self.inputs.set(mean_F, std_F)
        weight, bias = self.weights[0], self.biases[0]
        seen = weight if self.sees is None else weight * self.sees.transpose(1, 2)
        bias.add_(torch.einsum("f,mfh->mh", shift, seen).unsqueeze(1))
        weight.mul_(scale[:, None])
        return scale

    def side(self, members: slice, *, blind: bool) -> dict[str, Tensor]:
        """The state of some members as an ensemble of their own, which takes no action
        where they are `blind`.
        """
        inputs = self._obs_size if blind else None
        state = {
            f"inputs.{name}": value[:inputs] for name, value in self.inputs.state_dict().items()
        }
        state |= {f"weights.{k}": weight[members] for k, weight in enumerate(self.weights)}
        state |= {f"biases.{k}": bias[members] for k, bias in enumerate(self.biases)}
        state["weights.0"] = state["weights.0"][:, :inputs]
        return state

    def _activate(self, hidden: Tensor) -> Tensor:
        if self._activation == "silu":
            return nn.functional.silu(hidden)
        if self._activation == "tanh":
            return hidden.tanh_()
        return (
            nn.functional.relu_(hidden)
            if self._activation == "relu"
            else nn.functional.leaky_relu_(hidden, LEAK)
        )

    def _drop(self, hidden: Tensor, generator: torch.Generator | None) -> Tensor:
        if not self.training or self._dropout == 0:
            return hidden
        keep = torch.empty_like(hidden).bernoulli_(1 - self._dropout, generator=generator)
        return hidden * keep / (1 - self._dropout)


class CustomEnsemble(nn.Module):
    """M instances of the module named by `reward.module`, one after the other.

        class Speed(nn.Module):
            def __init__(self, obs_size, action_size):
                super().__init__()
                self.linear = nn.Linear(obs_size + action_size, 1)

            def forward(self, obs, actions):  # [B, O] standardized, [B, A] -> [B]
                return self.linear(torch.cat([obs, actions], 1)).squeeze(1)

    It is built with `obs_size`, `action_size` and `reward.module_kwargs`. Where
    observations are pictures it gets `obs_shape`, (C, H, W), in place of `obs_size`,
    and pictures [B, C, H, W] scaled to 0..1. Its parameters of two or more dimensions
    count as weights for the L2 penalty.
    """

    def __init__(self, architecture: Architecture, *, generator: torch.Generator) -> None:
        super().__init__()
        if architecture.picture is None:
            self.inputs = InputNormalizer(obs_size=architecture.obs_size, action_size=0)
        self._obs_dims, self._name = len(architecture.row_shape), architecture.module
        with _seeded(generator):
            self.members = nn.ModuleList(
                [_build_one(architecture) for _ in range(architecture.members)]
            )
            for member in self.members:
                _try_out(member, architecture)

    def forward(
        self, obs: Tensor, actions: Tensor, generator: torch.Generator | None = None
    ) -> Tensor:
        """Raw [B, O] and [B, A], or [M, B, ...] with rows of each member's own ->
        rewards [M, B].
        """
        obs = self.inputs(obs) if self._obs_dims == 1 else obs.float() / 255
        obs = obs.expand(len(self.members), *obs.shape[-1 - self._obs_dims :])
        actions = actions.expand(len(self.members), *actions.shape[-2:])
        if not self.training or generator is None:
            return torch.stack([self._ask(m, obs[m], actions[m]) for m in range(len(self.members))])
        with _seeded(generator):  # a module's own dropout draws from torch's global generator
            return torch.stack([self._ask(m, obs[m], actions[m]) for m in range(len(self.members))])

    def penalized(self) -> list[Tensor]:
        """What the L2 penalty acts on, each [M, ...]."""
        matrices = ([p for p in member.parameters() if p.ndim > 1] for member in self.members)
        return [torch.stack(same) for same in zip(*matrices, strict=True)]

    def _ask(self, index: int, obs: Tensor, actions: Tensor) -> Tensor:
        """The rewards [B] of one member; RlhpError where its code fails, since that is
        the user's.
        """
        try:
            rewards: Tensor = self.members[index](obs, actions)
        except Exception as error:
            rows = f"observations {list(obs.shape)} and actions {list(actions.shape)}"
            raise RlhpError(
                f"reward.module={self._name!r} failed on {rows}: {one_line(error)}"
            ) from error
        if not isinstance(rewards, Tensor) or rewards.shape != obs.shape[:1]:
            got = list(rewards.shape) if isinstance(rewards, Tensor) else type(rewards).__name__
            raise RlhpError(
                f"reward.module={self._name!r} returned {got} for {len(obs)} rows, not one reward "
                "for each"
            )
        return rewards


Network = Ensemble | PictureEnsemble | CustomEnsemble


def build(architecture: Architecture, *, generator: torch.Generator) -> Network:
    """The networks, freshly drawn on the CPU; ValueError if the user's module cannot be
    had or does not fit.
    """
    if architecture.module is not None:
        return CustomEnsemble(architecture, generator=generator)
    kind = Ensemble if architecture.picture is None else PictureEnsemble
    return kind(architecture, generator=generator)


def usable_device(name: str) -> torch.device:
    """The torch device of this name; ValueError where this machine has none."""
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise RlhpError(
            f"reward.device={name!r} cannot be used here: {one_line(error)}. Set "
            "reward.device='cpu'."
        ) from error
    return device


@contextmanager
def _seeded(generator: torch.Generator) -> Iterator[None]:
    """Inside, torch's global generators follow `generator`; afterwards they are as
    before.
    """
    seed = int(torch.randint(2**62, (1,), generator=generator, device=generator.device))
    with torch.random.fork_rng(
        devices=[] if generator.device.type == "cpu" else [generator.device]
    ):
        torch.manual_seed(seed)
        yield


def _build_one(architecture: Architecture) -> nn.Module:
    name = str(architecture.module)
    kind = imports.load(name, key="reward.module")
    size: Any = {"obs_size": architecture.obs_size}
    if architecture.picture is not None:
        size = {"obs_shape": architecture.picture}
    kwargs = {**size, "action_size": architecture.action_size, **architecture.module_kwargs}
    try:
        module = kind(**kwargs)
    except Exception as error:
        given = ", ".join(sorted(kwargs))
        raise RlhpError(
            f"reward.module={name!r} could not be built with the keywords {given}: "
            f"{one_line(error)}. Take {next(iter(size))} and action_size in its constructor, and "
            "the rest from reward.module_kwargs."
        ) from error
    if not isinstance(module, nn.Module):
        raise RlhpError(
            f"reward.module={name!r} must be a torch.nn.Module, got {type(module).__name__}"
        )
    return module


def _try_out(module: nn.Module, architecture: Architecture) -> None:
    """A forward and a backward of two empty rows, so that what is wrong is said at once
    and not in the middle of a run. The module is left as it was.
    """
    shape = ", ".join(map(str, architecture.row_shape))
    rule = f"reward.module={architecture.module!r}: forward(obs, actions) takes [B, {shape}] and "
    rule += f"[B, {architecture.action_size}] and returns rewards [B]"
    was_training, empty = module.training, [torch.zeros(2, *architecture.row_shape)]
    empty.append(torch.zeros(2, architecture.action_size))
    try:
        module.eval()
        with torch.no_grad():
            rewards = module(*empty)
        # a forward in training moves the statistics of batch normalization
        before = deepcopy(module.state_dict())
        module.train()
        with torch.enable_grad():
            learned = module(*empty)
            if isinstance(learned, Tensor) and learned.requires_grad:
                torch.autograd.backward(learned.sum())
        module.load_state_dict(before)
        module.zero_grad(set_to_none=True)
    except Exception as error:
        raise RlhpError(f"{rule}; with B = 2 it failed: {one_line(error)}") from error
    module.train(was_training)
    if not isinstance(rewards, Tensor) or rewards.shape != (2,):
        got = list(rewards.shape) if isinstance(rewards, Tensor) else type(rewards).__name__
        raise RlhpError(f"{rule}; with B = 2 it returned {got}. End it with .squeeze(-1), perhaps.")
