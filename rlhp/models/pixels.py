"""What networks see of pictures: bytes as 0 to 1, or each pixel as it differs from what
it was when learning began.

A game shows little on a field that never changes: against the field and its walls a
ball is a few gray levels. As so many standard deviations of its pixel it is plain
(Burda et al. 2018 do so where they predict what a network says).

Shapes: B pictures, C x H x W; H and W after large ones were averaged over squares.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

CLIP = 5.0
"""Standard deviations: where a ball is rarely seen, it is no more than that."""
FLOOR = 2.5
"""Of 255, added to a pixel's standard deviation: one that never changed would divide by
nothing.
"""
BYTE = 1 / 255


class Pixels(nn.Module):
    """uint8 [B, C, H, W] -> float32, channels last, averaged over squares of `factor`."""

    shift: Tensor
    rate: Tensor
    known: Tensor

    def __init__(self, picture: tuple[int, int, int], *, factor: int, standardize: bool) -> None:
        super().__init__()
        self._factor, self._standardize = factor, standardize
        if standardize:
            channels, height, width = picture
            shape = (1, channels, height // factor, width // factor)
            self.register_buffer("shift", torch.zeros(shape))
            self.register_buffer("rate", torch.full(shape, BYTE))
            self.register_buffer("known", torch.zeros((), dtype=torch.bool))

    def forward(self, pictures: Tensor, *, copies: int = 1) -> Tensor:
        """`copies`: of how many networks the pictures lie side by side in the channels,
        [B, copies * C, H, W].
        """
        floats = self._pooled(pictures)
        if not self._standardize:
            return floats.mul_(BYTE)
        shift, rate = (
            part.repeat(1, copies, 1, 1).contiguous(memory_format=torch.channels_last)
            for part in (self.shift, self.rate)
        )
        return torch.addcmul(shift, floats, rate, out=floats).clamp_(-CLIP, CLIP)

    @torch.no_grad()
    def meet(self, pictures: Tensor) -> None:
        """Take the scale of every pixel from the first pictures that learning begins
        with; of later ones nothing.

        A convolution could not take up a change that is another at each place.
        """
        if not self._standardize or self.known:
            return
        std, mean = torch.std_mean(self._pooled(pictures), dim=0, keepdim=True, correction=0)
        self.rate.copy_(1 / (std + FLOOR))
        self.shift.copy_(-mean * self.rate)
        self.known.fill_(True)

    def _pooled(self, pictures: Tensor) -> Tensor:
        # even where they are floats
        floats = pictures.to(torch.float32, memory_format=torch.channels_last, copy=True)
        return functional.avg_pool2d(floats, self._factor) if self._factor > 1 else floats
