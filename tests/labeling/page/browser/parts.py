"""A run with clips, the labeling server as a process of its own, and a browser to label
in.
"""

from __future__ import annotations

import os
import re
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from playwright.sync_api import Page, expect

from rlhp.labeling.clips.video import encode
from rlhp.queue.queue import Event, QueryQueue

CHROMIUM_FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
ROOT = Path(__file__).resolve().parents[4]


@cache
def moving_dot(*, color: tuple[int, int, int], count: int = 20, size: int = 160) -> bytes:
    """A clip of a dot that crosses the picture."""
    rows, columns = np.mgrid[:size, :size]
    frames = np.full((count, size, size, 3), 235, np.uint8)
    for at, frame in enumerate(frames, start=1):
        frame[
            (rows - size // 2) ** 2 + (columns - size * at // (count + 1)) ** 2 < (size // 8) ** 2
        ] = color
    return encode(frames, fps=30)


class Asking:
    """One open run in Redis, whose queries have clips."""

    def __init__(
        self, url: str, *, name: str = "", lease_seconds: float = 60.0, **facts: str
    ) -> None:
        self.url = url
        self.queue = QueryQueue(
            url, run=name or f"page-{secrets.token_hex(4)}", lease_seconds=lease_seconds
        )
        info = {
            "env": "HalfCheetah-v5",
            "source": "human",
            "lease_seconds": str(lease_seconds),
            **facts,
        }
        self.queue.open(cap=2000, config_sha256="0" * 64, info=info)
        self._asked = 0

    def ask(self, count: int, *, clips: tuple[bytes, bytes] | None = None) -> list[str]:
        """Put `count` more queries, both clips with each; their ids."""
        first, second = clips or (moving_dot(color=(40, 88, 176)), moving_dot(color=(184, 98, 27)))
        names = [f"query{number:04}" for number in range(self._asked, self._asked + count)]
        for name in names:
            self.queue.put(
                query=name,
                candidates=(f"{name}-a", f"{name}-b"),
                body={"purpose": "train"},
                payloads={},
                ready=False,
            )
            self.queue.clips.store(query=name, side="first", data=first)
            self.queue.clips.store(query=name, side="second", data=second)
            assert self.queue.ready(query=name) == "ok"
            self._asked += 1
        return names

    def log(self) -> list[Event]:
        """Everything that was answered, skipped or taken back and not yet returned
        here.
        """
        found: list[Event] = []
        while batch := self.queue.events(consumer="test"):
            found += batch
        return found

    def forget(self) -> None:
        """Take back what nobody answered, and read what was answered."""
        for number in range(self._asked):
            self.queue.drop(query=f"query{number:04}")
        self.log()

    def close(self) -> None:
        """Give the connections back."""
        self.queue.disconnect()


class Served:
    """`rlhp serve` for one run and the token of its link: may be killed, and started
    again at the same address.
    """

    def __init__(self, *run: str, port: int = 0) -> None:
        self._run = run
        self.address = self.token = ""
        self.start(port)

    def start(self, port: int | None = None) -> None:
        """Serve; returns once the address was printed."""
        wanted = int(self.address.rsplit(":", 1)[1]) if port is None else port
        command = [
            sys.executable,
            "-m",
            "rlhp",
            "serve",
            *self._run,
            "--port",
            str(wanted),
            "--until-eof",
        ]
        self._process = subprocess.Popen(
            command,
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        found = re.search(r"(https?://[^/\s]+)/#token=(\S+)", line)
        assert found is not None, f"the server printed no link but {line!r}"
        self.address, self.token = found.groups()

    def kill(self) -> None:
        """As a crash: nothing is finished or flushed."""
        self._process.send_signal(signal.SIGKILL)
        self._end()

    def stop(self) -> None:
        """End it for good."""
        if self._process.poll() is None:
            self._process.terminate()
        self._end()

    def _end(self) -> None:
        self._process.wait(timeout=30)
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            stream.close()


def opened(page: Page, at: Served | str, path: str = "/") -> Page:
    """The page at this address; of a server by the link that it printed."""
    page.goto(at + path if isinstance(at, str) else f"{at.address}{path}#token={at.token}")
    return page


def playing(page: Page) -> str:
    """Wait until a pair is on stage and was seen, so that it can be answered; its
    query.
    """
    page.wait_for_function(
        "() => document.body.dataset.stage === 'playing'"
        " && document.body.dataset.seen === document.body.dataset.query"
        " && document.querySelectorAll('.stage .shown').length === 2"
    )
    return str(page.evaluate("() => document.body.dataset.query"))


def press(page: Page, key: str) -> str:
    """Answer with this key; the query that was answered."""
    query = playing(page)
    page.keyboard.press(key)
    page.wait_for_function("(query) => document.body.dataset.query !== query", arg=query)
    return query


def answered(run: Asking, page: Page, key: str) -> dict[str, object]:
    """Answer with this key, and what arrived of it: query, choice, rev and what is
    known beside.
    """
    query = press(page, key)
    return arrived(run, query)


def arrived(run: Asking, query: str) -> dict[str, object]:
    """What arrived of the answer to this query."""
    found: list[dict[str, object]] = []

    def look() -> bool:
        for event in run.log():
            if event.event == "answer" and event.query == query:
                place = 1 if event.answer == "second" else 0
                side = ("left", "right")[event.meta["shown_order"].index(place)]
                choice = side if event.answer in ("first", "second") else event.answer
                found.append({**event.meta, "choice": choice, "rev": event.rev, "how": event.how})
        return bool(found)

    until(look)
    return found[0]


def says(page: Page, text: str | re.Pattern[str]) -> None:
    """Wait for this in the status line."""
    expect(page.get_by_role("status")).to_contain_text(text)


def until(holds: Callable[[], Any], *, seconds: float = 30.0) -> None:
    """Wait for what another process does."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.02)
