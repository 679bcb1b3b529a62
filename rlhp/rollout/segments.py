"""Segments are cut where the steps are made, since only here are they raw and unbroken.

One cutter per env runner. It follows every environment's running episode across
fragments and cuts windows of K steps: back to back from a random offset (so that no
phase of the task is always cut the same way), and one that ends with the episode (how
it ended matters). A window never crosses a reset. An episode shorter than K becomes one
short segment, counted, never padded here and never dropped.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from rlhp import frames
from rlhp.envs.atari_replay import GameLog
from rlhp.envs.spaces import ObsSpec
from rlhp.rollout.fragment import Fragment, Piece
from rlhp.types import Array, Segment, segment_id


@dataclass(slots=True)
class _Running:
    """One environment's running episode: its latest rows and what has been cut of it."""

    episode: str
    steps: int = 0
    next_start: int = 0
    """First step of the next window."""
    kept_from: int = 0
    """Episode step of the first kept row."""
    columns: dict[str, list[Array]] = field(default_factory=dict)
    log: GameLog = field(default_factory=GameLog)
    """Of a game that is to be played again."""


@dataclass(frozen=True, slots=True)
class Origin:
    """What every segment of a fragment shares."""

    run: str
    env_runner: int
    policy_version: int
    env_steps: int
    reward_version: int | None
    state_kind: str


class SegmentCutter:
    """Windows of `length` steps out of fragments.

    `share_env_reward` is False wherever no synthetic teacher needs the env reward: then
    no segment carries it.
    """

    def __init__(
        self, spec: ObsSpec, *, length: int, share_env_reward: bool, rng: np.random.Generator
    ) -> None:
        self._spec = spec
        self._length = length
        self._share = share_env_reward
        self._rng = rng
        self._running: dict[int, _Running] = {}
        self.short = 0
        """Segments shorter than `length` so far."""

    def follow(
        self,
        fragment: Fragment,
        piece: Piece,
        *,
        predicted: Array | None,
        episode: str,
        origin: Origin,
    ) -> Iterator[Segment]:
        """Add the piece's rows to its episode and yield every window that became
        complete.
        """
        running = self._running.get(piece.env)
        if running is None or running.episode != episode:
            running = _Running(episode, next_start=int(self._rng.integers(self._length)))
            self._running[piece.env] = running
        self._extend(running, fragment, piece, predicted, origin)
        while running.next_start + self._length <= running.steps:
            yield self._cut(running, running.next_start, self._length, piece, fragment, origin)
            running.next_start += self._length
        if piece.done:
            length = min(self._length, running.steps)
            start = running.steps - length
            self.short += length < self._length
            if running.next_start - self._length != start:
                yield self._cut(running, start, length, piece, fragment, origin)
            del self._running[piece.env]
        else:
            self._forget(running)

    def state(self) -> dict[str, Any]:
        """Plain data, for a runner whose episodes go on; not of games that are to be
        played again.
        """
        plain = ("episode", "steps", "next_start", "kept_from", "columns")
        running = {
            env: {name: getattr(each, name) for name in plain}
            for env, each in self._running.items()
        }
        return {"short": self.short, "running": running}

    def set_state(self, state: dict[str, Any]) -> None:
        """The inverse of `state`."""
        self.short = state["short"]
        self._running = {env: _Running(**running) for env, running in state["running"].items()}

    def _extend(
        self,
        running: _Running,
        fragment: Fragment,
        piece: Piece,
        predicted: Array | None,
        origin: Origin,
    ) -> None:
        rows = slice(piece.first, piece.stop)
        columns = {
            "obs": fragment.obs[piece.env, rows],
            "actions": fragment.executed[piece.env, rows],
            "env_reward": fragment.env_reward[piece.env, rows],
        }
        if fragment.state is not None and origin.state_kind == "replay":
            running.log.add(fragment.state[piece.env, rows, 0], columns["actions"])
        elif fragment.state is not None:
            columns["state"] = fragment.state[piece.env, rows]
        unknown = np.full(piece.stop - piece.first, np.nan, np.float32)
        columns["predicted"] = unknown if predicted is None else predicted[piece.env, rows]
        for name, rows_of_it in columns.items():
            # A copy: a view would keep the whole fragment alive for as long as the
            # episode lasts.
            running.columns.setdefault(name, []).append(_joined(name, [rows_of_it]))
        running.columns["last_obs"] = [
            np.array(fragment.obs[piece.env, piece.stop : piece.stop + 1])
        ]
        running.steps += piece.stop - piece.first

    def _cut(
        self,
        running: _Running,
        start: int,
        length: int,
        piece: Piece,
        fragment: Fragment,
        origin: Origin,
    ) -> Segment:
        for name, parts in running.columns.items():
            if len(parts) > 1:
                running.columns[name] = [_joined(name, parts)]
        first = start - running.kept_from
        rows = {name: parts[0][first : first + length] for name, parts in running.columns.items()}
        known_obs, last_obs = running.columns["obs"][0][first:], running.columns["last_obs"][0]
        obs = _joined("obs", [known_obs[: length + 1], last_obs[: length + 1 - len(known_obs)]])
        predicted = rows["predicted"].astype(np.float32)
        known = origin.reward_version is not None and bool(np.isfinite(predicted).all())
        state = np.array(rows["state"]) if "state" in rows else None
        if origin.state_kind == "replay":
            state = running.log.state(start, start + length)
        ends_here = piece.done and start + length == running.steps
        return Segment(
            id=segment_id(
                run=origin.run,
                env_runner=origin.env_runner,
                episode=running.episode,
                start=start,
                length=length,
            ),
            run=origin.run,
            env_runner=origin.env_runner,
            episode=running.episode,
            start=start,
            obs=self._spec.unflatten(obs),
            actions=np.array(rows["actions"]),
            env_reward=rows["env_reward"].astype(np.float32) if self._share else None,
            predicted_reward=predicted if known else None,
            reward_version=origin.reward_version if known else None,
            policy_version=origin.policy_version,
            env_steps=origin.env_steps,
            terminated=ends_here and bool(fragment.terminated[piece.env, piece.stop - 1]),
            truncated=ends_here and bool(fragment.truncated[piece.env, piece.stop - 1]),
            state=state,
            state_kind="none" if state is None else origin.state_kind,
        )

    def _forget(self, running: _Running) -> None:
        """Keep the last K rows at least: the window that ends the episode may start
        there.
        """
        keep_from = min(running.next_start, max(0, running.steps - self._length))
        drop = keep_from - running.kept_from
        if drop <= 4 * self._length:
            return
        for name, parts in running.columns.items():
            if name != "last_obs":
                running.columns[name] = [_joined(name, [_joined(name, parts)[drop:]])]
        running.kept_from = keep_from


def _joined(name: str, parts: Sequence[Array]) -> Array:
    """One array of its own; of stacked pictures, each frame once."""
    if name == "obs" and frames.is_stack(parts[0].dtype, parts[0].shape[1:]):
        return frames.join([part for part in parts if len(part)])
    return np.concatenate(parts)
