"""Servers that vanish while somebody labels: no answer is lost, and none counts twice."""

from __future__ import annotations

import os
import re
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext, Page, Route, expect

from rlhp.queue.embedded import EmbeddedRedis
from tests.labeling.page.browser.parts import Asking, Served, opened, playing, press, says, until

pytestmark = pytest.mark.browser


def counted(asking: Asking) -> Counter[str]:
    """How often each query has an answer that counts."""
    return Counter(
        event.query for event in asking.log() if event.event == "answer" and event.how != "extra"
    )


def test_an_answer_given_while_the_server_is_away_arrives_when_it_is_back(
    asking: Asking, served: Served, page: Page
) -> None:
    asking.ask(4)
    opened(page, served)
    playing(page)
    until(lambda: asking.queue.stats().leased == 2)
    page.wait_for_function("() => document.querySelectorAll('video[src]').length === 4")
    served.kill()
    given = [press(page, "ArrowLeft")]
    expect(page.get_by_role("alert")).to_contain_text("1 answer is kept here")
    served.start()
    until(lambda: asking.queue.stats().answered == 1)
    expect(page.get_by_role("alert")).to_be_hidden()
    given += [press(page, "ArrowLeft"), press(page, "ArrowUp")]
    until(lambda: asking.queue.stats().answered == 3)
    assert counted(asking) == dict.fromkeys(given, 1)


def test_an_unsent_answer_survives_its_tab(
    asking: Asking, served: Served, page: Page, tab: Callable[[], Page]
) -> None:
    asking.ask(2)
    opened(page, served)
    playing(page)
    served.kill()
    given = press(page, "ArrowDown")
    expect(page.get_by_role("alert")).to_contain_text("kept here")
    page.close()
    served.start()
    assert asking.queue.stats().answered == 0
    opened(tab(), served)
    until(lambda: asking.queue.stats().answered == 1)
    assert counted(asking) == {given: 1}


def test_a_reply_that_got_lost_is_asked_for_again(
    asking: Asking, served: Served, page: Page, context: BrowserContext
) -> None:
    asking.ask(2)
    lost: list[str] = []

    def lose(route: Route) -> None:
        lost.append(route.request.post_data or "")
        route.fetch()  # the server does its part, but its reply goes nowhere
        route.abort()

    context.route("**/api/answers", lose, times=2)
    opened(page, served)
    given = press(page, "ArrowLeft")
    while len(lost) < 2:
        page.wait_for_timeout(20)
    playing(page)
    press(page, "ArrowLeft")
    until(lambda: asking.queue.stats().answered == 2)
    assert lost[0] == lost[1]
    assert counted(asking)[given] == 1
    # the server counts an answer before the page hears of it
    page.wait_for_function(
        "() => !Object.keys(localStorage).some((name) => name.includes('unsent'))"
    )


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[EmbeddedRedis]:
    with EmbeddedRedis(tmp_path / "redis") as server:
        yield server


def test_a_redis_that_is_killed_costs_no_answer(own_redis: EmbeddedRedis, page: Page) -> None:
    asking = Asking(own_redis.url)
    asking.ask(6)
    served = Served("--redis", asking.url, "--run", asking.queue.run)
    opened(page, served)
    given = [press(page, "ArrowLeft")]
    until(lambda: asking.queue.stats().answered == 1)
    os.kill(int((own_redis.directory / "server.pid").read_text()), signal.SIGKILL)
    given += [press(page, key) for key in ("ArrowRight", "ArrowUp", "ArrowDown")]
    until(lambda: asking.queue.stats().answered == 4)
    assert counted(asking) == dict.fromkeys(given, 1)
    served.stop()
    asking.close()


def test_without_a_token_the_page_asks_for_one(asking: Asking, served: Served, page: Page) -> None:
    labelers = asking.queue.accounts
    token = labelers.add("ann")
    asking.ask(2)
    opened(page, served.address)
    dialog = page.get_by_role("dialog", name="Your token, please")
    expect(dialog).to_be_visible()
    dialog.get_by_role("textbox").fill("not-the-token")
    dialog.get_by_role("button", name="Go on").click()
    expect(dialog.get_by_role("alert")).to_contain_text(re.compile("token", re.IGNORECASE))
    dialog.get_by_role("textbox").fill(token)
    page.keyboard.press("Enter")
    expect(dialog).to_be_hidden()
    press(page, "ArrowLeft")
    until(lambda: asking.queue.stats().answered == 1)
    assert {event.labeler for event in asking.log()} == {"ann"}
    expect(page.get_by_role("link", name="Admin")).to_be_hidden()


def test_the_token_of_a_link_signs_in_and_leaves_the_address(
    asking: Asking, served: Served, page: Page
) -> None:
    labelers = asking.queue.accounts
    token = labelers.add("ann", admin=True)
    asking.ask(2)
    opened(page, served.address, f"/#token={token}")
    playing(page)
    assert page.url == f"{served.address}/"
    assert token not in page.evaluate("() => document.cookie + JSON.stringify(localStorage)")
    expect(page.get_by_role("link", name="Admin")).to_be_visible()


def test_a_labeler_who_is_removed_keeps_the_unsent_answer_from_whoever_signs_in_meanwhile(
    asking: Asking, served: Served, page: Page
) -> None:
    labelers = asking.queue.accounts
    boss = labelers.add("boss", admin=True)
    token = labelers.add("ann")
    asking.ask(2)
    opened(page, served.address, f"/#token={token}")
    query = playing(page)
    labelers.remove("ann")
    page.keyboard.press("ArrowLeft")
    dialog = page.get_by_role("dialog", name="Your token, please")
    expect(dialog).to_be_visible()
    dialog.get_by_role("textbox").fill(boss)
    page.keyboard.press("Enter")
    expect(page.locator("#labeler")).to_have_text("boss")
    assert asking.queue.stats().answered == 0
    page.goto(f"{served.address}/#token={labelers.add('ann')}")  # only the fragment changes
    expect(page.locator("#labeler")).to_have_text("ann")
    until(lambda: asking.queue.stats().answered == 1)
    assert [(event.query, event.labeler) for event in asking.log() if event.event == "answer"] == [
        (query, "ann")
    ]


def test_a_page_nobody_touches_lets_its_queries_go(
    asking: Asking, served: Served, page: Page
) -> None:
    asking.ask(2)
    page.clock.install()
    opened(page, served)
    query = playing(page)
    page.clock.fast_forward("02:05")
    says(page, "nobody was here")
    page.keyboard.press("ArrowLeft")  # wakes the page, and answers nothing
    expect(page.locator("#asleep")).to_be_hidden()
    assert asking.queue.stats().answered == 0
    assert playing(page) == query
    press(page, "ArrowLeft")
    until(lambda: asking.queue.stats().answered == 1)


def asleep_while_it_asks(page: Page, served: Served) -> Route:
    """A page of a run without queries that fell asleep; the request for some that is
    still under way.
    """
    held: list[Route] = []
    page.clock.install()
    opened(page, served)
    expect(page.locator("#reason")).to_have_text("This run is starting")
    page.clock.pause_at(datetime.now() + timedelta(hours=1))
    page.mouse.move(50, 50)  # from here on it sleeps after two minutes of a clock that stands still
    page.clock.fast_forward("01:54")
    page.route("**/api/leases", lambda route: held.append(route))
    for _ in range(20):  # it asks every second or so
        if not held:
            page.clock.fast_forward(200)
            page.wait_for_timeout(50)
    page.clock.fast_forward("00:07")
    says(page, "nobody was here")
    return held[0]


def test_a_page_that_falls_asleep_while_it_asks_leaves_what_it_is_given_to_others(
    asking: Asking, served: Served, page: Page
) -> None:
    request = asleep_while_it_asks(page, served)
    asking.ask(2)
    with page.expect_response("**/api/leases/release"):
        request.continue_()
    expect(page.locator("#reason")).to_have_text("Clips are ready")
    assert asking.queue.stats().leased == 0
    page.unroute("**/api/leases")
    page.mouse.move(50, 50)
    playing(page)


def test_a_page_that_falls_asleep_while_it_asks_and_is_given_nothing_promises_nothing(
    asking: Asking, served: Served, page: Page
) -> None:
    request = asleep_while_it_asks(page, served)
    with page.expect_response("**/api/leases"):
        request.continue_()
    page.wait_for_timeout(300)
    expect(page.locator("#reason")).to_have_text("This run is starting")


def test_a_page_that_waited_too_long_says_that_clips_are_ready_and_leaves_them_to_others_meanwhile(
    asking: Asking, served: Served, page: Page
) -> None:
    page.clock.install()
    opened(page, served)
    expect(page.locator("#reason")).to_have_text("This run is starting")
    page.clock.fast_forward("02:05")
    says(page, "nobody was here")
    asking.ask(2)
    page.clock.fast_forward("00:06")
    expect(page.locator("#reason")).to_have_text("Clips are ready")
    assert asking.queue.stats().leased == 0
    page.mouse.move(50, 50)
    playing(page)
