"""Strict YAML: what is written is what is read.

The rules are the core schema of YAML 1.2, since the 1.1 rules of PyYAML surprise: there
`1e-4` is a text, `on` and `no` are booleans, `2026-01-02` is a date, and of two equal
keys the last wins. Here a number with an exponent is a number, only true and false are
booleans, a date is a text, and a key written twice is an error with both lines. The one
thing kept of 1.1 is the merge key, `<<: *anchor`.

What no person writes is refused before it takes time or memory: text beyond
`MOST_CHARACTERS`, groups deeper than `DEEPEST`, and aliases that together stand for
more than `MOST_VALUES` values.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

import yaml

from rlhp.errors import RlhpError

MOST_CHARACTERS = 1 << 20
MOST_VALUES = 100_000
DEEPEST = 40
_MERGE = "tag:yaml.org,2002:merge"
_COLLECTIONS = ("tag:yaml.org,2002:map", "tag:yaml.org,2002:seq", "tag:yaml.org,2002:str", _MERGE)
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
    depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        """PyYAML composes by recursion, which a deep text would take beyond what Python
        allows.
        """
        self.depth += 1
        if self.depth > DEEPEST:
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.composer.ComposerError(
                None, None, f"groups are at most {DEEPEST} deep", mark
            )
        try:
            return super().compose_node(parent, index)
        finally:
            self.depth -= 1


class _Dumper(yaml.SafeDumper):
    """Quotes whatever either version of YAML would take for something other than text."""

    yaml_implicit_resolvers = {  # noqa: RUF012
        first: list(rules) for first, rules in yaml.SafeDumper.yaml_implicit_resolvers.items()
    }

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def represent_sequence(
        self, tag: str, sequence: Any, flow_style: bool | None = None
    ) -> yaml.SequenceNode:
        """Lists in one line, groups of keys in one line per key."""
        return super().represent_sequence(tag, sequence, flow_style=True)


def _int(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int:
    text = str(loader.construct_scalar(node))
    try:
        return int(text, 0) if text[:2] in ("0o", "0x") else int(text)
    except ValueError:  # Python reads no number of thousands of digits
        raise yaml.constructor.ConstructorError(
            None, None, "a number has too many digits", node.start_mark
        ) from None


for _name, _pattern, _first in _RULES:
    for _class in (_Loader, _Dumper):
        _class.add_implicit_resolver(f"tag:yaml.org,2002:{_name}", re.compile(_pattern), _first)
_Loader.add_constructor("tag:yaml.org,2002:int", _int)
_Loader.add_implicit_resolver(_MERGE, re.compile(r"^<<$"), ["<"])
_PATTERNS = {f"tag:yaml.org,2002:{name}": re.compile(pattern) for name, pattern, _ in _RULES}


def parse(text: str, *, source: str) -> tuple[Any, dict[str, int]]:
    """The one document in `text`, and the line of each dotted key.

    YamlError lists every problem, each with `source` and its line.
    """
    if len(text) > MOST_CHARACTERS:
        raise YamlError(
            [
                f"{source}: has {len(text):,} characters, at most {MOST_CHARACTERS:,} are read; "
                "shorten it"
            ]
        )
    loader = None
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None, {}
        lines: dict[str, int] = {}
        problems = _oversized(node, source=source)
        problems = problems or _problems(node, path="", above=(), lines=lines, source=source)
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
    return yaml.dump(
        data,
        Dumper=_Dumper,
        sort_keys=False,
        default_flow_style=False,
        width=110,
        allow_unicode=True,
    )


def _oversized(node: yaml.Node, *, source: str) -> list[str]:
    """Whether a node holds itself, or more values than anybody writes once its aliases
    are written out.
    """
    sizes: dict[int, float] = {}
    circles: list[str] = []

    def size(node: yaml.Node) -> float:
        if id(node) not in sizes:
            sizes[id(node)] = math.inf  # so that what holds itself is found
            children: list[Any] = node.value if isinstance(node, yaml.CollectionNode) else []
            pairs = isinstance(node, yaml.MappingNode)
            sizes[id(node)] = 1 + sum(
                sum(map(size, child)) if pairs else size(child) for child in children
            )
            if sizes[id(node)] == math.inf and not circles:
                line = node.start_mark.line + 1
                circles.append(
                    f"{source} line {line}: an anchor cannot contain itself; write the value out"
                )
        return sizes[id(node)]

    total = size(node)
    if circles or total <= MOST_VALUES:
        return circles
    return [
        f"{source}: its aliases stand for {total:,.0f} values, at most {MOST_VALUES:,} are taken; "
        "write them out"
    ]


def _problems(
    node: yaml.Node, *, path: str, above: tuple[yaml.Node, ...], lines: dict[str, int], source: str
) -> list[str]:
    """Keys written twice, keys that are not text, anchors inside themselves; fills
    `lines` on the way.
    """
    where = f"{source} line {node.start_mark.line + 1}"
    problems: list[str] = []
    if node.tag not in _COLLECTIONS and not (
        isinstance(node, yaml.ScalarNode)
        and node.tag in _PATTERNS
        and _PATTERNS[node.tag].match(node.value)
    ):
        return [
            f"{where}: {str(node.value)[:40]!r} cannot be taken as {node.tag!r}; write it without "
            "the tag"
        ]
    if isinstance(node, yaml.SequenceNode):
        for item in node.value:
            problems += _problems(item, path=path, above=(*above, node), lines={}, source=source)
    if isinstance(node, yaml.MappingNode):
        seen: dict[str, int] = {}
        for key, child in node.value:
            line = key.start_mark.line + 1
            if key.tag == _MERGE:
                problems += _merged(
                    child, path=path, above=(*above, node), lines=lines, source=source
                )
                continue
            if not isinstance(key, yaml.ScalarNode) or key.tag != "tag:yaml.org,2002:str":
                problems.append(
                    f"{source} line {line}: a key is a text, got {key.value!r}; put it in quotes"
                )
                continue
            dotted = f"{path}.{key.value}" if path else key.value
            if key.value in seen:
                problems.append(
                    f"{source} line {line}: {dotted} is written twice, first on line "
                    f"{seen[key.value]}; keep one"
                )
            seen.setdefault(key.value, line)
            lines[dotted] = line
            problems += _problems(
                child, path=dotted, above=(*above, node), lines=lines, source=source
            )
    return problems


def _merged(
    node: yaml.Node, *, path: str, above: tuple[yaml.Node, ...], lines: dict[str, int], source: str
) -> list[str]:
    """The problems of what a merge key names; its keys are on the lines on which they
    are written.
    """
    groups = node.value if isinstance(node, yaml.SequenceNode) else [node]
    problems = []
    for group in groups:
        if not isinstance(group, yaml.MappingNode):
            line = node.start_mark.line + 1
            return [
                f"{source} line {line}: a merge key takes a group of keys, or a list of them, as "
                "in <<: *anchor"
            ]
        found: dict[str, int] = {}
        problems += _problems(group, path=path, above=above, lines=found, source=source)
        for name, line in found.items():
            lines.setdefault(name, line)
    return problems


def _syntax(error: yaml.YAMLError, *, source: str) -> str:
    if not isinstance(error, yaml.MarkedYAMLError) or error.problem_mark is None:
        return f"{source}: not YAML: {' '.join(str(error).split())}; save it as plain UTF-8 text"
    problem = error.problem or "it cannot be read"
    way_out = (
        "indent with spaces, not tabs"
        if "\\t" in problem
        else "look at the indentation and quotes around it"
    )
    return f"{source} line {error.problem_mark.line + 1}: not YAML: {problem}; {way_out}"
