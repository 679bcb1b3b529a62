"""A real Chromium, a real server, a real Redis: one of each for the room, a run and a
browser profile for each test.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator

import pytest

pytest.importorskip("playwright", reason="playwright is not installed: pip install playwright")

from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from tests.labeling.page.browser.parts import CHROMIUM_FLAGS, Asking, Served, opened, until

EXPECTED = ("net::ERR_", "Failed to load resource")
"""What the browser writes itself about a server that is away, or about a 401."""
INSTRUCTION = (
    "Which runner moves further to the right? Speed alone counts. Nearly the same distance is a "
    "tie."
)


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    path = (
        os.environ.get("RLHP_CHROMIUM")
        or shutil.which("chromium")
        or shutil.which("chromium-browser")
    )
    if path is None:
        pytest.skip("chromium not found: apt install chromium, or set RLHP_CHROMIUM to its path")
    expect.set_options(timeout=20_000)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=CHROMIUM_FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def asking(redis_url: str) -> Iterator[Asking]:
    asking = Asking(redis_url)
    yield asking
    asking.close()


@pytest.fixture
def served(asking: Asking) -> Iterator[Served]:
    served = Served("--redis", asking.url, "--run", asking.queue.run)
    yield served
    served.stop()


@pytest.fixture
def context(chromium: Browser) -> Iterator[BrowserContext]:
    context = chromium.new_context(viewport={"width": 1280, "height": 860})
    context.set_default_timeout(30_000)
    yield context
    context.close()


@pytest.fixture
def tab(context: BrowserContext) -> Iterator[Callable[[], Page]]:
    """Opens tabs. Whatever a page throws or logs as an error fails the test."""
    problems: list[str] = []

    def new() -> Page:
        page = context.new_page()
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on(
            "console",
            lambda message: problems.append(message.text) if message.type == "error" else None,
        )
        return page

    yield new
    assert [
        problem for problem in problems if not any(words in problem for words in EXPECTED)
    ] == []


@pytest.fixture
def page(tab: Callable[[], Page]) -> Page:
    return tab()


@pytest.fixture(scope="module")
def run(redis_url: str) -> Iterator[Asking]:
    """The run that all tests of a file share."""
    run = Asking(redis_url, lease_seconds=20.0, strength="yes", instruction=INSTRUCTION)
    yield run
    run.close()


@pytest.fixture(scope="module")
def server(run: Asking) -> Iterator[Served]:
    """The one server of the file."""
    served = Served("--redis", run.url, "--run", run.queue.run)
    yield served
    served.stop()


@pytest.fixture
def label(run: Asking, server: Served, page: Page) -> Iterator[Page]:
    """The labeling page, with three queries to answer."""
    run.ask(3)
    yield opened(page, server)
    page.close()
    until(lambda: run.queue.sweep() >= 0 and run.queue.stats().leased == 0)
    run.forget()
