"""The live view and the admin view, over a real run directory."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from rlhp.config import loading
from rlhp.storage.metrics import MetricsWriter
from rlhp.storage.rundir import RunDir
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

TRUE_RETURN = {"env_runners/episode_return_mean": 50.0, "return_correlation": 0.9}


@pytest.fixture
def rundir(asking: Asking, tmp_path: Path) -> RunDir:
    """A run that has learned for ten iterations."""
    sections = {
        "env": {"id": "HalfCheetah-v5"},
        "labels": {"source": "human"},
        "tensorboard": False,
    }
    config = loading.parse({**sections, "runs_dir": str(tmp_path), "name": asking.queue.run})
    rundir = RunDir.create(config, asking.queue.run)
    rundir.write_redis_url(asking.url)
    with MetricsWriter(rundir, tensorboard=False) as metrics:
        for row in range(1, 11):
            facts = {
                "env_steps": row * 2000,
                "reward/version": row,
                "reward/heldout_accuracy": 0.5 + row / 40,
            }
            metrics.write({**facts, "predicted_return_mean": float(row * row), **TRUE_RETURN})
    return rundir


@pytest.fixture
def watched(rundir: RunDir) -> Iterator[Served]:
    served = Served(str(rundir.path))
    yield served
    served.stop()


def test_the_live_view_draws_the_metrics_and_goes_on(
    rundir: RunDir, watched: Served, page: Page
) -> None:
    opened(page, watched, "/live")
    expect(page.locator("#tiles")).to_contain_text("20k")
    chart = page.get_by_role("img", name="Predicted return: newest predicted 100")
    expect(chart).to_be_visible()
    expect(chart.locator("path")).to_have_count(1)
    with MetricsWriter(rundir, tensorboard=False) as metrics:
        metrics.write({"env_steps": 22_000, "predicted_return_mean": 121.0})
    expect(page.get_by_role("img", name="Predicted return: newest predicted 121")).to_be_visible()
    page.locator("svg[aria-label^='Predicted return']").hover()
    expect(page.locator(".told:visible")).to_contain_text("env steps: predicted")


def test_true_returns_are_for_admins(asking: Asking, watched: Served, page: Page) -> None:
    labelers = asking.queue.accounts
    ann, boss = labelers.add("ann"), labelers.add("boss", admin=True)
    opened(page, watched.address, f"/live#token={ann}")
    expect(page.get_by_role("img", name="Predicted return")).to_be_visible()
    expect(page.get_by_role("img", name="True return")).to_have_count(0)
    opened(page, "about:blank", "")
    opened(page, watched.address, f"/live#token={boss}")
    expect(page.get_by_role("img", name="True return")).to_be_visible()


def test_the_predicted_reward_runs_along_with_the_policy(
    rundir: RunDir, watched: Served, page: Page
) -> None:
    videos = rundir.path / "videos"
    videos.mkdir(exist_ok=True)
    (videos / "policy.webm").write_bytes(moving_dot(color=(40, 88, 176)))
    (videos / "policy.json").write_text(
        json.dumps({"predicted": [float(n) for n in range(20)], "env_steps": 12_000})
    )
    opened(page, watched, "/live")
    expect(
        page.get_by_role("img", name="Predicted reward: newest predicted reward 19")
    ).to_be_visible()
    expect(page.locator("#policy-facts")).to_have_text("after 12k env steps")
    cursor = "() => Number(document.querySelector('.cursor').getAttribute('x1'))"
    page.wait_for_function("() => document.querySelector('#policy-video').currentTime > 0.1")
    before = page.evaluate(cursor)
    page.wait_for_function(f"(before) => ({cursor})() !== before", arg=before)


def test_an_admin_sees_who_answers_and_corrects_an_answer(
    asking: Asking, watched: Served, page: Page
) -> None:
    asking.ask(3)
    opened(page, watched)
    query = press(page, "ArrowLeft")
    playing(page)
    page.keyboard.press("n")
    page.keyboard.type("<img src=x onerror=alert(1)>")
    page.keyboard.press("Enter")
    press(page, "ArrowUp")
    until(lambda: asking.queue.stats().answered == 2)
    opened(page, watched, "/admin")
    expect(page.get_by_role("row", name="local")).to_contain_text("2")
    page.get_by_label("Answer", exact=True).select_option("tie")
    expect(page.locator("#log li")).to_have_count(1)
    page.locator("summary").click()
    expect(page.locator("blockquote")).to_have_text("<img src=x onerror=alert(1)>")
    page.get_by_label("Answer", exact=True).select_option("")
    expect(page.locator("#log li")).to_have_count(2)
    page.locator("#log li").nth(1).locator("summary").click()
    page.wait_for_function(
        "() => [...document.querySelectorAll('.clips video')].some((v) => v.currentTime > 0)"
    )
    page.locator("#log li").nth(1).get_by_role("button", name="Cannot tell").click()
    expect(page.locator(".said").filter(has_text="Cannot tell")).to_have_count(1)
    last = [event for event in asking.log() if event.query == query and event.event == "answer"][-1]
    assert (last.answer, last.labeler) == ("incomparable", "local")


def test_the_admin_view_is_refused_to_others(asking: Asking, watched: Served, page: Page) -> None:
    labelers = asking.queue.accounts
    token = labelers.add("ann")
    opened(page, watched.address, f"/admin#token={token}")
    expect(page.get_by_role("alert").first).to_contain_text("admins")
