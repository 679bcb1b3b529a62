"""From a key press to the next clip, and what five hundred answers leave behind. Both
print what they measured.
"""

from __future__ import annotations

from statistics import median

import pytest
from playwright.sync_api import BrowserContext, Page

from tests.labeling.page.browser.parts import (
    Asking,
    Served,
    moving_dot,
    opened,
    playing,
    press,
    until,
)

pytestmark = pytest.mark.browser

WATCH = """
() => {
  window.waits = [];
  let pressed = null;
  addEventListener("keydown", () => (pressed = performance.now()), true);
  const seen = (video) => {
    if (pressed === null) return;
    window.waits.push(performance.now() - pressed);
    pressed = null;
  };
  const playing = ({ target }) => target.requestVideoFrameCallback(() => seen(target));
  document.addEventListener("playing", playing, true);
}
"""

NEXT = (
    "(shown) => document.body.dataset.seen !== shown && document.body.dataset.seen === "
    "document.body.dataset.query"
)
NEXT += " && document.body.dataset.seen"


def test_the_next_clip_plays_at_once(asking: Asking, served: Served, page: Page) -> None:
    asking.ask(42)
    opened(page, served)
    playing(page)
    page.evaluate(WATCH)
    for number in range(40):
        page.wait_for_function("() => document.querySelectorAll('video[src]').length === 4")
        press(page, ("ArrowLeft", "ArrowRight", "ArrowUp")[number % 3])
        # the next key press would forget a frame that has not been seen yet
        page.wait_for_function("count => window.waits.length === count", arg=number + 1)
    waits = sorted(page.evaluate("() => window.waits"))
    print(
        f"key press to first frame of the next clip: median {median(waits):.0f} ms, 90 % "
        f"{waits[35]:.0f} ms"
    )
    assert len(waits) == 40
    assert not page.evaluate("() => document.querySelectorAll('video').length > 6"), (
        "video elements are used again"
    )


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_five_hundred_answers_leave_no_memory_behind(
    asking: Asking, served: Served, page: Page, context: BrowserContext
) -> None:
    # what stays behind is no matter of pixels
    small = moving_dot(color=(40, 88, 176), count=3, size=64)
    asking.ask(502, clips=(small, small))
    opened(page, served)
    session = context.new_cdp_session(page)

    def held() -> dict[str, float]:
        session.send("HeapProfiler.collectGarbage")
        counts = session.send("Memory.getDOMCounters")
        heap = session.send("Runtime.getHeapUsage")
        return {
            "heap": heap["usedSize"] / 2**20,
            "nodes": counts["nodes"],
            "listeners": counts["jsEventListeners"],
        }

    def answer(count: int) -> None:
        shown = playing(page)
        for _ in range(count):
            page.keyboard.press("ArrowRight")
            shown = str(page.wait_for_function(NEXT, arg=shown).json_value())

    answer(50)
    before = held()
    answer(450)
    until(lambda: asking.queue.stats().answered == 500)
    after = held()
    print(f"after 50 answers {before}, after 500 {after}")
    assert after["heap"] < before["heap"] + 1.0, "two kilobytes of an answer stay"
    assert after["nodes"] < before["nodes"] + 100, "an element of every fourth answer stays"
    assert after["listeners"] < before["listeners"] + 100
    page.wait_for_function(
        "() => !Object.keys(localStorage).some((name) => name.includes('unsent'))"
    )
