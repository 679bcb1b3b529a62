"""Every dotted key of a run's configuration, and what to say when one of them is wrong.

A problem is one line: `dotted.key: rule, got VALUE (where); way out`.
"""

from __future__ import annotations

import copy
import difflib
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from rlhp.config.addresses import redact
from rlhp.config.schema import LEARNERS, LearnerConfig, RunConfig

MOST_LINES = 20
"""So many wrong keys get a line each. A file with more is another program's, and nobody
would read all of them.
"""

HABITS = {
    "clip_length": "query.segment_length",
    "fragment_length": "query.segment_length",
    "segment": "query.segment_length",
    "size_segment": "query.segment_length",
    "total_comparisons": "labels.budget",
    "max_feedback": "labels.budget",
    "n_labels": "labels.budget",
    "initial_comparison_frac": "labels.initial_share",
    "pretrain_labels": "labels.initial_share",
    "query_schedule": "labels.schedule",
    "predictor": "labels.source",
    "feed_type": "query.selection",
    "max_queue_size": "query.max_open",
    "teacher_beta": "labels.teacher.beta",
    "teacher_gamma": "labels.teacher.gamma",
    "teacher_eps_mistake": "labels.teacher.mistake",
    "teacher_eps_skip": "labels.teacher.skip",
    "teacher_eps_equal": "labels.teacher.equal",
    "ensemble_size": "reward.members",
    "reward_lr": "reward.lr",
    "reward_batch": "reward.batch_size",
    "total_timesteps": "learner.total_env_steps",
    "num_train_steps": "learner.total_env_steps",
    "env_id": "env.id",
    "env_name": "env.id",
    "num_workers": "rollout.num_env_runners",
}
"""Names people bring from imitation, B-Pref, rl-teacher and
learning-from-human-preferences.
"""

_RULE = {
    "missing": "is required",
    "greater_than": "must be greater than {gt:g}",
    "greater_than_equal": "must be at least {ge:g}",
    "less_than": "must be less than {lt:g}",
    "less_than_equal": "must be at most {le:g}",
    "literal_error": "must be one of {expected}",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "finite_number": "must be a finite number",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "string_type": "must be text",
    "string_pattern_mismatch": "must match {pattern}",
    "dict_type": "must be a mapping of keys to values",
    "model_type": "must be a group of keys",
    "model_attributes_type": "must be a group of keys",
    "tuple_type": "must be a list",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Key:
    """One key of the configuration, as a reader of the documentation sees it."""

    name: str
    """Dotted, as written after `--set`."""
    type: str
    default: Any
    required: bool
    meaning: str
    number: bool
    """Takes a number and no boolean."""
    algorithm: str | None = None
    """Of which `learner.algorithm` alone it is a key; None: it is one of every run."""


def algorithm_in(data: Mapping[str, Any]) -> str:
    """The `learner.algorithm` of plain data, also where there is no such algorithm."""
    learner = data.get("learner")
    return str(learner.get("algorithm", "ppo")) if isinstance(learner, Mapping) else "ppo"


def keys_of(algorithm: str) -> list[Key]:
    """Every key of a run whose learner is this one."""
    return [key for key in all_keys() if key.algorithm in (None, algorithm)]


def all_keys(model: type[BaseModel] = RunConfig, *, prefix: str = "") -> list[Key]:
    """Every key below `model` in the order of declaration, depth first; those of the
    learner's algorithms after those that every learner has.
    """
    found: list[Key] = []
    for name, field in model.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            found += all_keys(inner, prefix=f"{prefix}{name}.")
            continue
        found.append(
            Key(
                name=prefix + name,
                type=_type(field),
                default=None
                if field.is_required()
                else field.get_default(call_default_factory=True),
                required=field.is_required(),
                meaning=field.description or "",
                number=not {int, float}.isdisjoint(_parts(inner)),
            )
        )
    if model is LearnerConfig:
        found[0] = replace(found[0], type=" or ".join(f"`{name}`" for name in LEARNERS))
        common = {key.name for key in found}
        found += [
            replace(key, algorithm=algorithm)
            for algorithm, learner in LEARNERS.items()
            for key in all_keys(learner, prefix=prefix)
            if key.name not in common
        ]
    return found


def sections(model: type[BaseModel] = RunConfig, *, prefix: str = "") -> dict[str, type[BaseModel]]:
    """Dotted name of every group of keys below `model` -> its class."""
    found: dict[str, type[BaseModel]] = {}
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            found[prefix + name] = field.annotation
            found |= sections(field.annotation, prefix=f"{prefix}{name}.")
    if model is LearnerConfig:
        for learner in LEARNERS.values():
            found |= sections(learner, prefix=prefix)
    return found


def problems(
    error: ValidationError, data: Mapping[str, Any], *, places: Mapping[str, str], prefix: str = ""
) -> list[str]:
    """One line per problem: those of single keys first, then the rules across keys.

    pydantic asks the rules across keys only once every key is valid. So they are asked
    again without the bad keys, and a rule that speaks of one of those stays silent.
    """
    details = error.errors(include_url=False)
    single = [detail for detail in details if detail["loc"]]
    across = [detail for detail in details if not detail["loc"]]
    algorithm = algorithm_in(data)
    foreign = [detail for detail in single if _others(detail, algorithm)]
    own = [detail for detail in single if detail not in foreign]
    lines = _foreign_line(foreign, algorithm, places) if foreign else []
    lines += [
        _line(detail, algorithm=algorithm, places=places, prefix=prefix)
        for detail in own[:MOST_LINES]
    ]
    if len(own) > MOST_LINES:
        more = [prefix + _dotted(detail["loc"]) for detail in own[MOST_LINES:]]
        lines.append(
            f"{len(more):,} more keys are wrong, from {more[0]} to {more[-1]}; correct those "
            "above first"
        )
    if single and error.title == RunConfig.__name__:
        bad = {_dotted(detail["loc"]) for detail in single}
        rules = (rule for detail in _across(data, single) for rule in _split(detail))
        lines += [rule for rule in rules if not any(f"{name}=" in rule for name in bad)]
    return lines + [rule for detail in across for rule in _split(detail)]


def booleans_for_numbers(data: Mapping[str, Any], *, places: Mapping[str, str]) -> list[str]:
    """True and false where a number belongs: pydantic alone would read them as 1 and 0."""
    found = []
    for key in keys_of(algorithm_in(data)):
        value: Any = data
        for part in key.name.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        if key.number and isinstance(value, bool):
            found.append(
                f"{key.name}: must be a {key.type}, got "
                f"{str(value).lower()}{_place(key.name, places)}; {_default_of(key)}"
            )
    return found


def _others(detail: ErrorDetails, algorithm: str) -> list[str]:
    """The other algorithms whose key this unknown key is."""
    if detail["type"] != "extra_forbidden":
        return []
    name = _dotted(detail["loc"])
    groups = {key.algorithm for key in all_keys() if f"{key.name}.".startswith(f"{name}.")}
    return sorted(group for group in groups if group not in (None, algorithm))


def _foreign_line(
    details: Sequence[ErrorDetails], algorithm: str, places: Mapping[str, str]
) -> list[str]:
    """One line for all keys of other algorithms: a file that changes the algorithm of
    another has dozens.
    """
    names = [_dotted(detail["loc"]) for detail in details]
    owners = sorted({owner for detail in details for owner in _others(detail, algorithm)})
    many = "" if len(names) == 1 else f" and {len(names) - 1} more"
    return [
        f"{names[0]}{many}: of learner.algorithm={' or '.join(owners)}, got "
        f"{_show(details[0]['input'])}{_place(names[0], places)} with "
        f"learner.algorithm={algorithm}; take {'it' if len(names) == 1 else 'them'} out, or set "
        f"learner.algorithm={owners[0]}"
    ]


def suggestion(name: str, *, algorithm: str) -> str:
    """Where an unknown dotted key probably belongs."""
    leaf = name.rsplit(".", 1)[-1]
    if leaf in HABITS:
        return f"here it is called {HABITS[leaf]}"
    known = [key.name for key in keys_of(algorithm)]
    close = [key for key in known if key.rsplit(".", 1)[-1] == leaf] or _closest(
        name, [*known, *sections()]
    )
    if not close:
        leaves = _closest(leaf, [key.rsplit(".", 1)[-1] for key in known])
        close = [key for key in known if key.rsplit(".", 1)[-1] in leaves]
    if close:
        return f"did you mean {' or '.join(close[:3])}?"
    parent = name.rpartition(".")[0]
    group = RunConfig if not parent else sections().get(parent)
    if group is LearnerConfig:
        group = LEARNERS.get(algorithm)
    if group is None:
        return "docs/configuration.md lists every key"
    return f"the keys of {parent or 'a run'} are {', '.join(group.model_fields)}"


def _closest(word: str, candidates: Sequence[str]) -> list[str]:
    """The candidate most like `word`, with those that are about as close; none when
    nothing is.
    """
    ratios = {
        candidate: difflib.SequenceMatcher(None, word, candidate).ratio()
        for candidate in candidates
    }
    best = max(ratios.values())
    return (
        [candidate for candidate, ratio in ratios.items() if ratio > best - 0.02]
        if best >= 0.75
        else []
    )


def _line(detail: ErrorDetails, *, algorithm: str, places: Mapping[str, str], prefix: str) -> str:
    name = prefix + _dotted(detail["loc"])
    kind = detail["type"]
    if kind == "extra_forbidden":
        chosen = f" with learner.algorithm={algorithm}" if name.startswith("learner.") else ""
        return (
            f"{name}: unknown key, got {_show(detail['input'])}{_place(name, places)}{chosen}; "
            f"{suggestion(name, algorithm=algorithm)}"
        )
    if kind == "value_error":  # raised by a check of ours, which says value and way out itself
        return f"{name}: {detail['msg'].removeprefix('Value error, ')}{_place(name, places)}"
    rule = _RULE[kind].format(**detail.get("ctx", {})) if kind in _RULE else detail["msg"]
    if kind == "missing":
        key = _find(name)
        return f"{name}: {rule}, got nothing; set it" + (f" ({key.meaning})" if key else "")
    return (
        f"{name}: {rule}, got {_show(detail['input'])}{_place(name, places)}; "
        f"{_way_out(name, detail)}"
    )


def _way_out(name: str, detail: ErrorDetails) -> str:
    key = _find(name.partition("[")[0])
    if detail["type"] == "literal_error" and isinstance(detail["input"], str) and key is not None:
        choices = [word.strip("`") for word in key.type.split(" or ")]
        close = difflib.get_close_matches(detail["input"], choices, n=1)
        if close:
            return f"did you mean {close[0]}?"
    if key is not None:
        return _default_of(key)
    group = sections().get(name)
    return (
        f"its keys are {', '.join(group.model_fields)}"
        if group
        else "docs/configuration.md says what it takes"
    )


def _default_of(key: Key) -> str:
    return "it has no default" if key.required else f"the default is {_show(key.default)}"


def _find(name: str) -> Key | None:
    return next((key for key in all_keys() if key.name == name), None)


def _across(data: Mapping[str, Any], bad: list[ErrorDetails]) -> Iterator[ErrorDetails]:
    """The rules across keys broken by what is left of `data` without its bad keys."""
    rest = copy.deepcopy(dict(data))
    for detail in bad:
        names = [part for part in detail["loc"] if isinstance(part, str)]
        parent: Any = rest
        for part in names[:-1]:
            parent = parent.setdefault(part, {}) if isinstance(parent, dict) else None
        if isinstance(parent, dict):
            parent.pop(names[-1], None)
    if not isinstance(rest.get("env"), dict) or not isinstance(rest["env"].get("id"), str):
        rest["env"] = {"id": "missing"}
    try:
        RunConfig.model_validate(rest)
    except ValidationError as error:
        yield from (detail for detail in error.errors(include_url=False) if not detail["loc"])


def _split(detail: ErrorDetails) -> list[str]:
    return detail["msg"].removeprefix("Value error, ").split(" | ")


def _dotted(loc: tuple[int | str, ...]) -> str:
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in loc)
    return text.removeprefix(".")


def _place(name: str, places: Mapping[str, str]) -> str:
    """` (file line n)` of the key, or of the nearest key above it."""
    name = name.partition("[")[0]
    while name and name not in places:
        name = name.rpartition(".")[0]
    return f" ({places[name]})" if name else ""


def _show(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, tuple):
        value = list(value)
    text = redact(repr(value))  # before it is cut short, since of half an address nobody could tell
    return text if len(text) <= 60 else text[:57] + "..."


def _parts(annotation: Any) -> tuple[Any, ...]:
    """The members of a union, or the one type itself."""
    if isinstance(annotation, types.UnionType) or typing.get_origin(annotation) is typing.Union:
        return typing.get_args(annotation)
    return (annotation,)


def _type(field: FieldInfo) -> str:
    """The type of a field in words, with its bounds: `number > 0 or null`."""
    bounds = [
        f"{sign} {getattr(rule, name):g}"
        for rule in field.metadata
        for name, sign in (("gt", ">"), ("ge", ">="), ("lt", "<"), ("le", "<="))
        if isinstance(getattr(rule, name, None), (int, float))
    ]
    words = []
    for part in _parts(field.annotation):
        if typing.get_origin(part) is typing.Literal:
            words += [f"`{choice}`" for choice in typing.get_args(part)]
        else:
            plain = {
                int: "whole number",
                float: "number",
                bool: "true or false",
                str: "text",
                type(None): "null",
            }
            lists = {tuple[int, ...]: "list of whole numbers", tuple[str, ...]: "list of texts"}
            word = (plain | lists).get(part, "mapping")
            words.append(
                f"{word} {' and '.join(bounds)}" if bounds and part in (int, float) else word
            )
    return " or ".join(words)
