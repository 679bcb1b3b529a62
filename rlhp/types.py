"""The records that cross a border between two processes: segment, query, answer,
preference.

Shapes: K steps per segment, O one observation leaf, A one action, S simulator state.

Every record is frozen and validated when it is built, knows its own id, and carries the
versions of the policy and the reward model that made it. `encode` and `decode` turn a
segment into bytes and back: a JSON header and raw little-endian arrays, never a pickle.

A segment keeps its observations by leaf name, so a segment that is a text (tokens in,
tokens out) needs one more leaf, not one more record.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import re
import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

import numpy as np

from rlhp import frames
from rlhp.errors import RlhpError, one_line

Array = frames.Array


MOST_CANDIDATES = 4
"""Shown in one query."""


class Answer(StrEnum):
    """What a labeler said about one query: which candidate is best, or why none is."""

    FIRST = "first"
    SECOND = "second"
    THIRD = "third"
    FOURTH = "fourth"
    TIE = "tie"
    INCOMPARABLE = "incomparable"

    @property
    def place(self) -> int | None:
        """Of the preferred candidate, from 0; None for a tie and for `incomparable`."""
        return CHOICES.index(self) if self in CHOICES else None


CHOICES = (Answer.FIRST, Answer.SECOND, Answer.THIRD, Answer.FOURTH)
"""The answers that prefer one candidate, by its place."""


def answers_to(candidates: int) -> tuple[Answer, ...]:
    """The answers that a query of so many candidates can have."""
    return (*CHOICES[:candidates], Answer.TIE, Answer.INCOMPARABLE)


def parse_answer(text: str, *, candidates: int = MOST_CANDIDATES) -> Answer:
    """The answer named `text`, or one ValueError that lists those that a query of so
    many candidates can have.
    """
    allowed = answers_to(candidates)
    if text not in allowed:
        raise RlhpError(
            f"an answer is one of {', '.join(allowed)} where {candidates} candidates are shown; "
            f"got {text!r}"
        )
    return Answer(text)


def target(answer: Answer, *, candidates: int) -> tuple[float, ...] | None:
    """The probability with which each candidate is the best one, by this answer.

    One of them has all of it, or all share it in a tie. `incomparable` has no target:
    it is stored and counted, never trained on.
    """
    parse_answer(answer, candidates=candidates)
    if answer is Answer.INCOMPARABLE:
        return None
    if answer.place is None:
        return (1 / candidates,) * candidates
    return tuple(float(place == answer.place) for place in range(candidates))


# eq=False: == over arrays has no truth value
@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Segment:
    """K consecutive steps of one episode: one candidate of a query. It never crosses a
    reset.
    """

    id: str
    """blake2b-128 of (run, env runner, episode, first step, length): the same steps
    always get the same id.
    """
    run: str
    env_runner: int
    episode: str
    start: int
    """First step within the episode."""
    obs: Mapping[str, Array]
    """Leaf path -> [K+1, *O], raw as the env showed them; the last row is what the last
    action led to. A plain observation has the one leaf ``""``; a Dict or Tuple has one
    leaf per path (``"goal/x"``).
    """
    actions: Array
    """[K, *A] as executed, after clipping."""
    env_reward: Array | None
    """[K] float32, only where a synthetic teacher needs it. Never read by reward
    training.
    """
    predicted_reward: Array | None
    """[K] float32 as predicted when sampled; None before the first reward version."""
    reward_version: int | None
    policy_version: int
    env_steps: int
    """Environment steps of the whole run when the segment was cut."""
    terminated: bool
    truncated: bool
    state: Array | None = None
    """[K, S] float64 simulator state before each action, for drawing; see `state_kind`.
    """
    state_kind: str = "none"

    def __post_init__(self) -> None:
        steps = len(self.actions)
        if steps < 1:
            raise ValueError(f"segment {self.id}: a segment has at least one step, got none")
        rows = {f"obs[{path!r}]": len(leaf) - 1 for path, leaf in self.obs.items()}
        for name in ("env_reward", "predicted_reward", "state"):
            value = getattr(self, name)
            if value is not None:
                rows[name] = len(value)
        if not self.obs or any(count != steps for count in rows.values()):
            raise ValueError(
                f"segment {self.id}: every array has one row per step (obs one more), "
                f"got {steps} actions and {rows}; cut all alike"
            )
        if (self.predicted_reward is None) != (self.reward_version is None):
            raise ValueError(
                f"segment {self.id}: predicted rewards and their reward version come together"
            )

    def __reduce__(self) -> tuple[Any, ...]:
        """Within a cluster stacked pictures travel as frames, each once."""
        fields = {each.name: getattr(self, each.name) for each in dataclasses.fields(self)}
        leaves = {path: frames.FramePickle(leaf) for path, leaf in self.obs.items()}
        return _arrived, (fields | {"obs": leaves},)

    @property
    def length(self) -> int:
        """K, the number of steps."""
        return len(self.actions)

    @property
    def group(self) -> None:
        """None, since segments of any episodes can be compared."""
        return None

    @property
    def true_return(self) -> float:
        """Undiscounted sum of env rewards; ValueError where the segment carries none."""
        if self.env_reward is None:
            raise RlhpError(
                f"segment {self.id} carries no env rewards, so a teacher that judges by them "
                "cannot answer; set labels.share_env_reward = true, or use a teacher that looks "
                "at observations"
            )
        return float(np.sum(self.env_reward, dtype=np.float64))


def _arrived(fields: dict[str, Any]) -> Segment:
    obs = dict(fields["obs"])
    for path, leaf in obs.items():
        if frames.is_stack(leaf.dtype, leaf.shape[1:]):
            # a copy: one view of Ray's object store would keep a whole offer there
            obs[path] = frames.join([leaf])
    return Segment(**{**fields, "obs": obs})


def digest(*parts: object) -> str:
    """128-bit hex digest of the parts, stable across processes and machines."""
    text = json.dumps([str(part) for part in parts])
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def segment_id(*, run: str, env_runner: int, episode: str, start: int, length: int) -> str:
    """The id of these steps."""
    return digest(run, env_runner, episode, start, length)


def query_id(*, run: str, purpose: str, candidates: Sequence[str], salt: str = "") -> str:
    """The id of the candidates, in any order, asked for this purpose."""
    return digest(run, purpose, *sorted(candidates), salt)


def comparison_id(candidates: Sequence[str]) -> str:
    """The id of these candidates in any order, whatever the purpose."""
    # the word is from when all were pairs, and what is stored under it stays known
    return digest("pair", *sorted(candidates))


class Candidate(Protocol):
    """What a query shows: two to four of them, to be compared."""

    @property
    def id(self) -> str: ...
    @property
    def length(self) -> int:
        """The number of steps."""

    @property
    def group(self) -> str | None:
        """What the candidates of one query have in common, as a prompt; None where any
        can be compared.
        """


def check_candidates(query: str, candidates: Sequence[Candidate]) -> None:
    """ValueError where these make no query: too few, too many, one twice, or of several
    groups.
    """
    ids = [each.id for each in candidates]
    if not 2 <= len(ids) <= MOST_CANDIDATES:
        raise ValueError(
            f"query {query}: a query shows 2 to {MOST_CANDIDATES} candidates, got {len(ids)}"
        )
    if len(set(ids)) < len(ids):
        twice = next(each for each in ids if ids.count(each) > 1)
        raise ValueError(f"query {query}: the candidates must differ, got {twice} twice")
    if len(groups := {each.group for each in candidates}) > 1:
        raise ValueError(
            f"query {query}: the candidates are of one group, got {sorted(map(str, groups))}"
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class TeacherContext:
    """What a synthetic teacher may know about the run: the scale of its returns
    (B-Pref, Lee et al. 2021).
    """

    mean_episode_return: float
    """Mean true return of the last ten training episodes."""
    lowest_warmup_return: float
    """Lowest true episode return of the random-policy warm-up."""
    episode_length: float
    """Mean steps of those episodes."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Query:
    """Two to four candidates shown together, not answered yet."""

    id: str
    candidates: tuple[Segment, ...]
    purpose: str = "train"
    strategy: str = "random"
    score: float = 0.0
    """What the selection strategy thought of the candidates: higher is asked sooner."""
    reward_version: int | None = None
    """Version whose members scored the candidates; None before the first."""
    env_steps: int = 0
    context: TeacherContext | None = None

    def __post_init__(self) -> None:
        check_candidates(self.id, self.candidates)

    @property
    def first(self) -> Segment:
        """The first candidate."""
        return self.candidates[0]

    @property
    def second(self) -> Segment:
        """The second candidate."""
        return self.candidates[1]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Preference:
    """A query with its settled answer: one training example."""

    query: str
    candidates: tuple[Segment, ...]
    answer: Answer
    labeler: str

    @property
    def first(self) -> Segment:
        """The first candidate."""
        return self.candidates[0]

    @property
    def second(self) -> Segment:
        """The second candidate."""
        return self.candidates[1]

    @property
    def target(self) -> tuple[float, ...]:
        """The probability with which each candidate is the best one; ValueError for
        `incomparable`, which has none.
        """
        found = target(self.answer, candidates=len(self.candidates))
        if found is None:
            raise ValueError(
                f"query {self.query}: {self.answer} has no target and is never trained on"
            )
        return found


class Teacher(Protocol):
    """Whoever can answer a query in code. None means: skip it, somebody else may know.

    class TallerIsBetter:
        def answer(self, query):
            first, second = (s.obs[""][:, 0].mean() for s in (query.first, query.second))
            if first == second:
                return Answer.TIE
            return Answer.FIRST if first > second else Answer.SECOND
    """

    def answer(self, query: Query) -> Answer | None: ...


class DecodeError(ValueError):
    """Bytes that are not the record they should be; `data` holds them for whoever looks
    into it.
    """

    def __init__(self, message: str, data: bytes) -> None:
        super().__init__(message)
        self.data = data


MAGIC = b"RLHPSEG2"
_SCALARS = (
    "id",
    "run",
    "env_runner",
    "episode",
    "start",
    "reward_version",
    "policy_version",
    "env_steps",
    "terminated",
    "truncated",
    "state_kind",
)
_TYPES: dict[str, Any] = dict.fromkeys(_SCALARS, int) | {
    "id": str, "run": str, "episode": str, "state_kind": str, "terminated": bool, "truncated": bool,
    "reward_version": (int, type(None)),
}  # fmt: skip
_DIGEST_BYTES = 16
_DTYPE = re.compile(r"[<|][biuf]\d{1,2}")
MOST_BYTES = 512 << 20
"""Of a segment's arrays, and of its stacks of pictures as they are looked at. Deflated,
a megabyte may hold two gigabytes of zeros, so this is held against what the header says
before anything is inflated.
"""


def encode(segment: Segment) -> bytes:
    """Magic, digest of the rest, header length, JSON header, deflated arrays. No
    pickle.

    Of stacked pictures it holds the frames, each once, and `first:` says with which
    each row's stack begins.
    """
    arrays: dict[str, Array] = {}
    for path, leaf in segment.obs.items():
        if frames.is_stack(leaf.dtype, leaf.shape[1:]):
            arrays[f"frames:{path}"], arrays[f"first:{path}"] = frames.unstack(leaf)
        else:
            arrays[f"obs:{path}"] = leaf
    arrays["actions"] = segment.actions
    for name in ("env_reward", "predicted_reward", "state"):
        value = getattr(segment, name)
        if value is not None:
            arrays[name] = value
    plain = {
        name: np.ascontiguousarray(a, dtype=a.dtype.newbyteorder("<")) for name, a in arrays.items()
    }
    header = {
        "fields": {name: getattr(segment, name) for name in _SCALARS},
        "depth": {
            path: leaf.shape[1] for path, leaf in segment.obs.items() if f"frames:{path}" in arrays
        },
        "arrays": [[name, array.dtype.str, list(array.shape)] for name, array in plain.items()],
    }
    head = json.dumps(header).encode()
    body = zlib.compress(b"".join(array.tobytes() for array in plain.values()), level=1)
    rest = struct.pack("<I", len(head)) + head + body
    if sum(array.nbytes for array in plain.values()) > MOST_BYTES:
        raise RlhpError(
            f"segment {segment.id} takes more than {MOST_BYTES >> 20} MiB, and no labeler would "
            "take it; make query.segment_length smaller, or what the environment shows"
        )
    return MAGIC + _sum(rest) + rest


def decode(data: bytes) -> Segment:
    """The segment in `data`; DecodeError (with the data attached) for anything else."""
    if data[: len(MAGIC)] != MAGIC:
        raise DecodeError(
            f"not an encoded segment: it starts with {data[:8]!r}, not {MAGIC!r}", data
        )
    try:
        rest = data[len(MAGIC) + _DIGEST_BYTES :]
        if data[len(MAGIC) : len(MAGIC) + _DIGEST_BYTES] != _sum(rest):
            raise ValueError("its content is not what was encoded")
        (size,) = struct.unpack_from("<I", rest)
        header = json.loads(rest[4 : 4 + size])
        arrays = _arrays(_layout(header["arrays"]), rest[4 + size :])
        obs = {name[4:]: array for name, array in arrays.items() if name.startswith("obs:")}
        for path, depth in header["depth"].items():
            obs[path] = _stacks(arrays[f"frames:{path}"], arrays[f"first:{path}"], depth)
        optional: dict[str, Any] = {
            name: arrays.get(name) for name in ("env_reward", "predicted_reward", "state")
        }
        for name, array in optional.items():
            if array is not None and (
                array.ndim != (2 if name == "state" else 1) or array.dtype.kind != "f"
            ):
                raise ValueError(f"{name} is no row of numbers per step")
        return Segment(obs=obs, actions=arrays["actions"], **optional, **_scalars(header["fields"]))
    except _UNDECODABLE as error:
        raise DecodeError(f"a damaged segment: {one_line(error)}", data) from error


_UNDECODABLE = (
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    ArithmeticError,
    RecursionError,
    MemoryError,
    struct.error,
    zlib.error,
)
"""What the header and the arrays of bytes that somebody made up may come to."""


def _sum(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=_DIGEST_BYTES).digest()


def _layout(rows: Any) -> list[tuple[str, np.dtype[Any], tuple[int, ...]]]:
    """Name, dtype and shape of each array; ValueError where no environment has such, or
    all take too much.
    """
    layout = []
    for name, dtype, shape in rows:
        if not isinstance(name, str) or not isinstance(dtype, str) or not _DTYPE.fullmatch(dtype):
            raise ValueError(f"array {name!r} of dtype {dtype!r} is none of a segment")
        if len(shape) > 8 or not all(
            type(count) is int and 0 <= count <= MOST_BYTES for count in shape
        ):
            raise ValueError(f"array {name!r} has the shape {shape!r}")
        layout.append((name, np.dtype(dtype), tuple(shape)))
    if len({name for name, _, _ in layout}) != len(layout):
        raise ValueError("two arrays have one name")
    if (size := sum(_size(dtype, shape) for _, dtype, shape in layout)) > MOST_BYTES:
        raise ValueError(f"its arrays take {size:,} bytes, at most {MOST_BYTES:,} are taken")
    return layout


def _size(dtype: np.dtype[Any], shape: tuple[int, ...]) -> int:
    return math.prod(shape) * dtype.itemsize


def _arrays(
    layout: list[tuple[str, np.dtype[Any], tuple[int, ...]]], body: bytes
) -> dict[str, Array]:
    size = sum(_size(dtype, shape) for _, dtype, shape in layout)
    inflater = zlib.decompressobj()
    plain = inflater.decompress(body, size + 1)
    if len(plain) != size or not inflater.eof or inflater.unused_data:
        raise ValueError(f"its arrays take {size:,} bytes, and other than that many are there")
    arrays: dict[str, Array] = {}
    offset = 0
    for name, dtype, shape in layout:
        arrays[name] = np.frombuffer(plain, dtype, count=math.prod(shape), offset=offset).reshape(
            shape
        )
        offset += _size(dtype, shape)
    return arrays


def _stacks(pictures: Array, first: Array, depth: Any) -> Array:
    if (
        type(depth) is not int
        or pictures.ndim != 3
        or first.ndim != 1
        or pictures.dtype != np.uint8
    ):
        raise ValueError(f"stacks of {depth!r} of {list(pictures.shape)} are no pictures")
    last = len(pictures) - depth
    if (
        first.dtype.kind not in "iu"
        or not len(first)
        or not depth >= 1
        or first.min() < 0
        or first.max() > last
    ):
        raise ValueError(
            f"stacks of {depth} of {len(pictures)} pictures cannot begin at {first[:9].tolist()}"
        )
    if len(first) * depth * pictures[0].nbytes > MOST_BYTES:
        raise ValueError(f"{len(first)} stacks of {depth} pictures are more than anybody looks at")
    return frames.restack(pictures, first, depth=depth)


def _scalars(fields: Any) -> dict[str, Any]:
    if fields.keys() != set(_SCALARS):
        raise ValueError(f"its fields are {sorted(fields)}")
    for name, value in fields.items():
        whole = type(value) is not int or -(2**63) <= value < 2**63
        if (
            not isinstance(value, _TYPES[name])
            or not whole
            or isinstance(value, bool) != (_TYPES[name] is bool)
        ):
            raise ValueError(f"{name} is {value!r:.60}")
        if isinstance(value, str) and not value.isprintable():
            raise ValueError(f"{name} is {value!r:.60}")
    return dict(fields)
