"""Answering in a real browser: keys, buttons, undo, notes. One run and one server for the whole file."""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np
import pytest
from playwright.sync_api import Page, Route, expect

from rlhp.labeling.video import encode
from tests.labeling.page.browser.parts import Asking, Served, opened, playing, press, says, until

pytestmark = pytest.mark.browser

INSTRUCTION = "Which runner moves further to the right? Speed alone counts. Nearly the same distance is a tie."


@pytest.fixture(scope="module")
def run(redis_url: str) -> Iterator[Asking]:
    run = Asking(redis_url, lease_seconds=20.0, strength="yes", instruction=INSTRUCTION)
    yield run
    run.close()


@pytest.fixture(scope="module")
def server(run: Asking) -> Iterator[Served]:
    served = Served("--redis", run.url, "--run", run.queue.run)
    yield served
    served.stop()


@pytest.fixture
def label(run: Asking, server: Served, page: Page) -> Iterator[Page]:
    """The labelling page, with three queries to answer."""
    run.ask(3)
    yield opened(page, server.address)
    page.close()
    until(lambda: run.queue.sweep() >= 0 and run.queue.stats().leased == 0)
    run.forget()


def answered(run: Asking, page: Page, key: str) -> dict[str, object]:
    """Answer with this key, and what arrived of it: query, choice, rev and what is known beside."""
    query = press(page, key)
    return arrived(run, query)


def arrived(run: Asking, query: str) -> dict[str, object]:
    found: list[dict[str, object]] = []

    def look() -> bool:
        for event in run.log():
            if event.event == "answer" and event.query == query:
                side = "left" if event.answer == event.meta["shown_left"] else "right"
                choice = side if event.answer in ("first", "second") else event.answer
                found.append({**event.meta, "choice": choice, "rev": event.rev, "how": event.how})
        return bool(found)

    until(look)
    return found[0]


@pytest.mark.parametrize(
    ("key", "choice"),
    [("ArrowLeft", "left"), ("ArrowRight", "right"), ("ArrowUp", "tie"), ("ArrowDown", "incomparable")],
)
def test_each_arrow_is_an_answer(run: Asking, label: Page, key: str, choice: str) -> None:
    said = answered(run, label, key)
    assert (said["choice"], said["how"], said["rev"]) == (choice, "ok", 1)
    assert int(str(said["latency_ms"])) > 0


def test_the_task_is_on_top(label: Page) -> None:
    playing(label)
    expect(label.get_by_role("heading", level=1)).to_have_text("Which runner moves further to the right?")
    expect(label.locator("#criteria")).to_have_text("Speed alone counts. Nearly the same distance is a tie.")


def test_a_button_answers_like_its_key(run: Asking, label: Page) -> None:
    query = playing(label)
    label.get_by_role("button", name="Equally good").click()
    assert arrived(run, query)["choice"] == "tie"


def test_after_a_click_space_pauses_and_answers_nothing(run: Asking, label: Page) -> None:
    playing(label)
    label.get_by_role("button", name="Equally good").click()
    query = playing(label)
    label.keyboard.press("Space")
    expect(label.get_by_role("button", name="Pause")).to_have_attribute("aria-pressed", "true")
    paused = label.evaluate("() => [...document.querySelectorAll('video.shown')].every((video) => video.paused)")
    assert paused
    assert label.evaluate("() => document.body.dataset.query") == query


def test_the_keyboard_alone_reaches_every_button(label: Page) -> None:
    playing(label)
    names = []
    for _ in range(40):
        label.keyboard.press("Tab")
        names.append(label.evaluate("() => document.activeElement.dataset.action ?? ''"))
    reached = [name for name in dict.fromkeys(names) if name]
    assert reached == [
        *("left", "tie", "incomparable", "right", "undo", "skip", "pause", "replay"),
        *("slow", "normal", "fast", "strength", "note", "help"),
    ]


def test_undo_brings_a_query_back_with_the_next_revision(run: Asking, label: Page) -> None:
    first = press(label, "ArrowLeft")
    assert arrived(run, first)["rev"] == 1
    playing(label)
    label.keyboard.press("z")
    says(label, "Taken back")
    assert playing(label) == first
    expect(label.get_by_role("button", name="Left is better")).to_have_class("previous")
    press(label, "ArrowRight")
    said = arrived(run, first)
    assert (said["choice"], said["rev"], said["how"]) == ("right", 2, "ok")


def test_answers_are_undone_one_after_the_other(run: Asking, label: Page) -> None:
    asked = [press(label, key) for key in ("ArrowLeft", "ArrowUp", "ArrowRight")]
    for query in reversed(asked):
        label.keyboard.press("Backspace")
        label.wait_for_function("(query) => document.body.dataset.query === query", arg=query)
        playing(label)
    assert [press(label, "ArrowDown") for _ in asked] == asked
    until(lambda: run.queue.stats().open == 0)
    last = {event.query: (event.answer, event.rev) for event in run.log() if event.event == "answer"}
    assert last == dict.fromkeys(asked, ("incomparable", 2))


def test_keys_pressed_faster_than_an_undo_undo_again_and_answer_nothing(run: Asking, label: Page) -> None:
    asked = [press(label, key) for key in ("ArrowLeft", "ArrowUp")]
    playing(label)
    label.evaluate(
        "() => ['z', 'ArrowDown', 'z', 's', 'ArrowDown'].forEach((key) =>"
        " document.body.dispatchEvent(new KeyboardEvent('keydown', { key, bubbles: true })))"
    )
    label.wait_for_function("(query) => document.body.dataset.query === query", arg=asked[0])
    assert [press(label, "ArrowUp") for _ in asked] == asked
    until(lambda: run.queue.stats().answered == run.queue.stats().done)
    log = run.log()
    assert [event.query for event in log if event.event == "retract"] == asked[::-1]
    assert {event.event for event in log} == {"answer", "retract"}
    assert "incomparable" not in {event.answer for event in log}


def test_an_undo_whose_reply_got_lost_is_asked_for_again(run: Asking, label: Page) -> None:
    asked = [press(label, "ArrowLeft"), press(label, "ArrowUp")]
    until(lambda: run.queue.stats().open == 1)

    def lose(route: Route) -> None:
        route.fetch()  # the server does its part
        route.abort()

    label.route("**/api/undo", lose, times=1)
    playing(label)
    label.keyboard.press("z")
    expect(label.get_by_role("alert")).to_contain_text("No connection")
    label.keyboard.press("z")
    label.wait_for_function("(query) => document.body.dataset.query === query", arg=asked[1])
    press(label, "ArrowRight")
    until(lambda: run.queue.stats().open == 1)
    assert [event.query for event in run.log() if event.event == "retract"] == asked[1:], "not the one before it too"


def test_a_query_taken_back_in_a_tab_that_closed_is_answered_in_another(
    run: Asking, server: Served, label: Page
) -> None:
    query = press(label, "ArrowLeft")
    assert arrived(run, query)["rev"] == 1
    label.keyboard.press("z")
    label.wait_for_function("(query) => document.body.dataset.query === query", arg=query)
    other = label.context.new_page()
    label.goto("about:blank")
    until(lambda: run.queue.stats().leased == 0)
    opened(other, server.address)
    for _ in range(3):
        press(other, "ArrowRight")
    said = arrived(run, query)
    assert (said["choice"], said["rev"], said["how"]) == ("right", 2, "ok")
    other.close()


def test_a_skipped_query_is_left_to_others(run: Asking, label: Page) -> None:
    query = press(label, "s")
    until(lambda: any(event.event == "skip" and event.query == query for event in run.log()))
    assert playing(label) != query


def test_shift_makes_a_preference_slight(run: Asking, label: Page) -> None:
    assert answered(run, label, "Shift+ArrowLeft")["strength"] == 0.5
    assert answered(run, label, "ArrowLeft")["strength"] == 1.0
    assert "strength" not in answered(run, label, "Shift+ArrowUp")


def test_a_note_goes_with_one_answer(run: Asking, label: Page) -> None:
    playing(label)
    label.keyboard.press("n")
    label.keyboard.type("stumbles <b>twice</b>, zzz ?")
    label.keyboard.press("Enter")
    assert answered(run, label, "ArrowLeft")["note"] == "stumbles <b>twice</b>, zzz ?"
    assert "note" not in answered(run, label, "ArrowLeft")


def test_speed_and_replay_act_on_both_clips(run: Asking, label: Page) -> None:
    playing(label)
    label.keyboard.press("1")
    rates = "() => [...document.querySelectorAll('video.shown')].map((video) => video.playbackRate)"
    assert label.evaluate(rates) == [0.5, 0.5]
    press(label, "ArrowUp")
    playing(label)
    assert label.evaluate(rates) == [0.5, 0.5], "speed is kept from one query to the next"
    label.keyboard.press("r")
    said = answered(run, label, "ArrowLeft")
    assert int(str(said["replays"])) >= 1


def test_both_clips_begin_again_together(label: Page) -> None:
    playing(label)
    label.wait_for_function("() => document.querySelector('video.shown').ended")
    label.wait_for_function("() => !document.querySelector('video.shown').ended")
    times = label.evaluate("() => [...document.querySelectorAll('video.shown')].map((video) => video.currentTime)")
    assert abs(times[0] - times[1]) < 0.1


def test_less_motion_plays_once(label: Page) -> None:
    label.emulate_media(reduced_motion="reduce")
    playing(label)
    expect(label.get_by_role("button", name="Pause")).to_have_attribute("aria-pressed", "true")
    assert label.evaluate("() => [...document.querySelectorAll('video.shown')].every((video) => video.ended)")


def test_help_lists_the_keys(label: Page) -> None:
    playing(label)
    label.keyboard.press("?")
    help_ = label.get_by_role("dialog", name="Keys")
    expect(help_).to_contain_text("Equally good")
    expect(help_).to_contain_text("Slightly better")
    label.keyboard.press("Escape")
    expect(help_).to_be_hidden()


def test_a_phone_shows_one_clip_above_the_other(label: Page) -> None:
    label.set_viewport_size({"width": 390, "height": 844})
    playing(label)
    expect(label.get_by_role("button", name="Top is better")).to_be_in_viewport(ratio=1)
    top, bottom = (label.locator(".stage").nth(side).bounding_box() for side in (0, 1))
    assert top is not None
    assert bottom is not None
    assert top["y"] + top["height"] <= bottom["y"]
    assert label.evaluate("() => document.documentElement.scrollWidth <= innerWidth")


def test_animated_pictures_play_like_videos(run: Asking, server: Served, page: Page) -> None:
    frames = np.random.default_rng(0).integers(0, 255, (15, 32, 48, 3), np.uint8)
    picture = encode(frames, fps=30, codec="apng")
    run.ask(2, clips=(picture, picture))
    opened(page, server.address)
    playing(page)
    page.keyboard.press("r")
    said = answered(run, page, "ArrowLeft")
    assert (said["choice"], said["replays"]) != ("left", 0)
    playing(page)
    expect(page.locator("canvas.shown")).to_have_count(2)
    press(page, "ArrowLeft")
    page.close()


def test_two_tabs_are_asked_different_queries(run: Asking, server: Served, label: Page) -> None:
    run.ask(2)
    other = opened(label.context.new_page(), server.address)
    mine = {playing(label), press(label, "ArrowLeft"), playing(label)}
    theirs = {playing(other)}
    assert not mine & theirs
    other.close()


def test_a_tab_that_is_left_gives_its_queries_back_at_once(run: Asking, label: Page) -> None:
    expired = run.queue.stats().expired
    playing(label)
    until(lambda: run.queue.stats().leased == 2)
    label.goto("about:blank")
    until(lambda: run.queue.stats().leased == 0)
    assert run.queue.stats().pending == 3
    assert run.queue.stats().expired == expired, "given back, not run out"


def test_the_queries_of_a_closed_tab_go_to_another(run: Asking, server: Served, label: Page) -> None:
    held = {press(label, "ArrowLeft"), playing(label)}
    other = label.context.new_page()
    label.close()
    opened(other, server.address)
    seen = {press(other, "ArrowLeft"), press(other, "ArrowLeft")}
    assert len(seen | held) == 3
    other.close()


def test_the_page_says_what_it_waits_for(run: Asking, label: Page) -> None:
    for _ in range(3):
        press(label, "ArrowLeft")
    run.queue.set_info({"segments": "120", "segments_wanted": "500"})
    expect(label.locator("#reason")).to_have_text("Collecting segments")
    expect(label.locator("#detail")).to_have_text("120 of 500")
    expect(label.get_by_role("button", name=re.compile("Left is better"))).to_be_disabled()
    run.ask(1)
    playing(label)
