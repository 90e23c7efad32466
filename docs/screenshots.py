"""The README's pictures: train `tiny` from the dashboard in a data folder of its own and photograph every page.

Run from the project's folder: ``python -m docs.screenshots``. Needs requirements-dev.txt and Chromium.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

from tests.browser.conftest import FLAGS, Dashboard

IMAGES = Path(__file__).parent / "images"
PAGES = ("corpus", "hyperparameters", "training", "samples", "playground", "runs")
RIVER = 7850  # GPT-2's id of " river"
ASKED = "What+does+the+river+say%3F"
SIZE = {"width": 1440, "height": 1000}


def settle(page: Page) -> None:
    page.get_by_test_id("stStatusWidget").wait_for(state="detached")
    page.wait_for_timeout(2500)


def photograph(page: Page, name: str) -> None:
    settle(page)
    page.screenshot(path=IMAGES / f"{name}.png")
    print(name, flush=True)


def train(page: Page, dashboard: Dashboard) -> str:
    """Six clicks; the picture of training is taken in the middle. Returns the run's id."""
    page.goto(f"{dashboard.url}/training")
    page.get_by_role("button", name="Start").click()
    page.wait_for_url("**/training?run=2*")
    run = dashboard.store.list()[0]
    while run.log().steps_completed < 120:
        page.wait_for_timeout(500)
    page.screenshot(path=IMAGES / "training.png")
    while run.is_locked():
        page.wait_for_timeout(500)
    run.rename("first try")
    return run.id


def main() -> None:
    IMAGES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        os.environ["GPTLAB_HOME"] = folder
        dashboard = Dashboard(Path(folder), Path(folder) / "streamlit.log")
        dashboard.start()
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        try:
            for scheme, suffix in (("light", ""), ("dark", "-dark")):
                page = browser.new_context(viewport=SIZE, color_scheme=scheme).new_page()  # type: ignore[arg-type]
                page.set_default_timeout(120_000)
                run = train(page, dashboard) if scheme == "light" else dashboard.store.list()[0].id
                for name in PAGES:
                    if name == "training" and scheme == "light":
                        continue  # taken while it ran
                    page.goto(f"{dashboard.url}/{'' if name == 'corpus' else name}?run={run}")
                    settle(page)
                    if name == "playground":
                        page.get_by_role("textbox", name="Prompt").fill("What does the river say?")
                        page.get_by_role("button", name="Generate").click()
                        page.get_by_text("tokens a second").wait_for()
                    photograph(page, f"{name}{suffix}")
                page.goto(f"{dashboard.url}/samples?run={run}&token={RIVER}&place=3")
                page.get_by_role("table", name="The token's loss at each saved epoch").wait_for()
                photograph(page, f"chain{suffix}")
                page.goto(f"{dashboard.url}/playground?run={run}&view=inside&panels=attention.layers&prompt={ASKED}")
                page.get_by_role("table", name="The guess of each layer").wait_for()
                photograph(page, f"inside{suffix}")
        finally:
            browser.close()
            dashboard.stop()


if __name__ == "__main__":
    main()
