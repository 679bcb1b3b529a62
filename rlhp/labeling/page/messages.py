"""What goes over the wire, both ways: every request is checked here, every reply has
its shape from here.

An unknown field is an error, so a misspelled one is told and not ignored.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat

from rlhp.monitor.diagnosis import Kind
from rlhp.queue.records import RunState
from rlhp.types import Answer

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$", max_length=64)]
"""Of a labeler or of a page; a page is one open tab and makes its own up."""
QueryId = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$", max_length=128)]
Token = Annotated[int, Field(ge=1, le=2**53)]
Revision = Annotated[int, Field(ge=1, le=10_000)]
OnScreen = Literal["left", "right", "third", "fourth"]
"""A candidate, by where it stands from left to right."""
Choice = OnScreen | Literal["tie", "incomparable"]
Strength = Literal["slight", "clear"]


class Message(BaseModel):
    """Strict both ways: no unknown fields, no text where a number belongs."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class LogIn(Message):
    """The token from the address bar."""

    token: Annotated[str, Field(min_length=1, max_length=200)]


class Page(Message):
    """A call in the name of one tab."""

    page: Name


class Answered(Page):
    """An answer; repeating it changes nothing."""

    query: QueryId
    token: Token
    rev: Revision = 1
    choice: Choice
    strength: Strength | None = None
    note: Annotated[str, Field(max_length=500)] | None = None
    latency_ms: Annotated[int, Field(ge=0, le=2**31 - 1)] = 0
    replays: Annotated[int, Field(ge=0, le=2**15 - 1)] = 0
    kind: Literal["human", "script"] = "human"
    """`script` where a program of the labeler's answers through this interface."""


class Skipped(Page):
    """A query left to others."""

    query: QueryId
    token: Token


class Undone(Page):
    """Take an answer back: the newest of this labeler, or the one named, which may be
    repeated safely.
    """

    query: QueryId | None = None
    rev: Revision | None = None


class Corrected(Message):
    """An admin's answer in the place of a labeler's."""

    query: QueryId
    labeler: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._@+-]{0,79}$", max_length=80)]
    answer: Literal["first", "second", "tie", "incomparable"]


class Reply(BaseModel):
    """What the server says."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Problem(Reply):
    """Every refusal."""

    error: str


class Who(Reply):
    """Whose session this is."""

    labeler: str
    admin: bool


class Given(Reply):
    """An answer that can be undone, by name."""

    query: str
    rev: int


class Run(Reply):
    """The run, and how its page behaves."""

    run: str
    env: str
    instruction: str
    state: RunState
    labeler: str
    admin: bool
    fps: float
    strength: bool
    undo_depth: int
    history: list[Given]
    """The newest answers of this labeler that can be undone, newest first."""
    heartbeat_seconds: float


class Waiting(Reply):
    """Why there is nothing to answer now."""

    reason: Kind
    detail: str


class Progress(Reply):
    """How far the run and this labeler are."""

    answered: int
    mine: int
    budget: int | None
    open: int
    pending: int
    per_minute: float
    waiting: Waiting | None
    """None while somebody could lease a query."""
    env_steps: int
    reward_version: int


class LeaseOut(Reply):
    """One query lent to one page."""

    query: str
    token: int
    rev: int
    """To be shown with the answer, like the token: 1, unless this labeler's answer to
    it was undone before.
    """
    left: str
    right: str
    candidates: list[str]
    """The addresses of all clips from left to right, with those of `left` and `right` in
    front.
    """
    deadline_ms: int


class Leases(Reply):
    """What this page holds now: the one to show, and the one to fetch ahead."""

    leases: list[LeaseOut]
    waiting: Waiting | None
    progress: Progress


class Extended(Reply):
    """After a heartbeat."""

    extended: int


class Released(Reply):
    """After a page closed."""

    released: int


class Outcome(Reply):
    """What became of an answer, in a word of the queue and in a sentence."""

    status: str
    message: str
    progress: Progress


class SkipOutcome(Reply):
    """What became of a skip."""

    status: str
    message: str


class UndoOutcome(Reply):
    """What became of an undo, and what to answer again with."""

    status: str
    message: str
    lease: LeaseOut | None
    choice: Choice | None
    """What was taken back."""


class LabelerRow(Reply):
    """One labeler's work, as an admin sees it."""

    name: str
    ok: int
    late: int
    extra: int
    skipped: int
    side_bias: float | None
    """Share of `left` among the answers that chose a side."""
    gold_right: int
    gold_asked: int
    agreement: float | None
    """Share of shared queries on which the others agree."""
    median_seconds: float | None
    weight: float
    state: str
    """`ok`, `watch` or `paused`."""
    reason: str
    """Why it is not ok."""
    idle_seconds: float | None
    """Since it was last heard of; None where it never was."""


class LabelerRows(Reply):
    """Everybody who was ever seen, or has a token."""

    labelers: list[LabelerRow]


class ClipPair(Reply):
    """Where the two clips are."""

    first: str
    second: str


class PreferenceRow(Reply):
    """One answer that stands."""

    query: str
    labeler: str
    choice: Answer
    at: str
    shown_left: Literal["first", "second"] | None
    """Of a pair."""
    latency_ms: int | None
    strength: float | None
    note: str | None
    clips: ClipPair | None


class PreferenceRows(Reply):
    """A page of the log, newest first."""

    total: int
    items: list[PreferenceRow]


class Correction(Reply):
    """What became of a correction."""

    status: str
    message: str


class MetricRows(Reply):
    """Rows of metrics.jsonl from `since` on; ask again with `next`."""

    rows: list[dict[str, Any]]
    next: int


class PolicyClip(Reply):
    """The newest clip of the policy and what the reward model says about each of its
    frames.
    """

    video: str | None = None
    predicted: list[FiniteFloat] | None = None
    env_steps: int | None = None
    """How long the policy of the clip had learned."""
    reward_version: int | None = None
    """Of the predictions."""
