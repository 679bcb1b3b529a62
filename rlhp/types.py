"""The records that cross a border between two processes: segment, query, answer, preference.

Shapes: K steps per segment, O one observation leaf, A one action, S simulator state.

Every record is frozen and validated when it is built, knows its own id, and carries the versions of
the policy and the reward model that made it. `encode` and `decode` turn a segment into bytes and back:
a JSON header and raw little-endian arrays, never a pickle.

A segment keeps its observations by leaf name, so a segment that is a text (tokens in, tokens out)
needs one more leaf, not one more record.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

import numpy as np

from rlhp import frames
from rlhp.errors import RlhpError

Array = frames.Array


class Answer(StrEnum):
    """What a labeler said about one query."""

    FIRST = "first"
    SECOND = "second"
    TIE = "tie"
    INCOMPARABLE = "incomparable"


TARGET: dict[Answer, float] = {Answer.FIRST: 1.0, Answer.SECOND: 0.0, Answer.TIE: 0.5}
"""P(first preferred). INCOMPARABLE has no target: it is stored and counted, never trained on."""


def parse_answer(text: str) -> Answer:
    """The answer named `text`, or one ValueError that lists the four that exist."""
    try:
        return Answer(text)
    except ValueError:
        names = ", ".join(answer.value for answer in Answer)
        raise RlhpError(f"an answer is one of {names}; got {text!r}") from None


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)  # eq=False: == over arrays has no truth value
class Segment:
    """K consecutive steps of one episode: one side of a query. It never crosses a reset."""

    id: str
    """blake2b-128 of (run, env runner, episode, first step, length): the same steps always get the same id."""
    run: str
    env_runner: int
    episode: str
    start: int
    """First step within the episode."""
    obs: Mapping[str, Array]
    """Leaf path -> [K+1, *O], raw as the env showed them; the last row is what the last action led to.
    A plain observation has the one leaf ``""``; a Dict or Tuple has one leaf per path (``"goal/x"``)."""
    actions: Array
    """[K, *A] as executed, after clipping."""
    env_reward: Array | None
    """[K] float32, only where a synthetic teacher needs it. Never read by reward training."""
    predicted_reward: Array | None
    """[K] float32 as priced when sampled; None before the first reward version."""
    reward_version: int | None
    policy_version: int
    env_steps: int
    """Environment steps of the whole run when the segment was cut."""
    terminated: bool
    truncated: bool
    state: Array | None = None
    """[K, S] float64 simulator state before each action, for drawing; see `state_kind`."""
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
            raise ValueError(f"segment {self.id}: predicted rewards and their reward version come together")

    def __reduce__(self) -> tuple[Any, ...]:
        """Within a cluster stacked pictures travel as frames, each once."""
        fields = {each.name: getattr(self, each.name) for each in dataclasses.fields(self)}
        leaves = {path: frames.Light(leaf) for path, leaf in self.obs.items()}
        return _arrived, (fields | {"obs": leaves},)

    @property
    def length(self) -> int:
        """K, the number of steps."""
        return len(self.actions)

    @property
    def true_return(self) -> float:
        """Undiscounted sum of env rewards; ValueError where the segment carries none."""
        if self.env_reward is None:
            raise RlhpError(
                f"segment {self.id} carries no env rewards, so a teacher that judges by them cannot answer; "
                "set labels.share_env_reward = true, or use a teacher that looks at observations"
            )
        return float(np.sum(self.env_reward, dtype=np.float64))


def _arrived(fields: dict[str, Any]) -> Segment:
    obs = dict(fields["obs"])
    for path, leaf in obs.items():
        if frames.is_stack(leaf.dtype, leaf.shape[1:]):
            obs[path] = frames.join([leaf])  # a copy: one view of Ray's object store would keep a whole offer there
    return Segment(**{**fields, "obs": obs})


def digest(*parts: object) -> str:
    """128-bit hex digest of the parts, stable across processes and machines."""
    text = json.dumps([str(part) for part in parts])
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def segment_id(*, run: str, env_runner: int, episode: str, start: int, length: int) -> str:
    """The id of these steps."""
    return digest(run, env_runner, episode, start, length)


def query_id(*, run: str, purpose: str, segments: tuple[str, str], salt: str = "") -> str:
    """The id of the unordered pair asked for this purpose."""
    return digest(run, purpose, *sorted(segments), salt)


def pair_id(segments: tuple[str, str]) -> str:
    """The id of an unordered pair of segments, whatever the purpose."""
    return digest("pair", *sorted(segments))


@dataclass(frozen=True, kw_only=True, slots=True)
class TeacherContext:
    """What a synthetic teacher may know about the run: the scale of its returns (B-Pref, Lee et al. 2021)."""

    mean_episode_return: float
    """Mean true return of the last ten training episodes."""
    lowest_warmup_return: float
    """Lowest true episode return of the random-policy warm-up."""
    episode_length: float
    """Mean steps of those episodes."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Query:
    """Two segments shown together, not answered yet."""

    id: str
    first: Segment
    second: Segment
    purpose: str = "train"
    strategy: str = "random"
    score: float = 0.0
    """What the selection strategy thought of the pair: higher is asked sooner."""
    reward_version: int | None = None
    """Version whose members scored the pair; None before the first."""
    env_steps: int = 0
    context: TeacherContext | None = None

    def __post_init__(self) -> None:
        if self.first.id == self.second.id:
            raise ValueError(f"query {self.id}: the two segments must differ, got {self.first.id} twice")


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Preference:
    """A query with its settled answer: one training example."""

    query: str
    first: Segment
    second: Segment
    answer: Answer
    labeler: str

    @property
    def target(self) -> float:
        """P(first preferred); ValueError for `incomparable`, which has none."""
        if self.answer not in TARGET:
            raise ValueError(f"query {self.query}: {self.answer} has no target and is never trained on")
        return TARGET[self.answer]


class Teacher(Protocol):
    """Whoever can answer a query in code. None means: skip it, somebody else may know.

    class TallerIsBetter:
        def answer(self, query):
            first, second = (s.obs[""][:, 0].mean() for s in (query.first, query.second))
            return Answer.TIE if first == second else Answer.FIRST if first > second else Answer.SECOND
    """

    def answer(self, query: Query) -> Answer | None: ...


class DecodeError(ValueError):
    """Bytes that are not the record they should be; `data` holds them for whoever looks into it."""

    def __init__(self, message: str, data: bytes) -> None:
        super().__init__(message)
        self.data = data


MAGIC = b"RLHPSEG1"
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


def encode(segment: Segment) -> bytes:
    """Magic, header length, JSON header, deflated arrays. No pickle.

    Of stacked pictures it holds the frames, each once, and `first:` says with which each row's stack begins.
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
    plain = {name: np.ascontiguousarray(a, dtype=a.dtype.newbyteorder("<")) for name, a in arrays.items()}
    header = {
        "fields": {name: getattr(segment, name) for name in _SCALARS},
        "depth": {path: leaf.shape[1] for path, leaf in segment.obs.items() if f"frames:{path}" in arrays},
        "arrays": [[name, array.dtype.str, list(array.shape)] for name, array in plain.items()],
    }
    head = json.dumps(header).encode()
    body = zlib.compress(b"".join(array.tobytes() for array in plain.values()), level=1)
    return MAGIC + struct.pack("<I", len(head)) + head + body


def decode(data: bytes) -> Segment:
    """The segment in `data`; DecodeError (with the data attached) for anything else."""
    if data[: len(MAGIC)] != MAGIC:
        raise DecodeError(f"not an encoded segment: it starts with {data[:8]!r}, not {MAGIC!r}", data)
    try:
        (size,) = struct.unpack_from("<I", data, len(MAGIC))
        start = len(MAGIC) + 4
        header = json.loads(data[start : start + size])
        body = zlib.decompress(data[start + size :])
        arrays: dict[str, Array] = {}
        offset = 0
        for name, dtype_text, shape in header["arrays"]:
            dtype = np.dtype(dtype_text)
            if dtype.hasobject:
                raise ValueError(f"array {name!r} holds objects")
            count = int(np.prod(shape, dtype=np.int64))
            arrays[name] = np.frombuffer(body, dtype=dtype, count=count, offset=offset).reshape(shape)
            offset += count * dtype.itemsize
        if offset != len(body):
            raise ValueError(f"{len(body) - offset} bytes too many")
        obs = {name[4:]: array for name, array in arrays.items() if name.startswith("obs:")}
        for path, depth in header.get("depth", {}).items():
            obs[path] = frames.restack(arrays[f"frames:{path}"], arrays[f"first:{path}"], depth=depth)
        rest: dict[str, Any] = {name: arrays.get(name) for name in ("env_reward", "predicted_reward", "state")}
        return Segment(obs=obs, actions=arrays["actions"], **rest, **header["fields"])
    except (ValueError, KeyError, TypeError, AttributeError, struct.error, zlib.error) as error:
        raise DecodeError(f"a damaged segment: {error}", data) from error
