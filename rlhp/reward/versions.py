"""A published reward version: its weights as a record, and the predictor that prices
transitions with them.

    weights = fitter.publish(version)
    predictor = Predictor(RewardWeights.from_bytes(weights.to_bytes()))
    rewards_B = predictor.predict(obs_BO, encoded_actions_BA)

Every constant of the scale is frozen in the version, so the same version, observation
and action have the same reward, bit for bit, whoever asks and in whatever batch: rows
are predicted in blocks of one fixed shape, because a matrix product may round differently
for another shape. Between kinds of machine, or CPU and GPU, the last digits may differ.

Shapes: M members, B rows, O observation as a row, A encoded action.

Published reward versions on disk: `reward/version-000012.reward`, whole or not there.

A replica that starts anew reads the newest one; so does a restarted reward trainer,
whose optimizer and bookkeeping lie beside it in `trainer.state`, and in
`trainer.before.state` as they were one version earlier. Each file ends with its digest.
What does not match it is named in the log, and the intact one before is used.
"""

from __future__ import annotations

import io
import json
import logging
import os
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import numpy as np
import torch
from torch import Tensor

from rlhp.errors import RlhpError
from rlhp.files import Damaged, naming, sealed, unsealed, write_whole
from rlhp.models.architecture import Architecture
from rlhp.models.ensemble import build, usable_device
from rlhp.types import Array, DecodeError

FORMAT = 1
BLOCK_ROWS = 512
"""Rows per forward. A power of two fills the tiles of a matrix product; more would fall
out of the CPU's cache.
"""
BLOCK_PICTURES = 128
"""The same for pictures, of which a row is a thousand times as large."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class RewardWeights:
    """Everything that prices a transition at one reward version."""

    version: int
    """1, 2, 3, ... in order of publication."""
    architecture: Architecture
    state: Mapping[str, Array]
    """Parameters and the input normalizer, by torch's names."""
    member_mean: Array
    """[M] float32, mean reward of each member over the reservoir at publication."""
    member_std: Array
    """[M] float32, its standard deviation there."""
    target_std: float
    """Standard deviation of a predicted reward if all members agree."""

    def __post_init__(self) -> None:
        if self.version < 1:
            raise ValueError(f"reward versions count 1, 2, 3, ...; got {self.version}")
        members = (self.architecture.members,)
        if self.member_mean.shape != members or self.member_std.shape != members:
            raise ValueError(
                f"reward version {self.version}: one mean and std for each of {members[0]} "
                f"members, got shapes {self.member_mean.shape} and {self.member_std.shape}"
            )

    def scaled_to(self, scores_MB: Array, *, center: float = 0.0) -> RewardWeights:
        """The same weights, each member scaled over these raw rewards of its own.

        A member's std becomes 1 before `target_std` multiplies it, and the mean
        predicted reward `center`.
        """
        exact = scores_MB.astype(np.float64)
        std = exact.std(1)
        # a constant member has no scale, and prices everything there at `center`
        std[std == 0] = 1.0
        mean = exact.mean(1) - center / self.target_std * std
        return replace(self, member_mean=mean.astype(np.float32), member_std=std.astype(np.float32))

    def to_bytes(self) -> bytes:
        """An uncompressed `npz` without pickle: a JSON header as bytes, then one array
        per parameter.
        """
        header = {
            "format": FORMAT,
            "version": self.version,
            "architecture": self.architecture.to_json(),
            "target_std": self.target_std,
        }
        arrays = {f"state/{name}": array for name, array in self.state.items()}
        arrays |= {"member_mean": self.member_mean, "member_std": self.member_std}
        arrays["header"] = np.frombuffer(json.dumps(header).encode(), np.uint8)
        buffer = io.BytesIO()
        np.savez(buffer, allow_pickle=False, **arrays)
        return buffer.getvalue()

    @staticmethod
    def from_bytes(data: bytes) -> RewardWeights:
        """The inverse of `to_bytes`; DecodeError (with the data attached) for anything
        else.
        """
        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
            header = json.loads(arrays["header"].tobytes())
            if header["format"] != FORMAT:
                raise ValueError(
                    f"they have format {header['format']!r}, this program reads {FORMAT}"
                )
            return RewardWeights(
                version=header["version"],
                architecture=Architecture.from_json(header["architecture"]),
                state={
                    name[6:]: array for name, array in arrays.items() if name.startswith("state/")
                },
                member_mean=arrays["member_mean"],
                member_std=arrays["member_std"],
                target_std=header["target_std"],
            )
        except (
            ValueError,
            KeyError,
            TypeError,
            AttributeError,
            OSError,
            EOFError,
            zipfile.BadZipFile,
        ) as error:
            raise DecodeError(
                f"these are not reward weights, or damaged ones: {error}", data
            ) from error


class RewardPredictor:
    """Prices transitions with one reward version. Stateless: calls from several threads
    do not meet.
    """

    def __init__(self, weights: RewardWeights, *, device: str = "cpu") -> None:
        self._architecture = weights.architecture
        self._version = weights.version
        self._device = usable_device(device)
        network = build(weights.architecture, generator=torch.Generator().manual_seed(0))
        network.load_state_dict(
            {name: torch.tensor(array) for name, array in weights.state.items()}
        )
        self._network = network.to(self._device).eval()
        self._mean = weights.member_mean[:, None]
        self._std = weights.member_std[:, None]
        self._target_std = np.float32(weights.target_std)

    def predict(self, obs: Array, actions: Array) -> Array:
        """Observations [B, *O] and encoded actions [B, A] -> predicted rewards [B]
        float32.

        target_std * mean over members of (r - mean) / std. ValueError where a reward is
        not finite.
        """
        return self.scaled(self.score(obs, actions), obs, actions)

    def scaled(self, scores_MB: Array, obs: Array, actions: Array) -> Array:
        """Predicted rewards [B] of the raw ones of these observations and actions;
        ValueError as from `label`.
        """
        rewards_B: Array = self._target_std * ((scores_MB - self._mean) / self._std).mean(0)
        if not np.isfinite(rewards_B).all():
            self._refuse(rewards_B, obs, actions)
        return rewards_B

    def score(self, obs: Array, actions: Array) -> Array:
        """Observations [B, *O] and encoded actions [B, A] -> raw rewards of every
        member [M, B] float32.
        """
        row, size = self._architecture.row_shape, self._architecture.action_size
        if size == 0:
            actions = actions[:, :0]
        if obs.shape != (len(actions), *row) or actions.shape[1:] != (size,):
            raise ValueError(
                f"reward version {self._version} prices observations [B, "
                f"{', '.join(map(str, row))}] and encoded actions [B, {size}]; got {obs.shape} "
                f"and {actions.shape}"
            )
        pictures = self._architecture.picture is not None
        rows, dtype = (BLOCK_PICTURES, np.uint8) if pictures else (BLOCK_ROWS, np.float32)
        blocks = max(1, -(-len(obs) // rows))
        with torch.inference_mode():
            padded = [
                self._network(
                    *(
                        self._block(part[at * rows : (at + 1) * rows], rows, kind)
                        for part, kind in ((obs, dtype), (actions, np.float32))
                    )
                )
                for at in range(blocks)
            ]
            scores_MB: Array = torch.cat(padded, dim=1).cpu().numpy()
        return scores_MB[:, : len(obs)]

    def _block(self, part: Array, rows: int, dtype: Any) -> Tensor:
        """These rows on the device, as a copy that is padded with zeros up to `rows`."""
        block = np.zeros((rows, *part.shape[1:]), dtype)
        block[: len(part)] = part
        return torch.from_numpy(block).to(self._device)

    def _refuse(self, rewards: Array, obs: Array, actions: Array) -> NoReturn:
        bad = ~np.isfinite(rewards)
        given = np.isfinite(obs[bad]).all() and np.isfinite(actions[bad]).all()
        cause = (
            "its weights have diverged: lower reward.lr"
            if given
            else "so were their observations or actions"
        )
        raise RlhpError(
            f"predicted rewards must be finite; reward version {self._version} gave "
            f"{int(bad.sum())} of {len(bad)} that are not, and {cause}"
        )


Content = TypeVar("Content")

STATE, STATE_BEFORE = "trainer.state", "trainer.before.state"

log = logging.getLogger(__name__)


class RewardStore:
    """One directory of versions; the newest `keep` are kept."""

    def __init__(self, directory: Path, *, keep: int = 3) -> None:
        self._directory = directory
        self._keep = keep
        self._named: set[Path] = set()

    def save(self, weights: RewardWeights, *, trainer_state: bytes) -> None:
        """Durable when it returns. The trainer's state goes first, so it is never older
        than a version.
        """
        with naming(self._directory):
            self._directory.mkdir(parents=True, exist_ok=True)
            for torn in self._directory.glob(".*.tmp"):
                torn.unlink(missing_ok=True)
            if (state := self._directory / STATE).exists():
                os.rename(state, self._directory / STATE_BEFORE)
        write_whole(state, sealed(trainer_state))
        write_whole(
            self._directory / f"version-{weights.version:06d}.reward", sealed(weights.to_bytes())
        )
        for old in self._versions()[: -self._keep]:
            old.unlink(missing_ok=True)

    def rewind(self, weights: RewardWeights | None, *, trainer_state: bytes) -> None:
        """Make this the newest version again (None: the time before the first), and
        forget those after it.
        """
        newest = 0 if weights is None else weights.version
        for path in self._versions():
            if _number(path) > newest:
                path.unlink()
        for name in (STATE, STATE_BEFORE):
            (self._directory / name).unlink(missing_ok=True)
        if weights is not None:
            self.save(weights, trainer_state=trainer_state)

    def newest_number(self) -> int:
        """Of the newest version that was saved, intact or not; 0 before the first."""
        return max(map(_number, self._versions()), default=0)

    def newest(self) -> RewardWeights | None:
        """The newest intact version, or None before the first. Damaged where there are
        versions, but none is intact.
        """
        versions = self._versions()
        found = self._first_intact(versions[::-1], RewardWeights.from_bytes, what="reward version")
        if found is None and versions:
            raise Damaged(
                f"{self._directory}: no reward version in it is what was written, from "
                f"{versions[0].name} to {versions[-1].name}; put them back from a copy, or move "
                "the directory away and the reward is fitted anew to the answers on disk"
            )
        return found

    def highest(self) -> int:
        """The highest number a version ever had here, damaged ones included; 0 before
        the first.
        """
        return max(map(_number, self._versions()), default=0)

    def trainer_state(self) -> bytes | None:
        """What the reward trainer saved with its last version, or with the one before
        where that is damaged.
        """
        states = [self._directory / STATE, self._directory / STATE_BEFORE]
        return self._first_intact(
            [path for path in states if path.exists()], bytes, what="trainer state"
        )

    def _first_intact(
        self, paths: Sequence[Path], decode: Callable[[bytes], Content], *, what: str
    ) -> Content | None:
        """The content of the first of these that is intact; the others are named in the
        log, once.
        """
        for path in paths:
            try:
                return decode(unsealed(path.read_bytes()))
            except (Damaged, DecodeError) as error:
                if path not in self._named:
                    self._named.add(path)
                    log.warning(
                        "%s %s is not used, the intact one before is, if there is one: %s",
                        what,
                        path,
                        error,
                    )
            except FileNotFoundError:
                continue  # a writer has just dropped it, having written a newer one
        return None

    def _versions(self) -> list[Path]:
        return sorted(
            path for path in self._directory.glob("version-*.reward") if path.stem[8:].isdecimal()
        )


def _number(path: Path) -> int:
    return int(path.stem.rpartition("-")[2])
