"""Configuration in, configuration out: a YAML file, what it extends, and `--set
key=value` on top.

Every problem of a configuration is reported at once, one line each; see
`rlhp.config.errors` for their form.

    # mine.yaml
    extends: configs/halfcheetah.yaml    # relative to this file
    labels: {budget: 350}                # mappings are merged, everything else is replaced

`--set` merges groups of keys too, but what a user passes on as a mapping of their own
(`env.kwargs` and the like) it replaces as a whole: `--set env.kwargs={}` clears it,
`--set env.kwargs.size=3` changes one entry.
"""

from __future__ import annotations

import copy
import difflib
import hashlib
import json
import logging
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from rlhp import files
from rlhp.config import errors, yamlfile
from rlhp.config.addresses import redact
from rlhp.config.schema import RunConfig, TeacherConfig
from rlhp.errors import RlhpError

LONGEST_CHAIN = 20
"""A chain of files that extend each other may be this long."""
MOST_BYTES = 4 * yamlfile.MOST_CHARACTERS
GONE = {
    "clips.crf": 32,
    "reward.l2_high": 1.5,
    "reward.l2_low": 1.1,
    "rollout.label_timeout_seconds": 60,
    "rollout.reward_timeout_seconds": 60,
}
"""Keys that nothing reads any more, each with what holds now. Run directories of
earlier versions name them.
"""

_log = logging.getLogger(__name__)


class ConfigError(RlhpError):
    """A configuration that cannot run; one line per problem."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(redact(problem) for problem in problems)
        super().__init__("\n".join(self.problems))


def load(path: str | Path, *, sets: Sequence[str] = ()) -> RunConfig:
    """The configuration in `path` with `sets` ("a.b=value", parsed like the file) on
    top.

    ConfigError names every problem at once.
    """
    try:
        data, places = _read(Path(path), above=())
        return parse(data, sets=sets, places=places)
    except yamlfile.YamlError as error:
        raise ConfigError(error.problems) from None


def load_data(path: str | Path, *, without: str) -> tuple[dict[str, Any], Any]:
    """The plain data in `path` and what it extends, without one top-level key, and that
    key's own value.

    ConfigError where a file cannot be read; nothing is checked yet.
    """
    try:
        data, _ = _read(Path(path), above=())
    except yamlfile.YamlError as error:
        raise ConfigError(error.problems) from None
    return data, data.pop(without, None)


def parse(
    data: Mapping[str, Any], *, sets: Sequence[str] = (), places: Mapping[str, str] | None = None
) -> RunConfig:
    """The configuration in plain data; `places` says where each dotted key was written."""
    merged: dict[str, Any] = copy.deepcopy(dict(data))
    where = dict(places or {})
    wrong: list[str] = []
    for text in sets:
        try:
            name, value = _assignment(text)
        except ValueError as error:
            wrong.append(str(error))
            continue
        merged = _merge(merged, _nested(name, value), whole=_free_below(name))
        where[name] = f"--set {name}"
    merged = _without_empty_groups(_without_gone(merged))
    wrong += errors.booleans_for_numbers(merged, places=where)
    try:
        config = RunConfig.model_validate(merged)
    except ValidationError as error:
        raise ConfigError([*wrong, *errors.problems(error, merged, places=where)]) from None
    if wrong:
        raise ConfigError(wrong)
    return config


def teacher(start: TeacherConfig, *, sets: Sequence[str] = ()) -> TeacherConfig:
    """`start` with "key=value" on top; the keys are those below `labels.teacher`."""
    data, prefix = start.model_dump(), "labels.teacher."
    try:
        for text in sets:
            name, value = _assignment(text, option="--set-teacher")
            whole = {free.removeprefix(prefix) for free in _free_below(prefix + name)}
            data = _merge(data, _nested(name, value), whole=whole)
        return TeacherConfig.model_validate(data)
    except ValidationError as error:
        raise ConfigError(errors.problems(error, data, places={}, prefix=prefix)) from None


def dump(config: RunConfig) -> str:
    """YAML that `load` reads back as the same configuration, except that passwords are
    replaced by ***.
    """
    return yamlfile.show(_plain(config))


def sha256(config: RunConfig, *, without: Collection[str] = ()) -> str:
    """Hex digest of the configuration; the top-level keys in `without` do not count."""
    plain = {name: value for name, value in _plain(config).items() if name not in without}
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def flat(config: RunConfig) -> dict[str, Any]:
    """Dotted key -> value, passwords replaced."""
    plain = _plain(config)
    found = {}
    for key in errors.keys_of(config.learner.algorithm):
        value: Any = plain
        for part in key.name.split("."):
            value = value[part]
        found[key.name] = value
    return found


def _plain(config: RunConfig) -> dict[str, Any]:
    plain = config.model_dump(mode="json")
    if config.redis.url is not None:
        plain["redis"]["url"] = redact(config.redis.url)
    return plain


def _read(path: Path, *, above: tuple[Path, ...]) -> tuple[dict[str, Any], dict[str, str]]:
    """The data of a file merged over the file it extends, and where each dotted key was
    written.
    """
    real = path.resolve()
    if real in above:
        chain = " -> ".join(str(file.name) for file in (*above, real))
        raise ConfigError(
            [f"extends: files cannot extend each other in a circle, got {chain}; take one out"]
        )
    if len(above) > LONGEST_CHAIN:
        raise ConfigError(
            [
                f"extends: files extend each other in a chain of at most {LONGEST_CHAIN}, got "
                f"{above[0].name} and so on to {path.name}; join some of them"
            ]
        )
    try:
        text = files.read_regular(path, most=MOST_BYTES).decode()
    except OSError as error:
        raise ConfigError([_unreadable(path, error, above)]) from None
    except UnicodeDecodeError:
        raise ConfigError(
            [f"{path}: not a text file; give a YAML file such as configs/pendulum.yaml"]
        ) from None
    except RlhpError as error:
        raise ConfigError([str(error)]) from None
    data, lines = yamlfile.parse(text, source=path.name)
    if data is None:
        data = {}
    if not isinstance(data, dict):
        raise ConfigError(
            [f"{path}: a configuration is a mapping of keys to values, got {type(data).__name__}"]
        )
    places = {name: f"{path.name} line {line}" for name, line in lines.items()}
    parent = data.pop("extends", None)
    places.pop("extends", None)
    if parent is None:
        return data, places
    if not isinstance(parent, str):
        raise ConfigError(
            [f"extends: must be the path of one file, got {parent!r}; files may extend in a chain"]
        )
    inherited, inherited_places = _read(path.parent / parent, above=(*above, real))
    return _merge(inherited, data), inherited_places | places


def _unreadable(path: Path, error: OSError, above: tuple[Path, ...]) -> str:
    named = f"extends: {path} (named in {above[-1].name})" if above else str(path)
    if not isinstance(error, FileNotFoundError):
        return f"{named}: cannot be read: {error.strerror}"
    there = (
        [file.name for file in sorted(path.parent.glob("*.yaml"))] if path.parent.is_dir() else []
    )
    close = difflib.get_close_matches(path.name, there, n=1, cutoff=0.5)
    guess = f"did you mean {path.parent / close[0]}?" if close else "see configs/ for examples"
    return f"{named}: no such config file; {guess}"


def _assignment(text: str, *, option: str = "--set") -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    name = name.strip()
    if not equals or not name or not all(name.split(".")) or name.count(".") > yamlfile.DEEPEST:
        raise ConfigError(
            [
                f"{option}: takes key=value with a dotted key, got {text!r}; for example "
                "learner.lr=1e-4"
            ]
        )
    try:
        return name, yamlfile.value(value, source=f"{option} {name}")
    except yamlfile.YamlError as error:
        raise ConfigError(error.problems) from None


def _nested(name: str, value: Any) -> dict[str, Any]:
    for part in reversed(name.split(".")):
        value = {part: value}
    return dict(value)


def _free_below(name: str) -> set[str]:
    """The keys at or below `name` whose value is a mapping of the user's own."""
    free = {key.name for key in errors.all_keys() if key.type == "mapping"}
    return {key for key in free if f"{key}.".startswith(f"{name}.")}


def _merge(
    below: Mapping[str, Any],
    above: Mapping[str, Any],
    *,
    whole: Collection[str] = (),
    prefix: str = "",
) -> dict[str, Any]:
    """Mappings merge key by key, but for those named in `whole`, and an empty group
    changes nothing.

    Whatever is no mapping replaces what was there.
    """
    merged = dict(below)
    for name, value in above.items():
        old = merged.get(name)
        if isinstance(old, Mapping) and isinstance(value, Mapping) and prefix + name not in whole:
            merged[name] = _merge(old, value, whole=whole, prefix=f"{prefix}{name}.")
        elif not (isinstance(old, Mapping) and value is None):
            merged[name] = value
    return merged


def _without_gone(data: Mapping[str, Any]) -> dict[str, Any]:
    """The keys without those in `GONE`, whose values are told where another one holds
    now.
    """
    out = dict(data)
    for name, now in GONE.items():
        section, _, key = name.partition(".")
        group = out.get(section)
        if isinstance(group, Mapping) and key in group:
            out[section] = {other: value for other, value in group.items() if other != key}
            if group[key] != now:
                said = f"{name}={group[key]!r} is ignored: this key is gone, and {now} holds now"
                _log.warning("%s; take it out", redact(said))
    return out


def _without_empty_groups(data: Mapping[str, Any]) -> dict[str, Any]:
    """A group whose keys are all commented out reads as null: take it as a group
    without keys.
    """
    out = {"env": None, **data}  # so that `env.id` is what is missing, not all of `env`
    for name in errors.sections():
        parent: Any = out
        *path, last = name.split(".")
        for part in path:
            parent = parent.get(part) if isinstance(parent, dict) else None
        if isinstance(parent, dict) and last in parent and parent[last] is None:
            parent[last] = {}
    return out
