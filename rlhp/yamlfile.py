"""Strict YAML: what is written is what is read.

The rules are the core schema of YAML 1.2, since the 1.1 rules of PyYAML surprise: there `1e-4` is a
text, `on` and `no` are booleans, `2026-01-02` is a date, and of two equal keys the last wins. Here a
number with an exponent is a number, only true and false are booleans, a date is a text, and a key
written twice is an error with both lines.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import yaml

from rlhp.errors import RlhpError

_RULES = (
    ("null", r"^(?:~|null|Null|NULL|)$", ["~", "n", "N", ""]),
    ("bool", r"^(?:true|True|TRUE|false|False|FALSE)$", list("tTfF")),
    ("int", r"^(?:[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)$", list("-+0123456789")),
    (
        "float",
        r"^(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$",
        list("-+.0123456789"),
    ),
)


class YamlError(RlhpError):
    """Text that is not acceptable YAML; one line per problem."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


class _Loader(yaml.SafeLoader):
    """SafeLoader under the rules above, which replace all of its own."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012  PyYAML's way to configure a loader


class _Dumper(yaml.SafeDumper):
    """Quotes whatever either version of YAML would take for something other than text."""

    yaml_implicit_resolvers = {first: list(rules) for first, rules in yaml.SafeDumper.yaml_implicit_resolvers.items()}  # noqa: RUF012

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def represent_sequence(self, tag: str, sequence: Any, flow_style: bool | None = None) -> yaml.SequenceNode:
        """Lists in one line, groups of keys in one line per key."""
        return super().represent_sequence(tag, sequence, flow_style=True)


def _int(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int:
    text = str(loader.construct_scalar(node))
    return int(text, 0) if text[:2] in ("0o", "0x") else int(text)


for _name, _pattern, _first in _RULES:
    for _class in (_Loader, _Dumper):
        _class.add_implicit_resolver(f"tag:yaml.org,2002:{_name}", re.compile(_pattern), _first)
_Loader.add_constructor("tag:yaml.org,2002:int", _int)


def parse(text: str, *, source: str) -> tuple[Any, dict[str, int]]:
    """The one document in `text`, and the line of each dotted key.

    YamlError lists every problem, each with `source` and its line.
    """
    loader = None
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None, {}
        lines: dict[str, int] = {}
        problems = list(_problems(node, path="", above=(), lines=lines, source=source))
        if problems:
            raise YamlError(problems)
        return loader.construct_document(node), lines
    except yaml.YAMLError as error:
        raise YamlError([_syntax(error, source=source)]) from None
    finally:
        if loader is not None:
            loader.dispose()


def value(text: str, *, source: str) -> Any:
    """The value that `text` would have in a file."""
    return parse(text, source=source)[0]


def show(data: Any) -> str:
    """YAML that `parse` reads back as the same data."""
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, default_flow_style=False, width=110, allow_unicode=True)


def _problems(
    node: yaml.Node, *, path: str, above: tuple[yaml.Node, ...], lines: dict[str, int], source: str
) -> list[str]:
    """Keys written twice, keys that are not text, anchors inside themselves; fills `lines` on the way."""
    where = f"{source} line {node.start_mark.line + 1}"
    if node in above:
        return [f"{where}: an anchor cannot contain itself; write the value out"]
    problems: list[str] = []
    if isinstance(node, yaml.SequenceNode):
        for item in node.value:
            problems += _problems(item, path=path, above=(*above, node), lines={}, source=source)
    if isinstance(node, yaml.MappingNode):
        seen: dict[str, int] = {}
        for key, child in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode) or key.tag != "tag:yaml.org,2002:str":
                problems.append(f"{source} line {line}: a key is a text, got {key.value!r}; put it in quotes")
                continue
            dotted = f"{path}.{key.value}" if path else key.value
            if key.value in seen:
                problems.append(
                    f"{source} line {line}: {dotted} is written twice, first on line {seen[key.value]}; keep one"
                )
            seen.setdefault(key.value, line)
            lines[dotted] = line
            problems += _problems(child, path=dotted, above=(*above, node), lines=lines, source=source)
    return problems


def _syntax(error: yaml.YAMLError, *, source: str) -> str:
    if not isinstance(error, yaml.MarkedYAMLError) or error.problem_mark is None:
        return f"{source}: not YAML: {' '.join(str(error).split())}; save it as plain UTF-8 text"
    problem = error.problem or "it cannot be read"
    way_out = "indent with spaces, not tabs" if "\\t" in problem else "look at the indentation and quotes around it"
    return f"{source} line {error.problem_mark.line + 1}: not YAML: {problem}; {way_out}"
