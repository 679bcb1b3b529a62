"""Preferences from and for other tools, as npz without pickle: our own export, and the names that imitation uses.

imitation (Gleave et al. 2022) keeps its `PreferenceDataset` as a pickle, which may run anybody's code and which we
neither write nor read. What it consists of fits into one npz, and docs/labeling.md has the few lines for either way:

    obs [sum(L+1), *O]   acts [sum(L), *A]   rews [sum(L)]     fragments one after the other, 2p and 2p+1 a pair
    lengths [2P]   terminal [2P]                               L steps each; whether it ends in a terminal state
    preferences [P] float32                                    P(first preferred)
    segment_ids [2P]   query_ids [P]   labelers [P]            optional: whose they are here

Shapes: P preferences, S segments, L or K steps per segment, O one observation leaf, A one action.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from rlhp.errors import RlhpError
from rlhp.reward import parts
from rlhp.reward.dataset import PreferenceDataset
from rlhp.reward.events import EventRow
from rlhp.reward.schema import obs_column
from rlhp.spaces import Spaces
from rlhp.types import TARGET, Answer, Array, Preference, Segment, digest, parse_answer, query_id

Arrays = Mapping[str, Array]


@dataclass(frozen=True, kw_only=True, slots=True)
class Imported:
    """What an import wrote: a dataset that `labels.reuse` takes."""

    out: Path
    preferences: int
    segments: int


def write_imitation(dataset: PreferenceDataset, out: Path, preferences: Sequence[Preference]) -> int:
    """The npz above; how many segments. `incomparable` has no probability and is left out: `Exported` counts it."""
    leaves = dataset.spaces.obs.leaves
    if len(leaves) != 1:
        raise RlhpError(
            f"imitation's fragments hold one observation array, this dataset {len(leaves)} leaves "
            f"({', '.join(repr(leaf.path) for leaf in leaves)}); export to npz"
        )
    usable = [each for each in preferences if each.answer in TARGET]
    if not usable:
        raise RlhpError(f"nothing to export: every answer in {dataset.path} is incomparable")
    sides = [segment for each in usable for segment in (each.first, each.second)]
    arrays: dict[str, Array] = {
        "obs": np.concatenate([side.obs[leaves[0].path] for side in sides]),
        "acts": np.concatenate([side.actions for side in sides]),
        "rews": np.concatenate([_rewards(side) for side in sides]),
        "lengths": np.array([side.length for side in sides], np.int64),
        "terminal": np.array([side.terminated for side in sides], bool),
        "preferences": np.array([TARGET[each.answer] for each in usable], np.float32),
        "segment_ids": np.array([side.id for side in sides], np.str_),
        "query_ids": np.array([each.query for each in usable], np.str_),
        "labelers": np.array([each.labeler for each in usable], np.str_),
    }
    # mypy takes the arrays for savez_compressed's own flags, which share the keyword namespace.
    parts.write_durably(out, lambda file: np.savez_compressed(file, **arrays))  # type: ignore[arg-type]
    return len({side.id for side in sides})


def import_npz(source: str | Path, out: str | Path) -> Imported:
    """A new dataset at `out` from an npz that `rlhp export` wrote. ValueError for anything else.

    Short segments lose their padding again. Predicted rewards stay behind: the file does not say of which version.
    """

    def read(found: Arrays) -> tuple[dict[str, Any], list[Segment], list[EventRow]]:
        header = json.loads(str(found["header"]))
        segments = _own_segments(found, Spaces.from_json(header["spaces"]), run=str(header["run_ids"][0]))
        ids = [segment.id for segment in segments]
        rows = [
            _row(ids[first], ids[second], parse_answer(str(answer)), labeler=str(labeler), query=str(query))
            for (first, second), answer, labeler, query in zip(
                found["pairs"].tolist(), found["answers"], found["labelers"], found["query_ids"], strict=True
            )
        ]
        return header, segments, rows

    return _imported(Path(source), Path(out), read)


def import_imitation(source: str | Path, out: str | Path, *, like: Mapping[str, Any]) -> Imported:
    """A new dataset at `out` from fragments and preferences in the npz above.

    `like` is the header of a dataset of the same environment, such as that of any run in it. A preference other than
    0, 0.5 and 1 becomes the likelier answer, with the strength |2 P - 1|.
    """
    spaces = Spaces.from_json(like["spaces"])
    if len(spaces.obs.leaves) != 1:
        raise RlhpError("imitation's fragments hold one observation array, and this environment several leaves")

    def read(found: Arrays) -> tuple[dict[str, Any], list[Segment], list[EventRow]]:
        sides = _imitation_segments(found, spaces)
        preferences = found["preferences"].astype(np.float64)
        if len(sides) != 2 * len(preferences) or not ((preferences >= 0) & (preferences <= 1)).all():
            raise RlhpError(f"{len(preferences)} probabilities for {len(sides)} fragments: one in [0, 1] per pair")
        labelers = found.get("labelers", np.full(len(preferences), "imitation"))
        queries = found.get("query_ids", np.full(len(preferences), ""))
        rows = [
            _row(
                sides[2 * p].id,
                sides[2 * p + 1].id,
                _likelier(float(preferences[p])),
                labeler=str(labelers[p]),
                query=str(queries[p]),
                strength=abs(2 * float(preferences[p]) - 1) if preferences[p] not in (0, 0.5, 1) else None,
            )
            for p in range(len(preferences))
        ]
        longest = max(side.length for side in sides)
        header = {**like, "run_ids": ["imitation"], "segment_length": max(longest, int(like["segment_length"]))}
        return header, sides, rows

    return _imported(Path(source), Path(out), read)


Read = Callable[[Arrays], tuple[dict[str, Any], list[Segment], list[EventRow]]]


def _imported(source: Path, out: Path, read: Read) -> Imported:
    try:
        with np.load(source, allow_pickle=False) as file:
            header, segments, rows = read({name: file[name] for name in file.files})
    except KeyError as error:
        raise RlhpError(f"{source} lacks the array {error}; docs/labeling.md lists what an import needs") from None
    except (BadZipFile, ValueError, IndexError, AttributeError) as error:
        raise RlhpError(f"{source} cannot be imported: {error}") from error
    return store(out, header=header, segments=segments, rows=rows)


def store(out: Path, *, header: Mapping[str, Any], segments: Sequence[Segment], rows: Sequence[EventRow]) -> Imported:
    """A new dataset of these, segments before the answers about them. ValueError where `out` exists."""
    dataset = PreferenceDataset.create(out, header=header)
    dataset.add_segments(segments)
    dataset.add_events(rows)
    return Imported(out=out, preferences=len(dataset.live()), segments=len(dataset.segment_ids()))


def _own_segments(found: Arrays, spaces: Spaces, *, run: str) -> list[Segment]:
    segments = []
    for s, steps in enumerate(found["length"].tolist()):
        rewards = found["env_reward"][s, :steps]
        segments.append(
            _segment(
                str(found["segment_ids"][s]),
                run=run,
                obs={leaf.path: found[obs_column(leaf.path)][s, : steps + 1] for leaf in spaces.obs.leaves},
                actions=found["actions"][s, :steps],
                env_reward=None if np.isnan(rewards).any() else rewards,
                env_steps=int(found["env_steps"][s]),
                policy_version=int(found["policy_version"][s]),
                terminated=bool(found["terminated"][s]),
                truncated=bool(found["truncated"][s]),
            )
        )
    return segments


def _imitation_segments(found: Arrays, spaces: Spaces) -> list[Segment]:
    (leaf,) = spaces.obs.leaves
    lengths = found["lengths"].astype(np.int64)
    starts = np.concatenate([[0], np.cumsum(lengths)])
    if len(found["acts"]) != starts[-1] or len(found["obs"]) != starts[-1] + len(lengths):
        raise RlhpError(
            f"lengths add up to {starts[-1]} steps, so {starts[-1]} acts and {starts[-1] + len(lengths)} obs are "
            f"needed; got {len(found['acts'])} and {len(found['obs'])}"
        )
    segments = []
    for n, steps in enumerate(lengths.tolist()):
        obs = found["obs"][starts[n] + n : starts[n + 1] + n + 1]
        actions = found["acts"][starts[n] : starts[n + 1]]
        rewards = found["rews"][starts[n] : starts[n + 1]] if "rews" in found else np.full(steps, np.nan)
        named = str(found["segment_ids"][n]) if "segment_ids" in found else digest(obs.tobytes(), actions.tobytes())
        segments.append(
            _segment(
                named,
                run="imitation",
                obs={leaf.path: obs.astype(leaf.dtype)},
                actions=actions.astype(spaces.action.dtype),
                env_reward=None if np.isnan(rewards).any() else rewards.astype(np.float32),
                terminated=bool(found["terminal"][n]),
            )
        )
    return segments


def _segment(name: str, **known: Any) -> Segment:
    """With what an npz does not know: where in its episode a segment was, and at which policy."""
    facts: dict[str, Any] = {
        "env_runner": 0, "episode": name, "start": 0, "predicted_reward": None, "reward_version": None,
        "policy_version": 0, "env_steps": 0, "truncated": False,
    }  # fmt: skip
    return Segment(id=name, **(facts | known))


def _row(
    first: str, second: str, answer: Answer, *, labeler: str, query: str, strength: float | None = None
) -> EventRow:
    return EventRow(
        query_id=query or query_id(run="imported", purpose="train", segments=(first, second)),
        first_id=first,
        second_id=second,
        event="answer",
        answer=answer,
        labeler=labeler,
        rev=1,
        strength=strength,
        strategy="imported",
    )


def _likelier(p_first: float) -> Answer:
    return Answer.TIE if p_first == 0.5 else Answer.FIRST if p_first > 0.5 else Answer.SECOND


def _rewards(segment: Segment) -> Array:
    if segment.env_reward is None:
        return np.full(segment.length, np.nan, np.float32)
    return np.asarray(segment.env_reward, np.float32)
