"""What decides the networks of a reward version but their numbers."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import Any

from rlhp.config.schema import RewardConfig
from rlhp.envs.spaces import Spaces
from rlhp.models.convolution import REWARD, Picture, choose


@dataclass(frozen=True, kw_only=True, slots=True)
class Architecture:
    """Plain data; it travels in the header of a version's weights."""

    obs_size: int
    """O_flat; of a picture C * H * W."""
    action_size: int
    """A; 0 where the reward depends on observations alone."""
    members: int
    """M."""
    blind: int = 0
    """The last so many members do not see the action. While fitting alone: a published
    version has either kind.
    """
    hidden: tuple[int, ...]
    activation: str
    dropout: float = 0.0
    module: str | None = None
    module_kwargs: dict[str, Any] = field(default_factory=dict)
    picture: Picture | None = None
    """(C, H, W) where observations are pictures."""
    network: str | None = None
    """What reads them: a name in `rlhp.models.convolution.REWARD`."""
    standardize: bool = False
    """Whether it sees each pixel less its mean, over its standard deviation; else bytes
    as 0 to 1.
    """

    @property
    def row_shape(self) -> tuple[int, ...]:
        """O: one observation as the networks get it."""
        return self.picture or (self.obs_size,)

    @property
    def rows_apart(self) -> bool:
        """Whether these are pictures of which each teaches by itself: no batch
        normalization, no user's module.
        """
        return (
            self.module is None and self.network is not None and not REWARD[self.network].normalize
        )

    @staticmethod
    def of(config: RewardConfig, *, spaces: Spaces) -> Architecture:
        """The networks to fit in these spaces; ValueError where the config asks for
        what cannot be.

        With `reward.use_action: auto` they are two ensembles, one of which does not see
        the action, and the answers decide between them (`rlhp.reward.fit`), each judged
        by members whose bags it is not in. Without `reward.bootstrap` there are no such
        members, and the action is seen. Where pictures are shown the action is left
        out, as Christiano et al. 2017 did for Atari, and a user's module always gets
        it.
        """
        picture = spaces.obs.picture
        either = (
            config.use_action == "auto"
            and picture is None
            and config.module is None
            and config.bootstrap
        )
        use_action = (
            (config.module is not None or picture is None)
            if config.use_action == "auto"
            else config.use_action
        )
        return Architecture(
            obs_size=spaces.obs.size,
            action_size=spaces.action.size if use_action else 0,
            members=2 * config.members if either else config.members,
            blind=config.members if either else 0,
            hidden=config.hidden,
            activation=config.activation,
            dropout=config.dropout,
            module=config.module,
            module_kwargs=config.module_kwargs,
            picture=picture,
            network=choose(config.network, picture, of=REWARD, key="reward.network"),
            standardize=picture is not None and config.pixels == "standardized",
        )

    @property
    def sides(self) -> tuple[slice, ...]:
        """The members of each ensemble that the answers decide between: those that see
        the action come first.
        """
        seeing = self.members - self.blind
        return (
            (slice(0, seeing), slice(seeing, self.members))
            if self.blind
            else (slice(0, self.members),)
        )

    def side(self, number: int) -> Architecture:
        """The architecture of one of these ensembles by itself."""
        if not self.blind:
            return self
        members = self.sides[number].stop - self.sides[number].start
        return replace(
            self, members=members, blind=0, action_size=0 if number else self.action_size
        )

    def to_json(self) -> dict[str, Any]:
        """Plain data for a header."""
        return asdict(self)

    @staticmethod
    def from_json(data: dict[str, Any]) -> Architecture:
        """The inverse of `to_json`."""
        picture = data.get("picture")
        return Architecture(
            **{
                **data,
                "hidden": tuple(data["hidden"]),
                "picture": None if picture is None else tuple(picture),
            }
        )
