"""The theatre in a real browser: scrubbing, comparing, copies under the pointer, and the chart that goes along."""

from __future__ import annotations

import re

from playwright.sync_api import Page, expect

from gptlab.config import RunConfig
from gptlab.corpus import add_corpus
from gptlab.events import Probed
from gptlab.probing import packed
from gptlab.runs import Run, RunStore
from gptlab.tokenizer import get_tokenizer
from tests.browser.conftest import PATIENCE, Dashboard
from tests.fake_run import make_run

STORY = "The lamp stood by the window. She said that the lamp was not hers, and went home. " * 40
HOSTILE = "<img src=x onerror=alert(1)>"


def a_run(store: RunStore) -> Run:
    """Six epochs, the last of which copy; every token's loss is known."""
    config = RunConfig().with_fields(data={"corpus": add_corpus("story", STORY).reference}, train={"num_epochs": 6})
    texts = (f" Ware {HOSTILE} sofa", " the the the the the", " She said that the lamp was not hers")
    run = make_run(store, 6, config=config, texts=texts, prompts=("Every effort moves you", HOSTILE))
    ids = tuple(get_tokenizer().encode(" The lamp, and Anna"))
    for epoch in range(7):
        losses = packed([10.0 / (1 + epoch)] * (len(ids) - 1))
        run.append(Probed(step=9 * epoch, epoch=epoch, part="training", losses=losses, seconds=0.1, token_ids=ids))
    return run


def test_epochs_are_gone_through_compared_and_read_without_asking_the_server(dashboard: Dashboard, page: Page) -> None:
    run = a_run(dashboard.store)
    page.goto(f"{dashboard.url}/samples?run={run.id}")
    theatre = page.locator(".th")
    expect(theatre).to_have_attribute("data-epoch", "6", timeout=PATIENCE)
    heat = page.locator(".heat-head b")
    expect(heat).to_have_text("After epoch 6", timeout=PATIENCE)

    page.keyboard.press("ArrowLeft")
    expect(theatre).to_have_attribute("data-epoch", "5")
    expect(page).to_have_url(re.compile(r"epoch=5"))
    expect(heat).to_have_text("After epoch 5")
    page.locator(".th-frame").first.click()
    expect(theatre).to_have_attribute("data-epoch", "0")
    expect(page.locator(".tt tr.chosen").first).to_contain_text("Before training")
    expect(page.locator(".th-side").first).to_contain_text(HOSTILE)  # as text
    assert page.locator("img[src=x]").count() == 0

    page.get_by_role("button", name="Hold this epoch").click()
    page.get_by_role("button", name="Epoch 6").first.click()  # in the table
    expect(theatre).to_have_attribute("data-epoch", "6")
    expect(page.locator(".th-side").nth(1).locator(".th-title")).to_have_text("Before training", timeout=PATIENCE)
    expect(page.locator(".th-side").first.locator(".added").first).to_be_visible(timeout=PATIENCE)

    page.locator(".th-side").first.locator(".copied").nth(2).hover()
    card = page.locator(".th-side").first.locator(".card")
    expect(card).to_contain_text("training part, character")
    expect(card).to_contain_text("probability")
    page.locator(".th-prompt").nth(1).click()
    expect(page.locator(".th-side").first.locator(".prompt").first).to_be_visible()

    page.locator(".th-frame").first.click()
    page.locator(".th-play").click()
    expect(theatre).to_have_attribute("data-epoch", "6", timeout=PATIENCE)  # it plays to the end

    page.locator(".heat canvas").focus()
    for key in ("ArrowRight", "ArrowRight", "ArrowDown"):
        page.keyboard.press(key)
    expect(page.locator(".heat-told")).to_contain_text("nats, probability")


def test_a_token_of_a_sample_and_of_a_watched_passage_leads_to_its_place_in_the_text(
    dashboard: Dashboard, page: Page
) -> None:
    run = a_run(dashboard.store)
    page.goto(f"{dashboard.url}/samples?run={run.id}")
    for where in (page.locator(".th-side").first, page.locator(".heat")):
        where.locator(".tok", has_text="lamp").click(timeout=PATIENCE)
        expect(page).to_have_url(re.compile("token=.*after=|after=.*token="), timeout=PATIENCE)
        dialog = page.get_by_role("dialog")
        expect(dialog.get_by_text("Where this token comes from")).to_be_visible(timeout=PATIENCE)
        expect(dialog.get_by_text("here as where you pressed")).to_be_visible(timeout=PATIENCE)
        dialog.get_by_role("button", name="Close").click()
        expect(page).not_to_have_url(re.compile("token="), timeout=PATIENCE)
        assert "after=" not in page.url  # both went in one step, and both came in one:
    page.go_back()
    expect(dialog.get_by_text("here as where you pressed")).to_be_visible(timeout=PATIENCE)
    assert "after=" in page.url
    page.go_back()
    expect(dialog).to_have_count(0, timeout=PATIENCE)
    assert "after=" not in page.url


def test_the_chart_and_the_samples_beside_it_agree_on_the_epoch(dashboard: Dashboard, page: Page) -> None:
    run = a_run(dashboard.store)
    page.goto(f"{dashboard.url}/training?run={run.id}")
    feed, said = page.locator(".th"), page.locator(".th-said")
    expect(feed).to_have_attribute("data-epoch", "6", timeout=PATIENCE)
    drag = page.locator(".lc-plot .nsewdrag").first
    expect(drag).to_be_attached(timeout=PATIENCE)
    drag.scroll_into_view_if_needed()
    box = drag.bounding_box()
    assert box is not None
    x, y = box["x"] + box["width"] * 2 / 6.12, box["y"] + box["height"] / 2  # where epoch 2 ends
    page.mouse.move(x - 40, y)
    page.mouse.move(x, y, steps=4)
    expect(feed).to_have_attribute("data-epoch", "2")
    expect(said).to_contain_text("under the pointer")
    page.mouse.move(5, 5)
    expect(feed).to_have_attribute("data-epoch", "6")
    page.mouse.move(x, y, steps=4)
    page.mouse.down()
    page.mouse.up()
    page.mouse.move(5, 5)
    expect(feed).to_have_attribute("data-epoch", "2")  # a click stays
    page.locator(".th-frame", has_text="epoch 4").click()
    marks = "element => element.layout.shapes.map(shape => shape.x0).join()"
    page.wait_for_function(f"({marks})(document.querySelector('.lc-plot')) === '4'", timeout=PATIENCE)
