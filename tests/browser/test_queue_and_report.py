"""The queue that starts again with the dashboard, and the report that opens anywhere."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from gptlab.grid import expand
from gptlab.queue import Queue
from tests.browser.conftest import PATIENCE, Dashboard
from tests.browser.test_layout import settle
from tests.fake_run import PROMPT, make_run
from tests.test_launcher import small

EVIL = "</script><img src=x onerror=alert(1)>"


@pytest.fixture
def queue(dashboard: Dashboard, monkeypatch: pytest.MonkeyPatch) -> Iterator[Queue]:
    queue = Queue(dashboard.home / "queue")
    yield queue
    queue.clear()
    for run in dashboard.store.list():
        run.request("stop")


def test_a_queue_is_worked_off_after_the_dashboard_was_restarted(
    dashboard: Dashboard, queue: Queue, page: Page
) -> None:
    queue.add(expand(small(max_steps=3), {"train.seed": [1, 2]}), name="in a row")
    dashboard.restart()
    page.goto(f"{dashboard.url}/runs")
    settle(page, "Runs")
    expect(page.get_by_text("Queue · 2 over")).to_be_visible(timeout=3 * PATIENCE)
    assert [entry.outcome for entry in queue.read().entries] == ["finished", "finished"]
    assert [run.name for run in dashboard.store.list()] == ["in a row · seed 2", "in a row · seed 1"]


def test_a_report_opens_offline_with_its_chart_and_asks_for_nothing(
    dashboard: Dashboard, page: Page, tmp_path: Path
) -> None:
    run = make_run(dashboard.store, 4, name=EVIL, texts=(EVIL, " to the door"))
    page.goto(f"{dashboard.url}/runs?run={run.id}")
    settle(page, "Runs")
    with page.expect_download() as download:
        page.get_by_role("link", name="Report").click()
    file = tmp_path / "report.html"
    download.value.save_as(file)
    dashboard.stop()
    page.context.set_offline(True)
    asked: list[str] = []
    faults: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.goto(file.as_uri())
    expect(page.locator("#chart .scatterlayer .trace").first).to_be_attached()
    before = page.locator("#chart .xtitle").first.text_content()
    page.get_by_role("button", name="Tokens").click()
    expect(page.locator("#chart .xtitle").first).not_to_have_text(before or "")
    expect(page.get_by_role("heading", level=1)).to_have_text(EVIL)
    assert page.locator(".sample .t").count() > 10
    assert PROMPT in (page.locator(".sample").first.text_content() or "")
    assert page.locator("img").count() == 0
    assert {url for url in asked if not url.startswith(("file:", "data:", "blob:"))} == set()
    assert faults == []
