"""What a labeler sees in a real browser: the task, two clips that play together, help,
and what it waits for.
"""

from __future__ import annotations

import re

import numpy as np
import pytest
from playwright.sync_api import Page, expect

from rlhp.labeling.clips.video import encode
from tests.labeling.page.browser.parts import Asking, Served, answered, opened, playing, press

pytestmark = pytest.mark.browser


def test_the_task_is_on_top(label: Page) -> None:
    playing(label)
    expect(label.get_by_role("heading", level=1)).to_have_text(
        "Which runner moves further to the right?"
    )
    expect(label.locator("#criteria")).to_have_text(
        "Speed alone counts. Nearly the same distance is a tie."
    )


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
    times = label.evaluate(
        "() => [...document.querySelectorAll('video.shown')].map((video) => video.currentTime)"
    )
    assert abs(times[0] - times[1]) < 0.1


def test_less_motion_plays_once(label: Page) -> None:
    label.emulate_media(reduced_motion="reduce")
    playing(label)
    expect(label.get_by_role("button", name="Pause")).to_have_attribute("aria-pressed", "true")
    assert label.evaluate(
        "() => [...document.querySelectorAll('video.shown')].every((video) => video.ended)"
    )


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
    opened(page, server)
    playing(page)
    page.keyboard.press("r")
    said = answered(run, page, "ArrowLeft")
    assert (said["choice"], said["replays"]) != ("left", 0)
    playing(page)
    expect(page.locator("canvas.shown")).to_have_count(2)
    press(page, "ArrowLeft")
    page.close()


def test_the_page_says_what_it_waits_for(run: Asking, label: Page) -> None:
    for _ in range(3):
        press(label, "ArrowLeft")
    run.queue.set_info({"segments": "120", "segments_wanted": "500"})
    expect(label.locator("#reason")).to_have_text("Collecting segments")
    expect(label.locator("#detail")).to_have_text("120 of 500")
    expect(label.get_by_role("button", name=re.compile("Left is better"))).to_be_disabled()
    run.ask(1)
    playing(label)
