"""Requests as an enemy would make them, drawn from what the server says about itself at
/openapi.json.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from hypothesis import strategies as st

NASTY = [
    "",
    "\x00",
    "../../etc/passwd",
    "..\\..\\x",
    "%2e%2e%2f",
    "<script>alert(1)</script>",
    "'\"><img src=x onerror=x>",
    "q0",
    "q1",
    "tab-1",
    "local",
    "*",
    "?",
    "a" * 5000,
    "\u202e\u0000",
    "\ud800",
    "{}:answers",
    "rlhp:{x}:meta",
    "'; return redis.call('FLUSHALL') --",
    "1e400",
    "-0",
    "null",
    "\r\nSet-Cookie: x=1",
    "é" * 130,
    "labeler/other",
]
NUMBERS = [
    0,
    -1,
    1,
    2,
    2**31,
    2**53,
    2**53 + 1,
    2**63,
    2**64,
    10**400,
    0.5,
    1e308,
    float("nan"),
    float("inf"),
]

atoms = st.one_of(
    st.none(), st.booleans(), st.sampled_from(NUMBERS), st.sampled_from(NASTY), st.text(max_size=20)
)
anything = st.recursive(
    atoms,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.sampled_from(NASTY), inner, max_size=4)
    ),
    max_leaves=6,
)


@dataclass(frozen=True, kw_only=True)
class Operation:
    """One route and method."""

    method: str
    path: str
    places: Mapping[str, Mapping[str, Any]]
    """Schemas of the parameters in the path."""
    query: Mapping[str, Mapping[str, Any]]
    body: Mapping[str, Any] | None = field(default=None)
    """Schema of the body, resolved."""


def operations(described: Mapping[str, Any]) -> list[Operation]:
    """All operations of an OpenAPI document."""
    schemas = described["components"]["schemas"]
    found = []
    for path, methods in described["paths"].items():
        for method, about in methods.items():
            named = [
                (each["in"], each["name"], each["schema"]) for each in about.get("parameters", [])
            ]
            content = about.get("requestBody", {}).get("content", {}).get("application/json", {})
            reference = content.get("schema", {}).get("$ref", "").rpartition("/")[2]
            found.append(
                Operation(
                    method=method.upper(),
                    path=path,
                    places={name: schema for where, name, schema in named if where == "path"},
                    query={name: schema for where, name, schema in named if where == "query"},
                    body=schemas[reference] if reference else None,
                )
            )
    return found


@dataclass(frozen=True, kw_only=True)
class Attack:
    """One request, ready to be sent."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes | None


@st.composite
def attacks(draw: st.DrawFn, known: list[Operation], *, token: str) -> Attack:
    """A request that is almost right, or not at all."""
    operation = draw(st.sampled_from(known))
    path = operation.path
    for name, schema in operation.places.items():
        path = path.replace(f"{{{name}}}", draw(_words(schema)))
    if operation.query:
        path += "?" + "&".join(
            f"{name}={draw(_words(schema))}" for name, schema in operation.query.items()
        )
    method = (
        operation.method if _most(draw) else draw(st.sampled_from(["GET", "POST", "PUT", "DELETE"]))
    )
    headers = {"Authorization": f"Bearer {token}"}
    if not _most(draw):
        headers = draw(
            st.sampled_from(
                [
                    {},
                    {"Authorization": "Bearer x"},
                    {"Authorization": token},
                    {"Cookie": 'rlhp_session="; x=\\'},
                    {**headers, "Content-Type": "text/plain"},
                    {**headers, "Host": "evil.example"},
                    {**headers, "Content-Encoding": "gzip"},
                    {"Authorization": f"bearer  {token}"},
                ]
            )
        )
    body = draw(_bodies(operation.body)) if operation.body is not None or method != "GET" else None
    if body is not None:
        headers = {"Content-Type": "application/json", **headers}
    return Attack(method=method, path=path, headers=headers, body=body)


def _most(draw: st.DrawFn) -> bool:
    """True nine times out of ten: an enemy gets further with few mistakes at a time."""
    return draw(st.integers(0, 9)) > 0


@st.composite
def _words(draw: st.DrawFn, schema: Mapping[str, Any]) -> str:
    """A parameter as it stands in an address."""
    word = (
        draw(_near(schema))
        if _most(draw)
        else draw(st.one_of(st.sampled_from(NASTY), st.text(max_size=10)))
    )
    return quote("" if word is None else str(word), safe="", errors="surrogatepass")


@st.composite
def _bodies(draw: st.DrawFn, schema: Mapping[str, Any] | None) -> bytes:
    kind = draw(st.integers(0, 12))
    if schema is None or kind == 0:
        return draw(
            st.one_of(
                st.binary(max_size=40), st.sampled_from([b"[" * 9000, b"1" * 5000, b"x" * 20_000])
            )
        )
    said: Any = {name: draw(_near(about)) for name, about in schema["properties"].items()}
    if kind == 1:
        said = draw(anything)
    elif kind == 2:
        said[draw(st.sampled_from(NASTY))] = draw(anything)
    elif kind in (3, 4):
        said[draw(st.sampled_from(sorted(said)))] = draw(anything)
    elif kind == 5:
        del said[draw(st.sampled_from(sorted(said)))]
    return json.dumps(said).encode()


def _near(about: Mapping[str, Any]) -> st.SearchStrategy[Any]:
    """Values that the schema allows, among them those that mean something to the run
    under attack.
    """
    if "anyOf" in about:
        return st.one_of([_near(each) for each in about["anyOf"]])
    if "$ref" in about:  # the one that is shared: what a labeler may say
        return st.sampled_from(["first", "second", "tie", "incomparable"])
    if "enum" in about:
        return st.sampled_from(about["enum"])
    if about.get("type") == "integer":
        bounds = int(about.get("minimum", 0)), int(about.get("maximum", 2**40))
        return st.one_of(st.sampled_from([1, 1, 1, 2, 3]), st.sampled_from(bounds))
    if "pattern" in about:
        return st.sampled_from(["q0", "q1", "q2", "q3", "tab-1", "tab-2", "ann", "a" * 64, "q..1"])
    return (
        st.sampled_from(["", "note", "<b>", "ann", "\U0001f600"])
        if about.get("type") == "string"
        else st.none()
    )
