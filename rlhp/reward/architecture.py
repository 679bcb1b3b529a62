"""What decides the networks of a reward version but their numbers."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from rlhp.config import RewardConfig
from rlhp.convolution import REWARD, Picture, choose
from rlhp.spaces import Spaces


@dataclass(frozen=True, kw_only=True, slots=True)
class Architecture:
    """Plain data; it travels in the header of a version's weights."""

    obs_size: int
    """O_flat; of a picture C * H * W."""
    action_size: int
    """A; 0 where the reward depends on observations alone."""
    members: int
    """M."""
    hidden: tuple[int, ...]
    activation: str
    dropout: float = 0.0
    module: str | None = None
    module_kwargs: dict[str, Any] = field(default_factory=dict)
    picture: Picture | None = None
    """(C, H, W) where observations are pictures."""
    network: str | None = None
    """What reads them: a name in `rlhp.convolution.REWARD`."""
    standardize: bool = False
    """Whether it sees each pixel less its mean, over its standard deviation; else bytes as 0 to 1."""

    @property
    def row_shape(self) -> tuple[int, ...]:
        """O: one observation as the networks get it."""
        return self.picture or (self.obs_size,)

    @property
    def rows_apart(self) -> bool:
        """Whether these are pictures of which each teaches by itself: no batch normalisation, no user's module."""
        return self.module is None and self.network is not None and not REWARD[self.network].normalize

    @staticmethod
    def of(config: RewardConfig, *, spaces: Spaces) -> Architecture:
        """The networks that this config asks for in these spaces; ValueError where it asks for what cannot be."""
        picture = spaces.obs.picture
        return Architecture(
            obs_size=spaces.obs.size,
            action_size=spaces.action.size if config.use_action else 0,
            members=config.members,
            hidden=config.hidden,
            activation=config.activation,
            dropout=config.dropout,
            module=config.module,
            module_kwargs=config.module_kwargs,
            picture=picture,
            network=choose(config.network, picture, of=REWARD, key="reward.network"),
            standardize=picture is not None and config.pixels == "standardized",
        )

    def to_json(self) -> dict[str, Any]:
        """Plain data for a header."""
        return asdict(self)

    @staticmethod
    def from_json(data: dict[str, Any]) -> Architecture:
        """The inverse of `to_json`."""
        picture = data.get("picture")
        return Architecture(
            **{**data, "hidden": tuple(data["hidden"]), "picture": None if picture is None else tuple(picture)}
        )
