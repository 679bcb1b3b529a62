"""Stands before every route: who may pass, how much they may send, and which headers go
out with every reply.

Whoever has no token learns nothing: below /api every path, method and body gets the
same 401 before anything is parsed. The token comes as a cookie, which scripts of a page
cannot read, or as `Authorization: Bearer`.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from http.cookies import CookieError, SimpleCookie
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rlhp.queue.accounts import Labeler
from rlhp.queue.connection import QueueUnavailable

MOST_BYTES = 16 * 1024
"""Of a request's body: an answer with the longest note has two or three thousand."""
BODY_SECONDS = 10.0
"""So long may a request's body take until all of it has arrived."""
LONGEST_LINE = 300
RETRY_AFTER_SECONDS = 1
SESSION = "/api/session"

HEADERS = {
    "Content-Security-Policy": "default-src 'self'; media-src 'self' blob:; img-src 'self' blob:; "
    "object-src 'none'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}
_log = logging.getLogger(__name__)


class JSON(Response):
    """JSON in ASCII, without a character that could end a script or open a tag wherever
    it is put.
    """

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        text = json.dumps(content, allow_nan=False, separators=(",", ":"))
        return (
            text.replace("<", "\\u003c")
            .replace(">", "\\u003e")
            .replace("&", "\\u0026")
            .encode("ascii")
        )


def problem(status: int, line: str, **headers: str) -> JSON:
    """A refusal: one short line, even where it quotes what was sent."""
    line = " ".join("".join(letter if letter.isprintable() else " " for letter in line).split())[
        :LONGEST_LINE
    ]
    return JSON(
        {"error": line},
        status_code=status,
        headers={name.replace("_", "-"): v for name, v in headers.items()},
    )


def away(error: OSError) -> JSON:
    """Redis or the store of clips cannot be reached: where they are, is not the
    labeler's to know.
    """
    _log.warning("%s", error)
    return problem(
        503,
        "the queue is away for the moment; try again, nothing is lost",
        Retry_After=str(RETRY_AFTER_SECONDS),
    )


class Guard:
    """ASGI middleware; `who` is asked whose the token of a request is."""

    def __init__(self, app: ASGIApp, *, who: Callable[[str], Labeler | None], cookie: str) -> None:
        self._app = app
        self._who = who
        self._cookie = cookie

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse, or pass on with `scope["state"]["me"]` set below /api."""
        if scope["type"] != "http":
            if scope["type"] == "websocket":  # there are none here
                await send({"type": "websocket.close", "code": 1008})
                return
            await self._app(scope, receive, send)
            return
        api = scope["path"] == "/api" or scope["path"].startswith("/api/")
        guarded = _with_headers(send, api=api)
        refusal = await self._refusal(scope, api=api)
        if refusal is None:
            body = await _body(receive)
            if isinstance(body, Response):
                refusal = body
            else:
                receive = _replay(body, receive)
        await (refusal or self._app)(scope, receive, guarded)

    async def _refusal(self, scope: Scope, *, api: bool) -> Response | None:
        if not api or scope["path"] == SESSION:
            return None
        try:
            token = token_in(Headers(scope=scope), cookie=self._cookie)
            # No thread for whoever shows nothing: they are for those who do.
            me = None if token is None else await run_in_threadpool(self._who, token)
        except QueueUnavailable as error:
            return away(error)
        if me is None:
            return problem(
                401,
                "open the link with your token, or ask whoever runs this for one",
                WWW_Authenticate="Bearer",
            )
        scope.setdefault("state", {})["me"] = me
        return None


def token_in(headers: Headers, *, cookie: str) -> str | None:
    """The token that a request shows; a header counts more than a cookie."""
    kind, _, token = headers.get("authorization", "").partition(" ")
    if kind.lower() == "bearer" and token.strip():
        return token.strip()
    try:
        found = SimpleCookie(headers.get("cookie", "")).get(cookie)
    except CookieError:
        return None
    return found.value if found is not None else None


async def _body(receive: Receive) -> bytes | Response:
    """The whole body; a refusal for one that is too long or too slow, of which no more
    is read.
    """
    try:
        async with asyncio.timeout(BODY_SECONDS):
            body = await _whole(receive)
    except TimeoutError:
        return problem(
            408, f"the request did not arrive within {BODY_SECONDS:.0f} seconds; send it again"
        )
    return (
        problem(413, f"a request has at most {MOST_BYTES} bytes; shorten the note")
        if body is None
        else body
    )


async def _whole(receive: Receive) -> bytes | None:
    body = b""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return body
        body += bytes(message.get("body", b""))
        if len(body) > MOST_BYTES:
            return None
        if not message.get("more_body", False):
            return body


def _replay(body: bytes, receive: Receive) -> Receive:
    sent = False

    async def replayed() -> Message:
        nonlocal sent
        if sent:
            return await receive()
        sent = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replayed


def _with_headers(send: Send, *, api: bool) -> Send:
    async def guarded(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                headers[name] = value
            if api:
                headers.setdefault("Cache-Control", "no-store")
            else:
                headers.setdefault("Cache-Control", "no-cache")
        await send(message)

    return guarded
