"""The preferences in the shape that fitting wants: padded tensors, and who may train on
which.

Every member trains on its own draw with replacement, as large as the data, and
validates on what it did not draw (Christiano et al. 2017, section 2.2.3). Preferences
arrive one by one, so the draw is a Poisson(1) count for each, which leaves out the same
1/e. The count is a hash of seed, member and query: never drawn again, not even by a
restart, since members go on from where they were and a new draw would move what they
know into validation. Two labelers' answers to one query share its fate, or one would be
trained on and the other judged by.

Queries have two to four candidates. Those that a query lacks are padded, as the steps of
a short segment are, and `present` says which ones are there.

Shapes: N preferences, M members, B per minibatch, C candidates of the widest query, K
steps of the longest segment, O observation as a row, A encoded action.

The observations of all preferences, as rows of numbers or as pictures of which each
frame is kept once.

Steps of a segment share frames: of a stack of four, three were in the stack before. So
frames lie in one tensor and a stack is four places in it, put together when a minibatch
is (`rlhp.frames` on a GPU).

Shapes: S stacked frames of H x W make a picture; the others as above.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from rlhp.config.schema import RewardConfig
from rlhp.envs.spaces import Spaces
from rlhp.errors import RlhpError
from rlhp.frames import unstack
from rlhp.models.architecture import Architecture
from rlhp.types import Array, Preference, Segment, digest

FRAMES_AT_FIRST = 1024


class Rows:
    """[N, C, K, O] float32, zero where there is no step or no candidate."""

    def __init__(self, size: int, *, device: torch.device) -> None:
        self._rows = torch.zeros(0, 2, 0, size, device=device)

    def grow(self, room: int, *, candidates: int, steps: int) -> None:
        """Make room for this many preferences of this many candidates and steps."""
        # zeros, not NaN: padded steps are masked in the loss, but zero times NaN would
        # reach the gradient
        self._rows = _grown(self._rows, room, candidates=candidates, steps=steps)

    def put(self, n: int, candidate: int, rows: Array) -> None:
        """Take in the rows [k, O] of one segment."""
        self._rows[n, candidate, : len(rows)] = torch.tensor(rows, device=self._rows.device)

    def take(self, at: Tensor) -> Tensor:
        """[*, C, K, O] of the preferences in `at` [*]."""
        return self._rows[at]


class Pictures:
    """[N, C, K, S, H, W] uint8. Where there is no step it is the segment's last picture
    again, and where there is no candidate it is the first one again.
    """

    def __init__(self, picture: tuple[int, int, int], *, device: torch.device) -> None:
        depth, *size = picture
        self._frames = torch.zeros(FRAMES_AT_FIRST, *size, dtype=torch.uint8, device=device)
        self._places = torch.zeros(0, 2, 0, depth, dtype=torch.int64, device=device)
        self._used = 0

    def grow(self, room: int, *, candidates: int, steps: int) -> None:
        """Make room for this many preferences of this many candidates and steps."""
        count, before, longest = self._places.shape[:3]
        self._places = _grown(self._places, room, candidates=candidates, steps=steps)
        if count:
            known = self._places[:count]
            known[:, :, longest:] = known[:, :, longest - 1 : longest].clone()
            known[:, before:] = known[:, :1].clone()

    def put(self, n: int, candidate: int, rows: Array) -> None:
        """Take in the pictures [k, S, H, W] of one segment, the first candidate first."""
        frames, first = unstack(rows)
        end = self._used + len(frames)
        if end > len(self._frames):
            more = self._frames.new_zeros(max(2 * len(self._frames), end), *self._frames.shape[1:])
            more[: self._used] = self._frames[: self._used]
            self._frames = more
        self._frames[self._used : end] = torch.tensor(frames, device=self._frames.device)
        places = first[:, None] + np.arange(rows.shape[1])
        found = torch.tensor(places, device=self._places.device) + self._used
        them = slice(candidate, None if candidate == 0 else candidate + 1)
        self._places[n, them, : len(rows)] = found
        self._places[n, them, len(rows) :] = found[-1]
        self._used = end

    def take(self, at: Tensor) -> Tensor:
        """[*, C, K, S, H, W] of the preferences in `at` [*]."""
        return self._frames[self._places[at]]


def _grown(old: Tensor, room: int, *, candidates: int, steps: int) -> Tensor:
    """The same [N, C, K, *] in zeros of this size."""
    new = old.new_zeros(room, candidates, steps, *old.shape[3:])
    new[: len(old), : old.shape[1], : old.shape[2]] = old
    return new


SPARE_SHARE = 0.1
"""Held out without a bootstrap, where no preference would be out of bag: something has
to measure overfitting.
"""
SMALLEST_ROOM = 64
"""Preferences for which memory is taken at first; it doubles from there."""
POISSON_CDF = np.cumsum([math.exp(-1) / math.factorial(count) for count in range(8)])


def bag_count(query: str, *, member: int, seed: int) -> int:
    """How often this member trains on the answer to this query, for ever: Poisson(1)."""
    return int(np.searchsorted(POISSON_CDF, _uniform("bag", seed, member, query), side="right"))


def is_held_out(query: str, *, share: float) -> bool:
    """Whether no member ever trains on the answer to this query. It depends on nothing
    but the query's id.
    """
    return _uniform("held out", query) < share


def _uniform(*parts: object) -> float:
    """In [0, 1), the same for the same parts on every machine."""
    return int(digest(*parts)[:13], 16) / 16**13


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Batch:
    """Some preferences: each member its own [M, B], or the same for all [B]."""

    obs: Tensor  # [*, C, K, *O] float32, of pictures uint8
    actions: Tensor  # [*, C, K, A]
    mask: Tensor  # [*, C, K] bool, False where there is no step
    target: Tensor  # [*, C] P(each candidate preferred), 0 where there is none
    returns: Tensor  # [*, C] standardized true returns; zeros unless the loss is regression
    weight: Tensor | None = None  # [*] how much each counts, where not all do in full

    @property
    def present(self) -> Tensor:
        """[*, C] bool, False where a query has no such candidate."""
        return self.mask.any(-1)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Subset:
    """What is known of some preferences [N] beside their segments: what they are judged
    by, and who trains on them.
    """

    target: Tensor  # [N, C] P(each candidate preferred)
    present: Tensor  # [N, C] bool, False where a query has no such candidate
    returns: Tensor  # [N, C] standardized true returns
    bags: Tensor  # [M, N] how often each member trains on each
    validation: Tensor  # [M, N] those that steer a member's penalty
    held_out: Tensor  # [N] those that nobody trains on

    def of(self, members: slice) -> Subset:
        """This part, cut down to some of the members."""
        return replace(self, bags=self.bags[members], validation=self.validation[members])


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Room:
    """Memory for preferences, of which the first N are taken."""

    actions: Tensor  # [room, C, K, A]
    mask: Tensor  # [room, C, K]
    target: Tensor  # [room, C]
    returns: Tensor  # [room, C]


class TrainingSet:
    """All preferences so far, in order of arrival."""

    def __init__(
        self,
        config: RewardConfig,
        *,
        architecture: Architecture,
        spaces: Spaces,
        seed: int,
        device: torch.device,
    ) -> None:
        self._config, self._spaces, self._seed = config, spaces, seed
        self._architecture = architecture
        self._share = config.heldout_share or (0.0 if config.bootstrap else SPARE_SHARE)
        self._known: set[tuple[str, str]] = set()
        picture = spaces.obs.picture
        self._obs = (
            Rows(spaces.obs.size, device=device)
            if picture is None
            else Pictures(picture, device=device)
        )
        self._room = _Room(
            actions=torch.zeros(0, 2, 0, architecture.action_size, device=device),
            mask=torch.zeros(0, 2, 0, dtype=torch.bool, device=device),
            target=torch.zeros(0, 2, device=device),
            returns=torch.zeros(0, 2, device=device),
        )
        self._true_returns: list[tuple[float, ...]] = []
        self._queries: list[str] = []
        self._weight: Tensor | None = None
        members = architecture.members
        self.bags = torch.zeros(members, 0, device=device)
        """[M, N] how often each member trains on each."""
        self.held_out = torch.zeros(0, dtype=torch.bool, device=device)
        """[N] those that nobody trains on."""
        self.validation = torch.zeros(members, 0, dtype=torch.bool, device=device)
        """[M, N] those that steer a member's penalty: out of its bag, or held out where
        there is no bootstrap.
        """
        self.train_rows: list[Array] = [np.empty(0, np.int64)] * members
        """Per member the rows it trains on, as often as it drew them."""
        self.validation_rows: list[Array] = [np.empty(0, np.int64)] * members

    def __len__(self) -> int:
        return len(self._known)

    def add(
        self, preferences: Sequence[Preference], *, doubts: Mapping[str, float] | None = None
    ) -> int:
        """Take in those not known yet, by query and labeler; returns how many.

        All or none: ValueError for one that is `incomparable` (filter it out) or not
        finite. From now on the queries in `doubts` count less, above 0 and below 1, and
        all others in full.
        """
        new = {key: p for p in preferences if (key := (p.query, p.labeler)) not in self._known}
        if new:
            self._take_in(new)
        self._weigh(doubts or {})
        return len(new)

    def _take_in(self, new: Mapping[tuple[str, str], Preference]) -> None:
        targets = [p.target for p in new.values()]
        rows = [[self._rows(each) for each in p.candidates] for p in new.values()]
        if self._config.loss == "regression":
            self._true_returns += [
                tuple(each.true_return for each in p.candidates) for p in new.values()
            ]
        start = len(self)
        self._grow(
            start + len(new),
            candidates=max(map(len, rows)),
            steps=max(len(actions) for query in rows for _, actions in query),
        )
        device = self._room.target.device
        for n, (mu, query) in enumerate(zip(targets, rows, strict=True), start=start):
            self._room.target[n, : len(mu)] = torch.tensor(mu, device=device)
            for candidate, (obs, actions) in enumerate(query):
                self._obs.put(n, candidate, obs)
                self._room.actions[n, candidate, : len(actions)] = torch.tensor(
                    actions, device=device
                )
                self._room.mask[n, candidate, : len(actions)] = True
        self._known |= set(new)
        self._queries += [p.query for p in new.values()]
        self._draw([p.query for p in new.values()])
        self._standardize()

    def _weigh(self, doubts: Mapping[str, float]) -> None:
        if not all(0 < weight <= 1 for weight in doubts.values()):
            raise ValueError(
                f"a preference counts more than 0 and at most 1, got {dict(doubts)}; leave it out "
                "instead"
            )
        weights = [doubts.get(query, 1.0) for query in self._queries]
        # without, the mean is bit for bit what it always was
        doubted = any(weight < 1 for weight in weights)
        self._weight = torch.tensor(weights, device=self.bags.device) if doubted else None

    def batch(self, index: Array) -> Batch:
        """The preferences in rows [B] or [M, B]."""
        at = torch.from_numpy(index).to(self._room.target.device)
        room = self._room
        weight = None if self._weight is None else self._weight[at]
        return Batch(
            obs=self._obs.take(at),
            actions=room.actions[at],
            mask=room.mask[at],
            target=room.target[at],
            returns=room.returns[at],
            weight=weight,
        )

    def minibatch(self, rows: list[Array], draws: np.random.Generator) -> tuple[Array, Tensor]:
        """Rows [M, B] drawn from each member's own, with replacement, and [M] whether
        it has any.
        """
        index_MB = np.zeros((len(rows), self._config.batch_size), np.int64)
        for member, own in enumerate(rows):
            if len(own):
                index_MB[member] = own[draws.integers(0, len(own), index_MB.shape[1])]
        return index_MB, torch.tensor([len(own) > 0 for own in rows], device=self.bags.device)

    def pieces(self, index_MB: Array, *, most: int) -> list[Array]:
        """A minibatch in equal parts of at most so many, whose mean losses average to
        its own.
        """
        size = index_MB.shape[1]
        whole = size % most > 0 or self._weight is not None  # parts would not weigh the same
        return [index_MB] if whole else np.split(index_MB, size // most, axis=1)

    def middles(self, count: int) -> Tensor:
        """[*, O] the observation in the middle of each segment of the newest `count`
        preferences; no pictures.
        """
        newest = self.batch(np.arange(max(0, len(self) - count), len(self)))
        middle = newest.mask.sum(-1) // 2
        at = middle[..., None, None].expand(*middle.shape, 1, newest.obs.shape[-1])
        return newest.obs.gather(2, at).squeeze(2)[newest.present]

    @property
    def target(self) -> Tensor:
        """[N, C] P(each candidate preferred)."""
        return self._room.target[: len(self)]

    @property
    def present(self) -> Tensor:
        """[N, C] bool, False where a query has no such candidate."""
        return self._room.mask[: len(self)].any(-1)

    def part(self, index: Array) -> Subset:
        """The preferences in rows [B]."""
        at = torch.from_numpy(index).to(self._room.target.device)
        return Subset(
            target=self._room.target[at],
            present=self._room.mask[at].any(-1),
            returns=self._room.returns[at],
            bags=self.bags[:, at],
            validation=self.validation[:, at],
            held_out=self.held_out[at],
        )

    def _rows(self, segment: Segment) -> tuple[Array, Array]:
        """What the networks get of a segment: observations [K, *O] and actions [K, A]."""
        obs = self._spaces.obs.flatten({path: leaf[:-1] for path, leaf in segment.obs.items()})
        actions = self._spaces.action.encode(segment.actions)
        if not self._architecture.action_size:
            actions = actions[:, :0]
        if not (np.isfinite(obs).all() and np.isfinite(actions).all()):
            raise RlhpError(
                f"segment {segment.id} holds observations or actions that are not finite, which "
                "would spoil every member; leave its preferences out"
            )
        return obs, actions

    def _grow(self, count: int, *, candidates: int, steps: int) -> None:
        """Make room for this many preferences of this many candidates and steps."""
        old, kept = self._room, len(self)
        room, widest, longest = old.mask.shape
        if count <= room and candidates <= widest and steps <= longest:
            return
        if count > room:
            room = max(SMALLEST_ROOM, 2 * count)
        widest, longest = max(widest, candidates), max(longest, steps)
        self._obs.grow(room, candidates=widest, steps=longest)
        target = old.target.new_zeros(room, widest)
        target[:kept, : old.target.shape[1]] = old.target[:kept]
        self._room = _Room(
            actions=_grown(old.actions, room, candidates=widest, steps=longest),
            mask=_grown(old.mask, room, candidates=widest, steps=longest),
            target=target,
            returns=old.returns.new_zeros(room, widest),
        )

    def _draw(self, queries: list[str]) -> None:
        """Decide who trains on the new ones."""
        held = torch.tensor(
            [is_held_out(query, share=self._share) for query in queries],
            device=self.held_out.device,
        )
        counts = [
            [self._count(query, member) for query in queries] for member in range(len(self.bags))
        ]
        bags = torch.tensor(counts, dtype=torch.float32, device=self.bags.device) * ~held
        self.held_out = torch.cat([self.held_out, held])
        self.bags = torch.cat([self.bags, bags], dim=1)
        self.validation = (
            (self.bags == 0) & ~self.held_out if self._config.bootstrap else self.bags == 0
        )
        rows = np.arange(len(self))
        self.train_rows = [np.repeat(rows, row.long().cpu().numpy()) for row in self.bags]
        self.validation_rows = [rows[row.cpu().numpy()] for row in self.validation]

    def _count(self, query: str, member: int) -> int:
        # Two ensembles that are compared get the same bags, so the answers outside them
        # are the same too.
        member %= self._config.members
        return bag_count(query, member=member, seed=self._seed) if self._config.bootstrap else 1

    def _standardize(self) -> None:
        """True returns over all segments so far to mean 0, std 1: the scale of a reward
        is free.
        """
        if self._true_returns:
            every = np.array([value for query in self._true_returns for value in query])
            standard = (every - every.mean()) / (float(every.std()) or 1.0)
            self._room.returns[: len(self)][self.present] = torch.from_numpy(standard).to(
                self._room.returns
            )
