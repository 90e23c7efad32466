"""Whatever a text, a prompt, a name or a file name holds, it is shown as text and nothing in it runs."""

from __future__ import annotations

import re
from pathlib import Path

from playwright.sync_api import Page, expect

from gptlab import launcher
from gptlab.config import PRESETS
from gptlab.preflight import prepare
from tests.browser.conftest import PATIENCE, Dashboard
from tests.browser.test_click_through import visit, wait_until

SCRIPT = "<script>alert('script')</script>"
IMAGE = "<img src=x onerror=alert('image')>"
MARKDOWN = "**bold** [link](javascript:alert('link')) $x$ :red[red] # head"
NAME = f"{IMAGE} {SCRIPT}"[:110]
PAGES = ("Corpus", "Hyperparameters", "Training", "Samples", "Playground", "Runs")


def injected(page: Page) -> int:
    """Elements that only a text could have made."""
    return page.locator("img[src=x]").count() + page.locator("a[href^='javascript:']").count()


def test_html_in_corpus_prompt_run_name_and_file_name_is_shown_as_text(
    dashboard: Dashboard, page: Page, tmp_path: Path
) -> None:
    text = f"{SCRIPT}\n{IMAGE}\n{MARKDOWN}\n" + "The quick brown fox did as it was told, and no more. " * 400
    file = tmp_path / "<img src=x onerror=alert('file')>.txt"
    file.write_text(text, encoding="utf-8")

    page.goto(dashboard.url)
    page.locator("input[type=file]").first.set_input_files(file)
    expect(page.get_by_role("heading", name=re.compile("img src=x onerror"))).to_be_visible(timeout=PATIENCE)
    expect(page.get_by_text(SCRIPT).first).to_be_visible(timeout=PATIENCE)
    assert injected(page) == 0

    config = PRESETS["tiny"].with_fields(
        model={"context_length": 16, "emb_dim": 16, "n_heads": 2, "n_layers": 1},
        data={"corpus": str(file)},
        train={"prompts": [IMAGE, SCRIPT, MARKDOWN], "max_steps": 2, "sample_tokens": 4},
    )
    run = prepare(dashboard.store, config, name=NAME)
    launcher.start(run)
    wait_until(lambda: run.status() == "finished")

    page.goto(f"{dashboard.url}/training?run={run.id}")
    for title in PAGES:
        visit(page, title)
        page.wait_for_timeout(1500)
        assert injected(page) == 0, title
    visit(page, "Playground")
    page.get_by_role("textbox", name="Prompt").fill(f"{IMAGE} {SCRIPT}")
    page.get_by_role("button", name="Generate").click()
    expect(page.get_by_text(re.compile("tokens a second"))).to_be_visible(timeout=PATIENCE)
    assert injected(page) == 0
    visit(page, "Samples")
    expect(page.get_by_text(re.compile(re.escape("onerror=alert"))).first).to_be_visible(timeout=PATIENCE)


def test_files_that_are_no_text_are_refused_in_a_sentence_and_the_corpus_stays(
    dashboard: Dashboard, page: Page, tmp_path: Path
) -> None:
    files = {
        "empty.txt": (b"", "is empty"),
        "binary.txt": (b"PNG\x00\x01\x02" * 50, "not a text file"),
        "latin.txt": ("caf\xe9 au lait ".encode("latin-1") * 50, "not UTF-8"),
        "wide.txt": ("wide text ".encode("utf-16") * 50, "UTF-16"),
    }
    page.goto(dashboard.url)
    for name, (data, words) in files.items():
        (tmp_path / name).write_bytes(data)
        page.locator("input[type=file]").first.set_input_files(tmp_path / name)
        expect(page.get_by_text(re.compile(f"{re.escape(name)}.*{words}")).first).to_be_visible(timeout=PATIENCE)
    expect(page.get_by_role("heading", name=re.compile("What the River Says"))).to_be_visible()


def test_a_link_to_a_run_that_is_gone_says_so(dashboard: Dashboard, page: Page) -> None:
    for path in ("training", "samples", "playground"):
        page.goto(f"{dashboard.url}/{path}?run=<script>alert(1)</script>")
        expect(page.get_by_text(re.compile(r"no run|No run")).first).to_be_visible(timeout=PATIENCE)
