"""Who is let in, what everybody else hears, and the commands that say who."""

from __future__ import annotations

import ssl
from collections.abc import Iterator

import httpx
import pytest

from rlhp.cli import main
from rlhp.labeling.page.guard import HEADERS
from rlhp.queue.accounts import MOST_LINKS, Accounts
from rlhp.queue.queue import QueryQueue
from tests.labeling.page.parts import Tab, address_in, ask, human_run, served, serving
from tests.queue.parts import Meddler

REFUSED = {"error": "open the link with your token, or ask whoever runs this for one"}


@pytest.fixture
def labelers(queue: QueryQueue) -> Accounts:
    return queue.accounts


@pytest.fixture
def link(queue: QueryQueue) -> Iterator[str]:
    with served(queue) as link:
        yield link


@pytest.fixture
def address(link: str) -> str:
    return address_in(link)


def test_a_token_is_stored_as_a_hash_alone(queue: QueryQueue, labelers: Accounts) -> None:
    token = labelers.add("ann", admin=True)
    meddler = Meddler(queue)
    stored = meddler.redis.hgetall(meddler.key("tokens"))
    meddler.close()
    assert list(stored) == ["ann"]
    assert token not in stored["ann"]
    assert len(token) == 43, "256 bits"
    found = labelers.find(token)
    assert found is not None
    assert (found.name, found.admin) == ("ann", True)
    assert labelers.find(token[:-1]) is None
    assert labelers.find("\ud800") is None


def test_names_are_unique_and_can_be_part_of_a_key(queue: QueryQueue, labelers: Accounts) -> None:
    labelers.add("ann")
    with pytest.raises(
        ValueError,
        match=r"labeler 'ann' has a token for run page-.* already; choose another name, or",
    ):
        labelers.add("ann")
    with pytest.raises(
        ValueError, match="'local' is that of whoever opens the link that rlhp serve prints; choose"
    ):
        labelers.add("local")
    for name in ("", "-ann", "a/b", "a b", "a" * 65, "ann\n", "local:1"):
        with pytest.raises(ValueError, match="the name of a labeler is 1 to 64 letters, digits or"):
            labelers.add(name)
    with pytest.raises(ValueError, match="was never opened there"):
        QueryQueue(queue.url, run="nowhere").accounts.add("ann")


def test_whoever_opens_the_link_is_the_admin_of_this_machine_and_nobody_else_is_anybody(
    link: str,
) -> None:
    with Tab(link) as tab, Tab(address_in(link)) as stranger:
        assert tab.get("/api/run")["labeler"] == "local"
        assert [row["name"] for row in tab.get("/api/admin/labelers")["labelers"]] == ["local"]
        reply = stranger.http.get("/api/run")
        assert (reply.status_code, reply.json()) == (401, REFUSED)


@pytest.mark.parametrize(
    "proxied", [{"X-Forwarded-For": "203.0.113.9"}, {"Host": "label.example.org"}, {}]
)
def test_what_a_proxy_on_this_machine_passes_on_needs_a_token_like_any_request(
    address: str, labelers: Accounts, proxied: dict[str, str]
) -> None:
    token = labelers.add("ann")
    assert httpx.get(address + "/api/run", headers=proxied).status_code == 401
    reply = httpx.get(address + "/api/run", headers={**proxied, "Authorization": f"Bearer {token}"})
    assert reply.json()["labeler"] == "ann"


def test_a_stranger_hears_the_same_whatever_the_path_the_method_and_the_body(
    address: str, labelers: Accounts
) -> None:
    labelers.add("ann")
    paths = (
        "/api",
        "/api/run",
        "/api/answers",
        "/api/clips/q0/left",
        "/api/admin/labelers",
        "/api/nothing",
        "/api//x",
    )
    bodies = (b"", b"{", b'{"page": "tab"}', b"x" * 100_000)
    with httpx.Client(base_url=address) as stranger:
        replies = [
            stranger.request(method, path, content=body)
            for method in ("GET", "POST", "PUT", "DELETE", "OPTIONS", "PATCH")
            for path in paths
            for body in bodies
        ]
    assert {(reply.status_code, reply.text) for reply in replies} == {(401, replies[0].text)}
    assert replies[0].json() == REFUSED


def test_a_session_exchanges_the_token_for_a_cookie_that_scripts_cannot_read(
    address: str, labelers: Accounts
) -> None:
    token = labelers.add("ann", admin=True)
    with httpx.Client(base_url=address) as browser:
        refused = browser.post("/api/session", json={"token": token + "x"})
        assert refused.status_code == 401
        assert "set-cookie" not in refused.headers
        reply = browser.post("/api/session", json={"token": token})
        assert reply.json() == {"labeler": "ann", "admin": True}
        cookie = reply.headers["set-cookie"]
        assert {"HttpOnly", "Path=/", "SameSite=strict"} <= set(cookie.split("; "))
        assert browser.get("/api/run").json()["labeler"] == "ann"


def test_cookies_of_two_runs_on_one_host_do_not_meet(
    redis_url: str, queue: QueryQueue, labelers: Accounts
) -> None:
    with human_run(redis_url) as other, served(queue) as here, served(other) as there:
        one, two = address_in(here), address_in(there)
        others = other.accounts
        with httpx.Client() as browser:
            browser.post(one + "/api/session", json={"token": labelers.add("ann")})
            browser.post(two + "/api/session", json={"token": others.add("bob")})
            names = [browser.get(address + "/api/run").json()["labeler"] for address in (one, two)]
    assert names == ["ann", "bob"]


def test_a_removed_labeler_is_out_with_the_next_request(address: str, labelers: Accounts) -> None:
    labelers.add("bob")
    with Tab(address, token=labelers.add("ann")) as ann:
        ann.get("/api/run")
        assert labelers.remove("ann")
        assert ann.http.get("/api/run").status_code == 401
        assert ann.http.post("/api/session", json={"token": "replayed"}).status_code == 401
    assert not labelers.remove("ann")
    assert [each.name for each in labelers.all()] == ["bob", "local"]


def test_nobody_becomes_an_admin_because_the_last_labeler_was_removed(
    link: str, labelers: Accounts
) -> None:
    with (
        Tab(link) as local,
        Tab(link, token=labelers.add("ann")) as ann,
        Tab(address_in(link)) as stranger,
    ):
        labelers.remove("ann")
        assert [tab.http.get("/api/run").status_code for tab in (local, ann, stranger)] == [
            200,
            401,
            401,
        ]
        assert labelers.remove("local")
        assert [tab.http.get("/api/run").status_code for tab in (local, ann, stranger)] == [
            401,
            401,
            401,
        ]
    assert labelers.all() == []


def test_links_printed_before_stay_good_until_there_are_too_many_of_them(
    labelers: Accounts,
) -> None:
    links = [labelers.link() for _ in range(MOST_LINKS)]
    assert all(labelers.find(token) for token in links)
    labelers.link()
    assert sum(labelers.find(token) is not None for token in links) == MOST_LINKS - 1
    assert [(each.name, each.admin) for each in labelers.all()] == [("local", True)]


def test_a_labeler_without_rights_reaches_nothing_of_an_admins(
    queue: QueryQueue, address: str, labelers: Accounts
) -> None:
    ask(queue, 1)
    with Tab(address, token=labelers.add("ann")) as ann:
        for path in ("labelers", "preferences", "clips/q0/first"):
            assert ann.http.get(f"/api/admin/{path}").status_code == 403
        said = {"query": "q0", "labeler": "ann", "answer": "tie"}
        assert ann.http.post("/api/admin/preferences/correct", json=said).status_code == 403


def test_nobody_speaks_for_another_labelers_tab(
    queue: QueryQueue, address: str, labelers: Accounts
) -> None:
    ask(queue, 3)
    with (
        Tab(address, token=labelers.add("ann")) as ann,
        Tab(address, token=labelers.add("eve")) as eve,
    ):
        lease = ann.leases()[0]
        assert eve.post("/api/leases/release") == {"released": 0}
        assert eve.post("/api/leases/extend") == {"extended": 0}
        assert eve.answer(lease) == "denied"
        assert (
            eve.post("/api/skips", query=lease["query"], token=lease["token"])["status"] == "denied"
        )
        assert eve.post("/api/undo", query=lease["query"], rev=1)["status"] == "no"
        assert eve.http.get(lease["left"]).status_code == 404
        assert ann.answer(lease) == "ok"
    assert queue.stats().labelers["ann"].ok == 1


def test_another_site_whose_name_was_made_to_point_here_is_nobody(address: str) -> None:
    for host in ("evil.example", "evil.example:80", "localhost", "127.0.0.1:9", "[::1]:80", ""):
        assert httpx.get(address + "/api/run", headers={"Host": host}).status_code == 401


def test_every_reply_forbids_what_the_page_does_not_need(address: str) -> None:
    for path in ("/", "/api/run", "/api/nothing", "/static/nothing.js", "/openapi.json"):
        headers = httpx.get(address + path).headers
        assert {name: headers.get(name) for name in HEADERS} == HEADERS
    assert "default-src 'self'" in HEADERS["Content-Security-Policy"]
    assert "unsafe" not in str(HEADERS)
    assert httpx.get(address + "/api/run").headers["cache-control"] == "no-store"


def test_beyond_this_machine_nobody_is_served_without_a_token_either(
    queue: QueryQueue, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.run(["labeler", "add", "ann", "--redis", queue.url, "--run", queue.run]) == 0
    token = capsys.readouterr().out.splitlines()[0].partition("#token=")[2]
    with serving(queue, "--host", "0.0.0.0", "--port", "0") as (process, link):
        assert process.stdout is not None
        assert process.stdout.readline().startswith("without https tokens can be read on their way")
        here = f"http://127.0.0.1:{address_in(link).rpartition(':')[2]}"
        assert httpx.get(here + "/api/run").status_code == 401
        for shown, name in ((token, "ann"), (link.partition("#token=")[2], "local")):
            with Tab(here, token=shown) as tab:
                assert tab.get("/api/run")["labeler"] == name


def test_with_a_certificate_the_page_speaks_https_alone(
    queue: QueryQueue, labelers: Accounts, pair: tuple[str, str]
) -> None:
    token = labelers.add("ann")
    with serving(queue, "--port", "0", "--certificate", pair[0], "--key", pair[1]) as (_, link):
        address = address_in(link)
        assert address.startswith("https://127.0.0.1:")
        with httpx.Client(
            base_url=address, verify=ssl.create_default_context(cafile=pair[0])
        ) as browser:
            cookie = browser.post("/api/session", json={"token": token}).headers["set-cookie"]
            assert "Secure" in cookie.split("; ")
            assert browser.get("/api/run").json()["labeler"] == "ann"
        with pytest.raises(httpx.ConnectError, match="self-signed"):
            httpx.get(address + "/api/run")
        with pytest.raises(httpx.TransportError):
            httpx.get(address.replace("https", "http") + "/api/run")


def test_a_certificate_and_a_key_that_do_not_fit_are_told_before_anything_is_served(
    queue: QueryQueue, pair: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    certificate, key = pair
    where = ["serve", "--redis", queue.url, "--run", queue.run, "--port", "0"]
    assert main.run([*where, "--key", key]) == 2
    assert "is of no use without its certificate; add --certificate FILE" in capsys.readouterr().err
    for wrong in (["--certificate", certificate], ["--certificate", key, "--key", certificate]):
        assert main.run([*where, *wrong]) == 2
        assert f"no https with certificate {wrong[1]} and key" in capsys.readouterr().err


def test_the_commands_add_list_and_remove(
    queue: QueryQueue, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ["--redis", queue.url, "--run", queue.run]

    def say(*words: str) -> tuple[int, str]:
        code = main.run(["labeler", *words, *where])
        out, err = capsys.readouterr()
        return code, out + err

    assert say("list") == (
        0,
        "nobody has a token; rlhp labeler add NAME makes one, rlhp serve prints a link\n",
    )
    code, said = say("add", "ann", "--admin")
    assert code == 0
    assert said.startswith("admin ann: http://HOST:PORT/#token=")
    assert say("add", "ann")[0] == 2
    say("add", "bob")
    assert say("list") == (0, "ann  admin\nbob\n")
    assert say("remove", "ann") == (0, "labeler ann is out\n")
    assert say("remove", "ann") == (
        2,
        f"error: no labeler 'ann' has a token for run {queue.run}; rlhp labeler list names them\n",
    )
    assert main.run(["labeler", "list"]) == 2
    assert "give a run directory, or the address of its queue" in capsys.readouterr().err


def test_the_link_of_a_freshly_made_admin_is_said_once(queue: QueryQueue) -> None:
    with serving(queue, "--port", "0", "--add", "root") as (_, link), Tab(link) as root:
        assert (root.get("/api/run")["labeler"], root.get("/api/run")["admin"]) == ("root", True)
        with serving(queue) as (_, another), Tab(another) as tab:
            assert tab.get("/api/run")["labeler"] == "local"
