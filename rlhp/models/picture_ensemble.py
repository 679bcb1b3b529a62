"""The ensemble for pictures: M convolutional networks in one forward.

Members lie side by side in the channels: a layer of F filters each is one grouped
convolution of M * F filters, and one batch normalization keeps statistics per member by
itself. Channels-last, that trains twice as fast on a CPU as a convolution per member,
and is as fast forward (`python -m benchmarks.micro`).

Shapes: M members, B rows, C x H x W pictures, A encoded action, F filters, E features
behind the convolutions.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from rlhp.models.architecture import Architecture
from rlhp.models.convolution import REWARD
from rlhp.models.pixels import Pixels

LEAK = 0.01
BATCH_NORM_DECAY = 0.99
"""Of running statistics (Ibarz et al. 2018, A.3)."""


class PictureEnsemble(nn.Module):
    """M independent networks (picture, action) -> reward: convolutions, then dense
    layers; actions join before those.

    Leaky ReLU 0.01 everywhere and a linear output (Christiano et al. 2017, A.2). In
    training mode batch normalization goes by the minibatch and dropout drops whole
    filters, row by row (Ibarz et al. 2018, A.3); in evaluation mode a row's reward
    depends on that row alone.
    """

    batches: Tensor

    def __init__(self, architecture: Architecture, *, generator: torch.Generator) -> None:
        super().__init__()
        assert architecture.picture is not None
        assert architecture.network is not None
        self._members, self._dropout = architecture.members, architecture.dropout
        self._convolution = REWARD[architecture.network]
        factor = self._convolution.factor(architecture.picture)
        self.pixels = Pixels(
            architecture.picture, factor=factor, standardize=architecture.standardize
        )
        self.kernels, self.shifts, self.scales = (
            nn.ParameterList(),
            nn.ParameterList(),
            nn.ParameterList(),
        )
        channels = architecture.picture[0]
        for layer, (filters, kernel, _) in enumerate(self._convolution.layers):
            fan_in = channels * kernel * kernel
            shape = (self._members * filters, channels, kernel, kernel)
            self.kernels.append(_drawn(shape, fan_in=fan_in, generator=generator))
            if self._convolution.normalize:
                self.scales.append(nn.Parameter(torch.ones(shape[0])))
                self.shifts.append(nn.Parameter(torch.zeros(shape[0])))
                self.register_buffer(f"mean_{layer}", torch.zeros(shape[0]))
                self.register_buffer(f"variance_{layer}", torch.ones(shape[0]))
            else:
                self.shifts.append(_drawn((shape[0],), fan_in=fan_in, generator=generator))
            channels = filters
        self.register_buffer("batches", torch.zeros((), dtype=torch.int64))
        features = self._convolution.features(architecture.picture)
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        for fan_in, fan_out in pairwise(
            (features + architecture.action_size, *architecture.hidden, 1)
        ):
            self.weights.append(
                _drawn((self._members, fan_in, fan_out), fan_in=fan_in, generator=generator)
            )
            self.biases.append(
                _drawn((self._members, 1, fan_out), fan_in=fan_in, generator=generator)
            )

    def forward(
        self, obs: Tensor, actions: Tensor, generator: torch.Generator | None = None
    ) -> Tensor:
        """uint8 [B, C, H, W] and [B, A], or [M, B, ...] with rows of each member's own
        -> rewards [M, B].
        """
        own = obs.ndim == 5
        seen = obs.transpose(0, 1).flatten(1, 2) if own else obs
        hidden = self.pixels(seen, copies=self._members if own else 1)
        if self.training:
            self.batches += 1
        for layer, kernel in enumerate(self.kernels):
            # the first of all sees one picture for all members
            groups = self._members if own or layer > 0 else 1
            hidden = self._convolve(hidden, layer, kernel, groups=groups)
            hidden = self._drop(functional.leaky_relu_(hidden, LEAK), generator)
        if own or self.kernels:
            hidden = hidden.flatten(1).view(len(hidden), self._members, -1).transpose(0, 1)
        else:
            hidden = hidden.flatten(1).expand(self._members, -1, -1)
        hidden = torch.cat([hidden, actions.expand(self._members, -1, -1)], dim=2)
        *layers, (weight, bias) = zip(self.weights, self.biases, strict=True)
        for hidden_weight, hidden_bias in layers:
            hidden = functional.leaky_relu_(torch.baddbmm(hidden_bias, hidden, hidden_weight), LEAK)
        rewards: Tensor = (hidden * weight.transpose(1, 2)).sum(-1) + bias.squeeze(-1)
        return rewards

    def penalized(self) -> list[Tensor]:
        """What the L2 penalty acts on, each [M, ...]: weights, no biases and nothing of
        batch normalization.
        """
        return [*(kernel.view(self._members, -1) for kernel in self.kernels), *self.weights]

    def _convolve(self, hidden: Tensor, layer: int, kernel: Tensor, *, groups: int) -> Tensor:
        stride = self._convolution.layers[layer][2]
        if not self._convolution.normalize:
            return functional.conv2d(hidden, kernel, self.shifts[layer], stride, groups=groups)
        mean, variance = self.get_buffer(f"mean_{layer}"), self.get_buffer(f"variance_{layer}")
        return functional.batch_norm(
            functional.conv2d(hidden, kernel, None, stride, groups=groups),
            mean,
            variance,
            self.scales[layer],
            self.shifts[layer],
            training=self.training,
            # at first the plain mean of all batches, or the statistics of a short fit
            # would still be those of none
            momentum=max(1 - BATCH_NORM_DECAY, 1 / max(1, int(self.batches)))
            if self.training
            else 0.0,
        )

    def _drop(self, hidden: Tensor, generator: torch.Generator | None) -> Tensor:
        if not self.training or self._dropout == 0:
            return hidden
        keep = torch.empty(*hidden.shape[:2], 1, 1, device=hidden.device)
        return (
            hidden * keep.bernoulli_(1 - self._dropout, generator=generator) / (1 - self._dropout)
        )


def _drawn(shape: tuple[int, ...], *, fan_in: int, generator: torch.Generator) -> nn.Parameter:
    """As torch draws the weights and biases of its own layers."""
    return nn.Parameter((2 * torch.rand(shape, generator=generator) - 1) * fan_in**-0.5)
