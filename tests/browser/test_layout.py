"""Every page on a phone and on a projector, by day and by night: nothing sticks out, one primary button a page."""

from __future__ import annotations

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.conftest import PATIENCE, Dashboard
from tests.fake_run import make_run

PAGES = {
    "": "Corpus",
    "hyperparameters": "Hyperparameters",
    "training": "Training",
    "samples": "Samples",
    "playground": "Playground",
    "runs": "Runs",
}


def settle(page: Page, title: str) -> None:
    expect(page.get_by_role("heading", name=title, exact=True)).to_be_visible(timeout=PATIENCE)
    expect(page.get_by_test_id("stStatusWidget")).to_have_count(0, timeout=PATIENCE)
    page.wait_for_timeout(1000)


@pytest.mark.parametrize(("width", "scheme"), [(390, "light"), (1440, "dark")])
def test_no_page_sticks_out_sideways(dashboard: Dashboard, browser: Browser, width: int, scheme: str) -> None:
    make_run(dashboard.store, name="a run with a rather long name that has to be cut somewhere on a phone")
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)  # type: ignore[arg-type]
    page = context.new_page()
    try:
        for path, title in PAGES.items():
            page.goto(f"{dashboard.url}/{path}")
            settle(page, title)
            sizes = page.evaluate(
                "() => { const main = document.querySelector('[data-testid=stMain]');"
                " return [document.documentElement.scrollWidth, main.scrollWidth, main.clientWidth]; }"
            )
            assert sizes[0] <= width, title
            assert sizes[1] <= sizes[2], title
            assert page.get_by_test_id("stException").count() == 0, title
            expect(page.get_by_test_id("stBaseButton-primary"), title).to_have_count(1, timeout=PATIENCE)
    finally:
        context.close()


def test_every_empty_page_says_what_to_do_next(dashboard: Dashboard, page: Page) -> None:
    for path in ("samples", "playground", "runs"):
        page.goto(f"{dashboard.url}/{path}")
        settle(page, PAGES[path])
        expect(page.get_by_text("No run yet").first).to_be_visible()
        assert page.get_by_test_id("stMain").get_by_role("link").count() >= 1


def test_nothing_is_fetched_from_elsewhere(dashboard: Dashboard, page: Page) -> None:
    make_run(dashboard.store, name="one")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    for path, title in PAGES.items():
        page.goto(f"{dashboard.url}/{path}")
        settle(page, title)
    elsewhere = {url for url in asked if not url.startswith((dashboard.url, "data:", "blob:", "ws://localhost"))}
    assert elsewhere == set()
    assert any("plotly.min.js" in url for url in asked)
