"""An enemy with a token, one without, and one who knows the addresses: no 5xx, and
nothing stored that should not be.

RLHP_FUZZ=10000 makes as many requests instead of a few.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterator
from http.cookies import SimpleCookie
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rlhp.labeling.page.guard import LONGEST_LINE, MOST_BYTES
from rlhp.queue.queue import QueryQueue
from rlhp.storage.rundir import RunDir
from tests.labeling.page.hostile import Attack, Operation, attacks, operations
from tests.labeling.page.parts import Tab, address_in, ask, human_run, served
from tests.queue.parts import Meddler, events

REQUESTS = int(os.environ.get("RLHP_FUZZ", "300"))
REFUSALS = {400, 401, 403, 404, 405, 413, 415, 422}
KEYS = re.compile(
    r"meta|tokens|pending|leased|open|finished|answers|counts|labelers|segrefs|dedup|clock"
    r"|(labeler|seen|times|history|holds):(ann|local)|held:(ann|local)/[A-Za-z0-9][A-Za-z0-9._-]{0,63}"
    r"|q:q\d|seg:q\d-[ab]|clip:q\d:(first|second)|clips?[a-z:]*"
)


@pytest.fixture(scope="module")
def target(redis_url: str) -> Iterator[tuple[QueryQueue, httpx.Client, list[Operation], str]]:
    with human_run(redis_url) as queue:
        ask(queue, 6)
        labelers = queue.accounts
        token = labelers.add("ann", admin=True)
        with served(queue) as link, httpx.Client(base_url=address_in(link), timeout=60) as client:
            yield queue, client, operations(client.get("/openapi.json").json()), token


def test_the_description_names_every_route(target: tuple[Any, Any, list[Operation], str]) -> None:
    found = {f"{operation.method} {operation.path}" for operation in target[2]}
    assert found == {
        "POST /api/session",
        "GET /api/run",
        "GET /api/progress",
        "POST /api/leases",
        "POST /api/leases/extend",
        "POST /api/leases/release",
        "POST /api/answers",
        "POST /api/skips",
        "POST /api/undo",
        "GET /api/clips/{query}/{side}",
        "GET /api/admin/labelers",
        "GET /api/admin/preferences",
        "POST /api/admin/preferences/correct",
        "GET /api/admin/clips/{query}/{side}",
        "GET /api/live/metrics",
        "GET /api/live/policy",
        "GET /api/live/policy/video",
    }


@pytest.mark.timeout(max(300, REQUESTS))
@settings(max_examples=REQUESTS, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_no_request_breaks_the_server_or_leaves_a_trace_that_should_not_be(
    target: tuple[QueryQueue, httpx.Client, list[Operation], str], data: st.DataObject
) -> None:
    _, client, known, token = target
    attack: Attack = data.draw(attacks(known, token=token))
    reply = client.request(
        attack.method, attack.path, headers=dict(attack.headers), content=attack.body
    )
    client.cookies.clear()
    assert reply.status_code == 200 or reply.status_code in REFUSALS, (
        reply.status_code,
        reply.text,
    )
    if reply.status_code != 200 and attack.method != "HEAD":
        said = reply.json()
        assert list(said) == ["error"]
        assert said["error"].isprintable()
        assert len(said["error"]) <= LONGEST_LINE
        assert "Traceback" not in said["error"]
    if reply.headers["content-type"] == "application/json":
        assert b"<" not in reply.content


def test_what_the_attacks_left_behind_is_what_a_labeler_may_leave(
    target: tuple[QueryQueue, httpx.Client, list[Operation], str],
) -> None:
    queue = target[0]
    meddler = Meddler(queue)
    keys = {
        name.removeprefix(meddler.key(""))
        for name in meddler.redis.scan_iter(match=meddler.key("*"))
    }
    names = {name.partition(":")[0] for name in meddler.redis.hkeys(meddler.key("tokens"))}
    meddler.close()
    assert {name for name in keys if not KEYS.fullmatch(name)} == set()
    assert names == {"ann", "local"}
    log = events(queue)
    assert {event.labeler for event in log} <= {"ann", ""}
    assert {event.query for event in log} <= {f"q{n}" for n in range(6)}


def raw(client: httpx.Client, request: bytes) -> bytes:
    """The first line of the reply to these bytes."""
    where = urlsplit(str(client.base_url))
    with socket.create_connection((where.hostname, where.port), timeout=20) as connection:
        connection.sendall(request)
        return connection.recv(4096).partition(b"\r\n")[0]


@pytest.mark.parametrize(
    "path",
    [
        "/static/../app.py",
        "/static/%2e%2e/app.py",
        "/static/..%2fapp.py",
        "/static//etc/passwd",
        "/static/%00",
        "/static/....//app.py",
        "/../../etc/passwd",
        "/api/clips/../../x/left",
        "/api/clips/%2e%2e/left",
        "/api/clips/q0%00/left",
        "/api/clips/q0/left%00",
        "/api/admin/clips/..%2f..%2fx/first",
        "/%c0%ae%c0%ae/",
        "/static/" + "a" * 5000,
        "//",
        "/\xff",
    ],
)
def test_no_path_leads_out_of_the_page(
    target: tuple[QueryQueue, httpx.Client, list[Operation], str], path: str
) -> None:
    _, client, _, token = target
    lines = (
        f"GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\nConnection: "
        "close\r\n\r\n"
    )
    status = int(raw(client, lines.encode("latin-1")).split()[1])
    assert status in {400, 404, 405, 422}


def test_a_body_may_not_be_long_however_it_is_sent(
    target: tuple[QueryQueue, httpx.Client, list[Operation], str],
) -> None:
    _, client, _, token = target
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    for content in (b" " * (MOST_BYTES + 1), iter([b" " * 1000] * 17)):
        reply = client.post("/api/answers", content=content, headers=headers)
        assert (reply.status_code, reply.json()["error"]) == (
            413, f"a request has at most {MOST_BYTES} bytes; shorten the note",
        )  # fmt: skip
    assert (
        client.post("/api/answers", content=b" " * MOST_BYTES, headers=headers).status_code == 422
    )


def test_a_token_that_was_made_up_leases_answers_and_undoes_nothing(redis_url: str) -> None:
    with human_run(redis_url) as queue, served(queue) as link, Tab(link) as tab:
        ask(queue, 3)
        (lease, _) = tab.leases()
        for token in (lease["token"] + 1, 2**53):
            assert tab.answer({**lease, "token": token}) == "denied"
            assert tab.post("/api/skips", query="q2", token=token)["status"] == "denied"
        assert tab.answer({"query": "unknown", "token": 1}) == "gone"
        assert tab.answer(lease, rev=2) == "conflict", "revisions come one by one"
        assert tab.post("/api/undo", query=lease["query"], rev=1)["status"] == "no"
        assert events(queue) == []


def test_what_a_labeler_writes_comes_back_as_text_that_no_page_could_run(redis_url: str) -> None:
    evil = "</script><img src=x onerror=alert(1)>&\u2028\U0001f600"
    with human_run(redis_url) as queue, served(queue) as link, Tab(link) as tab:
        ask(queue, 1)
        tab.answer(tab.leases()[0], note=evil)
        reply = tab.http.get("/api/admin/preferences")
        assert reply.headers["x-content-type-options"] == "nosniff"
        assert not set(b"<>&") & set(reply.content)
        assert reply.content.isascii()
        assert reply.json()["items"][0]["note"] == evil


def test_forged_cookies_and_headers_are_nobody(redis_url: str) -> None:
    with human_run(redis_url) as queue, served(queue) as link:
        address = address_in(link)
        labelers = queue.accounts
        token = labelers.add("ann")
        cookie = httpx.post(address + "/api/session", json={"token": token}).headers["set-cookie"]
        (name,) = SimpleCookie(cookie)
        for header in (
            f"{name}={token[:-1]}",
            f"{name}=",
            f'{name}="{token}',
            "x" * 4000,
            f"{name}; {token}",
            "\x01=\x01",
        ):
            reply = httpx.get(
                address + "/api/run", headers={"Cookie": header.encode("latin-1").decode("latin-1")}
            )
            assert reply.status_code in (400, 401), header
        assert (
            httpx.get(address + "/api/run", headers={"Cookie": f"{name}={token}"}).status_code
            == 200
        )


def test_labelers_never_see_the_true_return(redis_url: str, tmp_path: Any) -> None:
    path = tmp_path / "run"
    path.mkdir()
    rundir = RunDir(path)
    rundir.metrics_file.write_text(
        '{"env_steps": 5, "env_runners/episode_return_mean": 3.0, '
        '"return_correlation": 0.5, "labels/answered": 2}\n'
        '{"env_steps": 9, "eval/episode_return_mean": 1.0, "torn'
    )
    with human_run(redis_url) as queue, served(queue, rundir=rundir) as link:
        with Tab(link) as admin:
            assert (
                admin.get("/api/live/metrics")["rows"][0]["env_runners/episode_return_mean"] == 3.0
            )
        labelers = queue.accounts
        with Tab(link, token=labelers.add("ann")) as ann:
            assert ann.get("/api/live/metrics") == {
                "rows": [{"env_steps": 5, "labels/answered": 2}],
                "next": 1,
            }
            assert ann.get("/api/live/metrics", since=1) == {"rows": [], "next": 1}
            assert ann.get("/api/live/policy")["video"] is None
            assert ann.http.get("/api/live/policy/video").status_code == 404
