"""A run that people answer, its page on a real socket, and what a page says to it."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from rlhp.labeling.page.address import address_of, bound, link_token
from rlhp.labeling.page.desk import Place
from rlhp.labeling.page.door import Door, Limits
from rlhp.labeling.page.server import Server
from rlhp.queue.clips import SIDES
from rlhp.queue.queue import QueryQueue

ROOT = Path(__file__).parents[3]
WEBM = b"\x1a\x45\xdf\xa3"
"""How a WebM begins: enough of a video for whoever only carries it."""
FACTS = {
    "env": "Hopper-v5",
    "source": "human",
    "fps": "40",
    "instruction": "Prefer backflips.",
    "budget": "100",
}


def human_run(url: str, *, lease_seconds: float = 60.0, **facts: str) -> QueryQueue:
    """The queue of a new run that people answer."""
    queue = QueryQueue(url, run=f"page-{secrets.token_hex(6)}", lease_seconds=lease_seconds)
    queue.open(
        cap=1000,
        config_sha256="c0ffee",
        info={**FACTS, "lease_seconds": str(lease_seconds), **facts},
    )
    return queue


def ask(
    queue: QueryQueue, count: int, *, start: int = 0, candidates: int = 2, **more: Any
) -> list[str]:
    """Queries with clips, each clip naming its query and side; their ids."""
    clips = queue.clips
    names = [f"q{number}" for number in range(start, start + count)]
    for name in names:
        payloads = {f"{name}-{letter}": letter.encode() for letter in "abcd"[:candidates]}
        facts: dict[str, Any] = {"query": name, "candidates": tuple(payloads), "payloads": payloads}
        assert queue.put(**facts, body={"purpose": "train"}, ready=False, **more) == "ok"
        for side in SIDES[:candidates]:
            clips.store(query=name, side=side, data=WEBM + f"{name} {side}".encode())
        assert queue.ready(query=name) == "ok"
    return names


@contextmanager
def served(queue: QueryQueue, **more: Any) -> Iterator[str]:
    """The page of this run on a thread: the link that opens it."""
    place = Place(url=queue.url, run=queue.run, lease_seconds=queue.lease_seconds, **more)
    with behind(Door(bound("127.0.0.1", 0), limits=Limits()), place) as link:
        yield link


@contextmanager
def behind(door: Door, place: Place, **tls: str) -> Iterator[str]:
    """The page of this place on a thread, behind this door: the link that opens it."""
    server = Server(place, door, **tls)
    token = link_token(place.url, run=place.run, rundir=place.rundir)
    link = f"{address_of(door, tls=bool(tls))}/#token={token}"
    thread = threading.Thread(target=server.run, args=([door],))
    thread.start()
    try:
        yield link
    finally:
        server.should_exit = True
        thread.join()
        door.close()


def command(
    *words: str, folder: Path | None = None, files: int | None = None
) -> subprocess.Popen[str]:
    """`rlhp WORDS` as a process of its own, which may open so many files."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    line = [sys.executable, "-m", "rlhp", *words]
    if files is not None:
        line = ["sh", "-c", f'ulimit -n {files} && exec "$@"', "sh", *line]
    return subprocess.Popen(
        line,
        cwd=folder or ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@contextmanager
def serving(
    queue: QueryQueue, *words: str, files: int | None = None
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """`rlhp serve` as a process: it, and the link that it says."""
    words = words or ("--port", "0")
    with command("serve", "--redis", queue.url, "--run", queue.run, *words, files=files) as process:
        try:
            assert process.stdout is not None
            said = process.stdout.readline()
            assert said.startswith(f"labeling page of run {queue.run}: http"), (
                said + process.stdout.read()
            )
            yield process, said.split(": ", 1)[1].strip()
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                process.wait(20)


def address_in(link: str) -> str:
    """The address that a link opens, without its token."""
    return link.partition("/#")[0].rstrip("/")


class Tab:
    """One open tab of a labeler: of the one whose link it is, unless another token is
    given.
    """

    def __init__(self, link: str, *, page: str = "tab-1", token: str | None = None) -> None:
        token = token if token is not None else link.partition("#token=")[2]
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self.http = httpx.Client(base_url=address_in(link), headers=headers, timeout=30)
        self.link, self.page = link, page

    def __enter__(self) -> Tab:
        return self

    def __exit__(self, *_: object) -> None:
        self.http.close()

    def get(self, path: str, **query: Any) -> Any:
        """The JSON of a reply that succeeds."""
        reply = self.http.get(path, params=query)
        assert reply.status_code == 200, reply.text
        return reply.json()

    def post(self, path: str, **said: Any) -> Any:
        """The same for a call in the name of this tab."""
        reply = self.http.post(path, json={"page": self.page, **said})
        assert reply.status_code == 200, reply.text
        return reply.json()

    def leases(self) -> list[dict[str, Any]]:
        """What this tab holds now."""
        found: list[dict[str, Any]] = self.post("/api/leases")["leases"]
        return found

    def answer(self, lease: dict[str, Any], choice: str = "left", **more: Any) -> str:
        """Answer; the status."""
        said = self.post(
            "/api/answers", query=lease["query"], token=lease["token"], choice=choice, **more
        )
        return str(said["status"])
