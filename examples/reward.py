"""A reward model that is linear in the powers of what it sees."""

import torch
from torch import Tensor, nn


class Polynomial(nn.Module):
    """Built once per member, with the task's sizes and `reward.module_kwargs`."""

    def __init__(self, *, obs_size: int, action_size: int, degree: int = 2) -> None:
        super().__init__()
        self.powers = range(1, degree + 1)
        self.linear = nn.Linear(degree * (obs_size + action_size), 1)

    def forward(self, obs: Tensor, actions: Tensor) -> Tensor:  # [B, O] standardized, [B, A] -> [B]
        seen = torch.cat([obs, actions], dim=1)
        rewards: Tensor = self.linear(torch.cat([seen**power for power in self.powers], dim=1))
        return rewards.squeeze(1)
