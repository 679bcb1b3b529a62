"""Atari games as Christiano et al. 2017 showed them (A.2), on the Arcade Learning
Environment's own vector environment.

    config = EnvConfig(id="ALE/Pong-v5", hide_termination=True)
    envs = AtariGames(config, count=8)  # uint8 [8, 4, 84, 84]
    env = AtariGame(config)                                                         # one of them

Up to `env.atari.noops` frames pass before a game is taken over, an action is held for
four frames of which the last two are merged, frames are gray and 84 x 84, the score is
blanked, and the last four are stacked. Rewards are clipped. A game that needs FIRE to
begin gets it first, once per game, as is the habit since Mnih et al. 2015.

Lives are nobody's business but the game's. With `env.hide_termination` neither is its
end: a new game begins unseen, and the stack slides over that as over any other step, so
only what the frames show tells of it. The end costs the env reward
`env.termination_penalty`.

Shapes: N environments, C frames per stack, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv

from rlhp.config.schema import EnvConfig
from rlhp.envs.registry import registered
from rlhp.errors import RlhpError
from rlhp.types import Array

SCREEN = (210, 160)
"""Rows and columns of what the console draws."""
FRAMES_PER_SECOND = 60
LIMIT_FRAMES = 108_000
"""Frames after which a game is broken off: half an hour, as in ALE's v5."""

Region = tuple[int, int, int, int]

SCORES: dict[str, tuple[Region, ...]] = {
    "beam_rider": ((5, 20, 45, 120), (28, 40, 15, 40)),
    "breakout": ((0, 16, 35, 80),),
    "enduro": ((155, 210, 0, 160),),
    "pong": ((0, 24, 0, 160),),
    "qbert": ((6, 15, 33, 71),),
    "seaquest": ((7, 19, 56, 110),),
    "space_invaders": ((10, 20, 0, 160),),
}
"""What is blanked, by game: first row, row after the last, first column, column after
the last, of the whole screen.

From HumanCompatibleAI/seals, `src/seals/atari.py`, for the seven games that the paper
blanks; its second region of Beam Rider is the count of enemy ships. Two are wider here:
the score of Seaquest, which grows to the left, and the whole panel of Enduro as in
mrahtz/learning-from-human-preferences, since the paper blanks its speedometer too.
"""

_OURS = {
    "num_envs": "rollout.num_envs_per_env_runner",
    "num_threads": "env.atari.threads",
    "img_height": "env.atari.size",
    "img_width": "env.atari.size",
    "stack_num": "env.atari.stack",
    "frameskip": "env.atari.frame_skip",
    "noop_max": "env.atari.noops",
    "repeat_action_probability": "env.atari.sticky_actions",
    "reward_clipping": "env.atari.clip_rewards",
    "max_num_frames_per_episode": "env.max_episode_steps",
    "episodic_life": "env.hide_termination",
    "life_loss_info": "env.hide_termination",
    "autoreset_mode": "env.hide_termination",
    "grayscale": "env.atari",
    "maxpool": "env.atari",
}
"""Arguments of ALE's that keys of the config decide."""


def game_of(config: EnvConfig) -> str | None:
    """ALE's name of the game, as `beam_rider`; None for any other environment.

    A game that is to be taken as Gymnasium has it is another one: `env.kwargs.obs_type`
    asks for that.
    """
    if "ALE/" not in config.id or "obs_type" in config.kwargs:
        return None
    spec = registered(config.id)
    return None if spec is None or spec.vector_entry_point is None else str(spec.kwargs["game"])


class AtariGames(VectorEnv[Array, Array, Array]):
    """`count` games in step. One that is done is reset on its next step, whose action
    is ignored.

    `infos` hold `score`, what the game itself paid [N], and `game_score` [N], its sum
    where a game has just ended, else NaN. Returned arrays are never written to again.
    """

    metadata = {"autoreset_mode": AutoresetMode.NEXT_STEP}  # noqa: RUF012  # as Gymnasium has it

    def __init__(self, config: EnvConfig, *, count: int) -> None:
        """ValueError for `env.kwargs` that are none of ALE's, or that other keys
        decide.
        """
        self._config, atari = config, config.atari
        game = game_of(config)
        assert game is not None
        self._games = _vector(config, game, count)
        self._blank = blanks(config)
        self._limit = limit_of(config)
        self.can_replay = can_replay(config)
        shape = (atari.stack, atari.size, atari.size)
        self.num_envs = count
        self.single_observation_space = gym.spaces.Box(0, 255, shape, np.uint8)
        self.single_action_space = self._games.single_action_space
        self.observation_space = gym.vector.utils.batch_space(self.single_observation_space, count)
        self.action_space = gym.vector.utils.batch_space(self.single_action_space, count)
        self._stacks = np.zeros((count, *shape), np.uint8)
        self._steps = np.zeros(count, np.int64)
        self._score = np.zeros(count)
        self._was_done = np.zeros(count, bool)
        self.begun = np.zeros(count, np.int64)
        """[N] frames that passed before the game was taken over, where the newest
        observation is its first; else 0.
        """

    def reset(
        self, *, seed: int | Sequence[int] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Array, dict[str, Any]]:
        """New games all; a list of seeds has one for each."""
        seeds = seed if seed is None or isinstance(seed, int) else np.array(seed)
        frames, info = self._games.reset(seed=seeds)
        everywhere = np.ones(self.num_envs, bool)
        self._begin(everywhere, info)
        self._steps[:] = 0
        self._was_done[:] = False
        return self._see(frames, anew=everywhere), {}

    def step(self, actions: Array) -> tuple[Array, Array, Array, Array, dict[str, Any]]:
        """One step of each."""
        rests = self._was_done
        frames, paid, over, broken_off, _ = self._games.step(np.asarray(actions))
        score = np.where(rests, 0.0, paid)
        self._score += score
        reward = np.clip(score, -1.0, 1.0) if self._config.atari.clip_rewards else score.copy()
        ends = (over | broken_off) & ~rests
        game_score = np.where(ends, self._score, np.nan)
        self._steps += ~rests
        hidden = self._config.hide_termination
        if hidden:
            reward -= self._config.termination_penalty * (over & ends)
        terminated = np.zeros_like(ends) if hidden else over & ends
        truncated = (self._steps >= self._limit) & ~terminated & ~rests
        if not hidden:
            truncated |= broken_off & ends & ~terminated
        anew = rests | (ends & ~truncated if hidden else np.zeros_like(ends))
        self.begun[:] = 0
        if anew.any():
            frames, info = self._games.reset(options={"reset_mask": anew})
            self._begin(anew, info)
        self._steps[rests] = 0
        self._was_done = terminated | truncated
        seen = self._see(frames, anew=rests)
        return seen, reward, terminated, truncated, {"score": score, "game_score": game_score}

    def _begin(self, which: Array, info: dict[str, Any]) -> None:
        self.begun[which] = np.asarray(info["episode_frame_number"])[which]
        self._score[which] = 0.0

    def _see(self, frames: Array, *, anew: Array) -> Array:
        """The newest frames [N, 1, H, W] on the stacks; a stack that begins `anew`
        shows nothing else.
        """
        for top, bottom, left, right in self._blank:
            frames[:, :, top:bottom, left:right] = 0
        stacks = np.concatenate([self._stacks[:, 1:], frames], axis=1)
        stacks[anew] = frames[anew]
        self._stacks = stacks
        return stacks


class AtariGame(gym.Env[Array, Any]):
    """One game."""

    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012  # as Gymnasium has it

    def __init__(self, config: EnvConfig, *, render_mode: str | None = None) -> None:
        self._games = AtariGames(config, count=1)
        self._config = config
        self.observation_space = self._games.single_observation_space
        self.action_space = self._games.single_action_space
        self.render_mode = render_mode
        self.metadata = {**self.metadata, "render_fps": FRAMES_PER_SECOND / config.atari.frame_skip}
        self._max_episode_steps = limit_of(config)

    @property
    def can_replay(self) -> bool:
        """Whether chance has no part in the game, so that the same actions play it
        again: `rlhp.envs.atari_replay`.
        """
        return can_replay(self._config)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Array, dict[str, Any]]:
        """A new game."""
        super().reset(seed=seed)
        obs, _ = self._games.reset(seed=None if seed is None else [seed])
        return obs[0], {}

    def step(self, action: Any) -> tuple[Array, float, bool, bool, dict[str, Any]]:
        """Four frames."""
        obs, reward, terminated, truncated, info = self._games.step(np.array([action]))
        return (
            obs[0],
            float(reward[0]),
            bool(terminated[0]),
            bool(truncated[0]),
            {k: v[0] for k, v in info.items()},
        )

    def render(self) -> Any:
        """[3 H, 3 W, 3] uint8: the newest frame as the policy sees it."""
        return np.repeat(self._games._stacks[0, -1], 3, 0).repeat(3, 1)[..., None].repeat(3, -1)


def limit_of(config: EnvConfig) -> int:
    """Steps after which an episode is truncated."""
    return config.max_episode_steps or LIMIT_FRAMES // config.atari.frame_skip


def can_replay(config: EnvConfig) -> bool:
    """Whether the same actions play the same game, and are numbers."""
    return config.atari.sticky_actions == 0 and not config.kwargs.get("continuous", False)


def blanks(config: EnvConfig) -> tuple[Region, ...]:
    """What is blanked in the frames of this game."""
    game = game_of(config)
    return (
        blanked(game, size=config.atari.size)
        if game is not None and config.atari.blank_score
        else ()
    )


def blanked(game: str, *, size: int) -> tuple[Region, ...]:
    """The regions of `SCORES` in frames of this size: every pixel that any of theirs
    goes into.
    """
    rows, columns = size / SCREEN[0], size / SCREEN[1]
    return tuple(
        (
            int(top * rows),
            int(np.ceil(bottom * rows)),
            int(left * columns),
            int(np.ceil(right * columns)),
        )
        for top, bottom, left, right in SCORES.get(game, ())
    )


def _vector(config: EnvConfig, game: str, count: int) -> Any:
    from ale_py.vector_env import AtariVectorEnv

    for name in config.kwargs:
        if name in _OURS:
            raise RlhpError(f"env.kwargs.{name} is decided elsewhere; set {_OURS[name]} instead")
    atari = config.atari
    try:
        return AtariVectorEnv(
            game,
            count,
            num_threads=min(count, atari.threads),
            img_height=atari.size,
            img_width=atari.size,
            stack_num=1,
            frameskip=atari.frame_skip,
            noop_max=atari.noops,
            repeat_action_probability=atari.sticky_actions,
            max_num_frames_per_episode=LIMIT_FRAMES,
            reward_clipping=False,  # their default, which would clip the score too
            autoreset_mode=AutoresetMode.NEXT_STEP,
            **config.kwargs,
        )
    except TypeError as error:
        raise RlhpError(
            f"env.id={config.id!r} could not be made with env.kwargs={config.kwargs}: {error}"
        ) from error
