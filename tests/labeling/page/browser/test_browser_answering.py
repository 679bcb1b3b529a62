"""Answering in a real browser: keys, buttons, undo, notes, tabs beside each other. One
server for the whole file.
"""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, Route, expect

from tests.labeling.page.browser.parts import (
    Asking,
    Served,
    answered,
    arrived,
    opened,
    playing,
    press,
    says,
    until,
)

pytestmark = pytest.mark.browser


@pytest.mark.parametrize(
    ("key", "choice"),
    [
        ("ArrowLeft", "left"),
        ("ArrowRight", "right"),
        ("ArrowUp", "tie"),
        ("ArrowDown", "incomparable"),
    ],
)
def test_each_arrow_is_an_answer(run: Asking, label: Page, key: str, choice: str) -> None:
    said = answered(run, label, key)
    assert (said["choice"], said["how"], said["rev"]) == (choice, "ok", 1)
    assert int(str(said["latency_ms"])) > 0


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
    paused = label.evaluate(
        "() => [...document.querySelectorAll('video.shown')].every((video) => video.paused)"
    )
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
    last = {
        event.query: (event.answer, event.rev) for event in run.log() if event.event == "answer"
    }
    assert last == dict.fromkeys(asked, ("incomparable", 2))


def test_keys_pressed_faster_than_an_undo_undo_again_and_answer_nothing(
    run: Asking, label: Page
) -> None:
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
    assert [event.query for event in run.log() if event.event == "retract"] == asked[1:], (
        "not the one before it too"
    )


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
    opened(other, server)
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
    assert answered(run, label, "Shift+ArrowLeft")["confidence"] in (3, 7)
    assert answered(run, label, "ArrowLeft")["confidence"] in (1, 9)
    assert "confidence" not in answered(run, label, "Shift+ArrowUp")


def test_a_note_goes_with_one_answer(run: Asking, label: Page) -> None:
    playing(label)
    label.keyboard.press("n")
    label.keyboard.type("stumbles <b>twice</b>, zzz ?")
    label.keyboard.press("Enter")
    assert answered(run, label, "ArrowLeft")["note"] == "stumbles <b>twice</b>, zzz ?"
    assert "note" not in answered(run, label, "ArrowLeft")


def test_two_tabs_are_asked_different_queries(run: Asking, server: Served, label: Page) -> None:
    run.ask(2)
    other = opened(label.context.new_page(), server)
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


def test_the_queries_of_a_closed_tab_go_to_another(
    run: Asking, server: Served, label: Page
) -> None:
    held = {press(label, "ArrowLeft"), playing(label)}
    other = label.context.new_page()
    label.close()
    opened(other, server)
    seen = {press(other, "ArrowLeft"), press(other, "ArrowLeft")}
    assert len(seen | held) == 3
    other.close()
