"""axe-core on every page, by day and by night: nothing serious, nothing critical."""

from __future__ import annotations

from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from tests.browser.conftest import PATIENCE, Dashboard
from tests.browser.test_layout import PAGES, settle
from tests.fake_run import make_run

#: What breaks inside Streamlit's own widgets, which the dashboard cannot alter: (rule, part of the element's HTML).
#: A container with a height cannot be given a tab stop; Chromium and Firefox make a scroller one by themselves.
STREAMLITS_OWN = (("scrollable-region-focusable", 'data-testid="stVerticalBlock"'),)


def findings(page: Page) -> list[str]:
    """Serious and critical findings, each with the element it is about."""
    found: list[dict[str, Any]] = Axe().run(page).response["violations"]
    return [
        f"{rule['id']}: {node['html'][:300]} {node['target']}"
        for rule in found
        if rule["impact"] in ("serious", "critical")
        for node in rule["nodes"]
        if not any(rule["id"] == known and part in node["html"] for known, part in STREAMLITS_OWN)
    ]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_page_has_a_serious_finding(dashboard: Dashboard, browser: Browser, scheme: str) -> None:
    runs = [make_run(dashboard.store, 4, name=f"run {number}") for number in range(5)]
    runs[0].update_about(tags=("sweep",), notes="a note")
    context = browser.new_context(viewport={"width": 1440, "height": 1000}, color_scheme=scheme)  # type: ignore[arg-type]
    context.set_default_timeout(PATIENCE)
    page = context.new_page()
    told = {}
    try:
        for path, title in PAGES.items():
            page.goto(f"{dashboard.url}/{path}")
            settle(page, title)
            found = findings(page)
            for _ in range(4):
                if not found:
                    break
                page.wait_for_timeout(2000)  # Streamlit fades what it draws anew: that is no lasting contrast
                found = findings(page)
            if found:
                told[title] = found
        assert told == {}
    finally:
        context.close()


def test_the_page_can_be_walked_through_with_the_keyboard(dashboard: Dashboard, page: Page) -> None:
    make_run(dashboard.store, 4)
    page.goto(f"{dashboard.url}/runs")
    settle(page, "Runs")
    wanted = page.get_by_role("button", name="Open in Playground")
    for _ in range(120):
        page.keyboard.press("Tab")
        if wanted.evaluate("element => element === document.activeElement"):
            break
    expect(wanted).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Playground", exact=True)).to_be_visible(timeout=PATIENCE)


def test_a_chart_can_be_reached_and_used_with_the_keyboard(dashboard: Dashboard, page: Page) -> None:
    run = make_run(dashboard.store, 4)
    page.goto(f"{dashboard.url}/training?run={run.id}")
    settle(page, "Training")
    legend = page.get_by_role("button", name="validation", exact=True)
    expect(legend).to_have_attribute("aria-pressed", "true")
    for _ in range(80):
        page.keyboard.press("Tab")
        if legend.evaluate("button => button === document.activeElement"):
            break
    expect(legend).to_be_focused()
    page.keyboard.press("Space")
    expect(legend).to_have_attribute("aria-pressed", "false")
