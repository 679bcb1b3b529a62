"""Preferences from and for other tools, as npz without pickle: our own export, and the
names that imitation uses.

imitation (Gleave et al. 2022) keeps its `PreferenceDataset` as a pickle, which may run
anybody's code and which we neither write nor read. What it consists of fits into one
npz, and docs/labeling.md has the few lines for either way:

    obs [sum(L+1), *O]        fragments one after the other, 2p and 2p+1 a pair
    acts [sum(L), *A]         their actions
    rews [sum(L)]             their env rewards
    lengths [2P]              L steps each
    terminal [2P]             whether each ends in a terminal state
    preferences [P] float32   P(first preferred)
    segment_ids [2P], query_ids [P], labelers [P]
                              optional: whose they are here

Shapes: P preferences, S segments, L or K steps per segment, O one observation leaf, A
one action.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rlhp.envs.spaces import Spaces
from rlhp.errors import RlhpError, one_line
from rlhp.files import new_directory, write_whole
from rlhp.preferences.dataset import PreferenceDataset, refuse_occupied, sound_header
from rlhp.preferences.events import EventRow, confidence_of
from rlhp.preferences.exchange.npz import NpzFile
from rlhp.preferences.schema import SCHEMA_VERSION, obs_column
from rlhp.types import Answer, Array, Preference, Segment, answers_to, digest, query_id


@dataclass(frozen=True, kw_only=True, slots=True)
class Imported:
    """What an import wrote: a dataset that `labels.reuse` takes."""

    out: Path
    preferences: int
    segments: int


def write_imitation(
    dataset: PreferenceDataset, out: Path, preferences: Sequence[Preference]
) -> int:
    """The npz above of these preferences between two; how many segments. `incomparable`
    has no probability and is left out: `Exported` counts it.
    """
    leaves = dataset.spaces.obs.leaves
    if len(leaves) != 1:
        raise RlhpError(
            f"imitation's fragments hold one observation array, this dataset {len(leaves)} leaves "
            f"({', '.join(repr(leaf.path) for leaf in leaves)}); export to npz"
        )
    usable = [each for each in preferences if each.answer is not Answer.INCOMPARABLE]
    if not usable:
        raise RlhpError(f"nothing to export: every answer in {dataset.path} is incomparable")
    sides = [segment for each in usable for segment in each.candidates]
    arrays: dict[str, Array] = {
        "obs": np.concatenate([side.obs[leaves[0].path] for side in sides]),
        "acts": np.concatenate([side.actions for side in sides]),
        "rews": np.concatenate([_rewards(side) for side in sides]),
        "lengths": np.array([side.length for side in sides], np.int64),
        "terminal": np.array([side.terminated for side in sides], bool),
        "preferences": np.array([each.target[0] for each in usable], np.float32),
        "segment_ids": np.array([side.id for side in sides], np.str_),
        "query_ids": np.array([each.query for each in usable], np.str_),
        "labelers": np.array([each.labeler for each in usable], np.str_),
    }
    # mypy takes the arrays for savez_compressed's own flags, which share the keyword
    # namespace.
    write_whole(out, lambda file: np.savez_compressed(file, **arrays))  # type: ignore[arg-type]
    return len({side.id for side in sides})


def import_npz(source: str | Path, out: str | Path) -> Imported:
    """A new dataset at `out` from an npz that `rlhp export` wrote. RlhpError for
    anything else.

    Short segments lose their padding again. Predicted rewards stay behind: the file
    does not say of which version.
    """
    out = Path(out)
    refuse_occupied(out)
    found = NpzFile.read(Path(source))
    header = _header(found)
    segments = _own_segments(found, Spaces.from_json(header["spaces"]), header=header)
    ids = [segment.id for segment in segments]
    if len(set(ids)) != len(ids):
        raise found.wrong(
            f"segment {_twice(ids)} is there twice; each segment has an id of its own"
        )
    pairs = found.numbers("pairs", kinds="iu", shape=(None, 2))
    if len(pairs) and not (pairs.min() >= 0 and pairs.max() < len(ids)):
        raise found.wrong(
            f"pairs name segments from 0 to {len(ids) - 1}, got {pairs.min()} to {pairs.max()}"
        )
    answers, labelers, queries = (
        found.texts(name, rows=len(pairs)) for name in ("answers", "labelers", "query_ids")
    )
    if strange := set(answers) - set(answers_to(2)):
        raise found.wrong(f"an answer is one of {', '.join(answers_to(2))}, got {min(strange)!r}")
    rows = [
        _row(found, ids[first], ids[second], Answer(answer), labeler=labeler, query=query)
        for (first, second), answer, labeler, query in zip(
            pairs.tolist(), answers, labelers, queries, strict=True
        )
    ]
    _check_rows(found, rows)
    return store(out, header=header, segments=segments, rows=rows)


_OF_IMITATION = (
    "obs",
    "acts",
    "rews",
    "lengths",
    "terminal",
    "preferences",
    "segment_ids",
    "query_ids",
    "labelers",
)


def import_imitation(source: str | Path, out: str | Path, *, like: Mapping[str, Any]) -> Imported:
    """A new dataset at `out` from fragments and preferences in the npz above.

    `like` is the header of a dataset of the same environment, such as that of any run
    in it. A preference other than 0, 0.5 and 1 becomes the likelier answer, with a
    confidence by the strength |2 P - 1|.
    """
    out = Path(out)
    refuse_occupied(out)
    spaces = Spaces.from_json(like["spaces"])
    if len(spaces.obs.leaves) != 1:
        raise RlhpError(
            "imitation's fragments hold one observation array, and this environment several leaves"
        )
    found = NpzFile.read(Path(source))
    if strange := found.arrays.keys() - set(_OF_IMITATION):
        raise found.wrong(
            f"the array {min(strange)!r} is none of {', '.join(_OF_IMITATION)}; leave it out"
        )
    sides = _imitation_segments(found, spaces)
    preferences = found.numbers("preferences", kinds="biuf", shape=(None,)).astype(np.float64)
    if len(sides) != 2 * len(preferences) or not ((preferences >= 0) & (preferences <= 1)).all():
        raise found.wrong(
            f"{len(preferences)} probabilities for {len(sides)} fragments: one in [0, 1] per pair"
        )
    count = len(preferences)
    labelers = found.texts("labelers", rows=count) if "labelers" in found else ["imitation"] * count
    queries = found.texts("query_ids", rows=count) if "query_ids" in found else [""] * count
    rows = [
        _row(
            found,
            sides[2 * p].id,
            sides[2 * p + 1].id,
            _likelier(p_first),
            labeler=labelers[p],
            query=queries[p],
            strength=abs(2 * p_first - 1) if p_first not in (0, 0.5, 1) else None,
        )
        for p, p_first in enumerate(preferences.tolist())
    ]
    _check_rows(found, rows)
    longest = max((side.length for side in sides), default=1)
    header = {
        **like,
        "run_ids": ["imitation"],
        "segment_length": max(longest, int(like["segment_length"])),
    }
    return store(out, header=header, segments=sides, rows=rows)


def store(
    out: Path, *, header: Mapping[str, Any], segments: Sequence[Segment], rows: Sequence[EventRow]
) -> Imported:
    """A new dataset of these at `out`, whole or not there. RlhpError where something is
    there already.
    """
    refuse_occupied(out)
    if not rows:
        raise RlhpError(f"nothing to import into {out}: there is no preference in the file")
    with new_directory(out) as torn:
        dataset = PreferenceDataset.create(torn, header=header)
        dataset.add_segments(segments)
        dataset.add_events(rows)
        return Imported(
            out=out, preferences=len(dataset.live()), segments=len(dataset.segment_ids())
        )


def _header(found: NpzFile) -> dict[str, Any]:
    text = found.numbers("header", kinds="U", shape=())
    try:
        header = sound_header(json.loads(str(text)))
        if (version := header.get("schema_version", SCHEMA_VERSION)) != SCHEMA_VERSION:
            raise ValueError(
                f"it has schema_version {version!r}, this version of rlhp reads {SCHEMA_VERSION}"
            )
        return header
    except (ValueError, RecursionError) as error:
        raise found.wrong(f"its header is none of a dataset: {one_line(error)}") from error


def _own_segments(found: NpzFile, spaces: Spaces, *, header: Mapping[str, Any]) -> list[Segment]:
    length = found.numbers("length", kinds="iu", shape=(None,))
    count, steps = len(length), int(header["segment_length"])
    if count and not (length.min() >= 1 and length.max() <= steps):
        raise found.wrong(
            f"segments have 1 to {steps} steps (segment_length), got {length.min()} to "
            f"{length.max()}"
        )
    obs = {
        leaf.path: found.numbers(
            obs_column(leaf.path),
            kinds="biuf",
            shape=(count, steps + 1, *leaf.shape),
            like=leaf.dtype,
        )
        for leaf in spaces.obs.leaves
    }
    action = spaces.action
    actions = found.numbers(
        "actions", kinds="biuf", shape=(count, steps, *action.shape), like=action.dtype
    )
    rewards = found.numbers("env_reward", kinds="f", shape=(count, steps), like="<f4")
    numbers = {name: found.numbers(name, kinds="iu", shape=(count,)).tolist() for name in _COUNTS}
    flags = {name: found.numbers(name, kinds="b", shape=(count,)).tolist() for name in _FLAGS}
    segments = []
    for s, (name, k) in enumerate(
        zip(found.texts("segment_ids", rows=count), length.tolist(), strict=True)
    ):
        own = {path: leaf[s, : k + 1] for path, leaf in obs.items()}
        _check_values(found, name, own, actions[s, :k], rewards[s, :k], spaces)
        segments.append(
            _segment(
                name,
                run=str(header["run_ids"][0]),
                obs=own,
                actions=actions[s, :k],
                env_reward=None if np.isnan(rewards[s, :k]).any() else rewards[s, :k],
                **{key: values[s] for key, values in (numbers | flags).items()},
            )
        )
    return segments


_COUNTS = ("env_steps", "policy_version")
_FLAGS = ("terminated", "truncated")


def _imitation_segments(found: NpzFile, spaces: Spaces) -> list[Segment]:
    (leaf,), action = spaces.obs.leaves, spaces.action
    lengths = found.numbers("lengths", kinds="iu", shape=(None,))
    if len(lengths) and not lengths.min() >= 1:
        raise found.wrong(f"a fragment has at least one step, got lengths from {lengths.min()}")
    terminal = found.numbers("terminal", kinds="b", shape=(len(lengths),)).tolist()
    steps = lengths.tolist()
    starts = [0, *itertools.accumulate(steps)]
    obs = found.numbers("obs", kinds="biuf", shape=(None, *leaf.shape), like=leaf.dtype)
    acts = found.numbers("acts", kinds="biuf", shape=(None, *action.shape), like=action.dtype)
    if len(acts) != starts[-1] or len(obs) != starts[-1] + len(steps):
        raise found.wrong(
            f"lengths add up to {starts[-1]} steps, so {starts[-1]} acts and "
            f"{starts[-1] + len(steps)} obs are needed; got {len(acts)} and {len(obs)}"
        )
    rews = np.full(len(acts), np.nan, np.float32)
    if "rews" in found:
        rews = found.numbers("rews", kinds="iuf", shape=(len(acts),)).astype(np.float32)
    names = found.texts("segment_ids", rows=len(steps)) if "segment_ids" in found else None
    segments: dict[str, Segment] = {}
    sides = []
    for n in range(len(steps)):
        own = obs[starts[n] + n : starts[n + 1] + n + 1]
        actions, rewards = acts[starts[n] : starts[n + 1]], rews[starts[n] : starts[n + 1]]
        name = names[n] if names is not None else digest(own.tobytes(), actions.tobytes())
        _check_values(found, name, {leaf.path: own}, actions, rewards, spaces)
        side = _segment(
            name,
            run="imitation",
            obs={leaf.path: own},
            actions=actions,
            env_reward=None if np.isnan(rewards).any() else rewards,
            terminated=terminal[n],
        )
        known = segments.setdefault(name, side)
        if not (
            np.array_equal(known.obs[leaf.path], own) and np.array_equal(known.actions, actions)
        ):
            raise found.wrong(
                f"segment {name} is there twice, with different steps; give each an id of its own"
            )
        sides.append(side)
    return sides


def _check_values(
    found: NpzFile,
    segment: str,
    obs: Mapping[str, Array],
    actions: Array,
    rewards: Array,
    spaces: Spaces,
) -> None:
    """Refuse what no environment of these spaces can have shown, or been told."""
    if np.isinf(rewards).any() or not all(
        np.isfinite(array).all() for array in (*obs.values(), actions)
    ):
        raise found.wrong(
            f"segment {segment} holds a number that is not finite; leave that segment out"
        )
    for leaf in spaces.obs.leaves:
        values = obs[leaf.path]
        if (
            leaf.categories
            and not ((leaf.low <= values) & (values < leaf.low + leaf.categories)).all()
        ):
            raise found.wrong(
                f"segment {segment}: an observation {leaf.path!r} is none of {leaf.categories} "
                "values"
            )
    if spaces.action.choices:
        chosen = actions.reshape(len(actions), -1) - np.asarray(spaces.action.start or 0)
        if not ((chosen >= 0) & (chosen < np.asarray(spaces.action.choices))).all():
            raise found.wrong(
                f"segment {segment}: an action is none of {list(spaces.action.choices)} values"
            )


def _check_rows(found: NpzFile, rows: Sequence[EventRow]) -> None:
    """Refuse a query about two pairs, and two answers of one labeler to one query."""
    sides: dict[str, tuple[str, ...]] = {}
    for row in rows:
        if sides.setdefault(row.query_id, row.candidate_ids) != row.candidate_ids:
            raise found.wrong(
                f"query {row.query_id} is about two pairs; each pair has an id of its own"
            )
    if (key := _twice([row.key for row in rows])) is not None:
        raise found.wrong(f"query {key[0]} is answered twice by {key[1]}; keep one of the answers")


def _twice(values: Sequence[Any]) -> Any:
    """The first of these that is there again; None where each is there once."""
    seen = set()
    return next((value for value in values if value in seen or seen.add(value)), None)  # type: ignore[func-returns-value]


def _segment(name: str, **known: Any) -> Segment:
    """With what an npz does not know: where in its episode a segment was, and at which
    policy.
    """
    facts: dict[str, Any] = {
        "env_runner": 0,
        "episode": name,
        "start": 0,
        "predicted_reward": None,
        "reward_version": None,
        "policy_version": 0,
        "env_steps": 0,
        "truncated": False,
    }
    return Segment(id=name, **(facts | known))


def _row(
    found: NpzFile,
    first: str,
    second: str,
    answer: Answer,
    *,
    labeler: str,
    query: str,
    strength: float | None = None,
) -> EventRow:
    query = query or query_id(run="imported", purpose="train", candidates=(first, second))
    if first == second:
        raise found.wrong(f"query {query} shows segment {first} twice; a pair is two segments")
    return EventRow(
        query_id=query,
        candidate_ids=(first, second),
        event="answer",
        answer=answer,
        labeler=labeler,
        rev=1,
        confidence=None if strength is None else confidence_of(answer, strength),
        strategy="imported",
    )


def _likelier(p_first: float) -> Answer:
    return Answer.TIE if p_first == 0.5 else Answer.FIRST if p_first > 0.5 else Answer.SECOND


def _rewards(segment: Segment) -> Array:
    if segment.env_reward is None:
        return np.full(segment.length, np.nan, np.float32)
    return np.asarray(segment.env_reward, np.float32)
