"""The whole way through the dashboard, as a person goes it: clicks in a real browser, a real worker behind it."""

from __future__ import annotations

import re
import time
from collections.abc import Callable

from playwright.sync_api import Locator, Page, expect

from gptlab.config import PRESETS
from gptlab.runs import Run
from pages.shared.draft import save_draft
from tests.browser.conftest import PATIENCE, Dashboard

MINUTES = 60_000


def visit(page: Page, title: str) -> None:
    """One click in the sidebar."""
    page.get_by_test_id("stSidebarNav").get_by_role("link", name=title).click()
    expect(page.get_by_role("heading", name=title, exact=True)).to_be_visible(timeout=PATIENCE)


def chip(page: Page, text: str) -> Locator:
    return page.get_by_text(text, exact=True).first


def wait_until(condition: Callable[[], object], seconds: float = 120) -> None:
    give_up = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < give_up, "it did not come about"
        time.sleep(0.1)


def only_run(dashboard: Dashboard) -> Run:
    (run,) = dashboard.store.list()
    return run


def points(page: Page) -> int:
    """How many points the live chart has drawn."""
    return int(page.locator(".lc-plot").first.get_attribute("data-points") or 0)


def slow_draft(steps: int = 100_000) -> None:
    """A run of small quick steps that does not end by itself while a test looks on."""
    model = {"context_length": 32, "emb_dim": 32, "n_heads": 2, "n_layers": 2}
    train = {"num_epochs": 10_000, "max_steps": steps, "keep_checkpoints": 2, "sample_tokens": 8}
    save_draft(PRESETS["tiny"].with_fields(model=model, train=train))


def start(page: Page, dashboard: Dashboard) -> Run:
    page.goto(f"{dashboard.url}/training")
    page.get_by_role("button", name="Start").click()
    expect(page).to_have_url(re.compile(r"run=\d{8}-"), timeout=PATIENCE)
    return only_run(dashboard)


def test_six_clicks_from_nothing_to_a_model_that_answers(dashboard: Dashboard, page: Page) -> None:
    page.goto(dashboard.url)
    expect(page.get_by_role("heading", name="Corpus", exact=True)).to_be_visible(timeout=PATIENCE)
    expect(page.get_by_role("heading", name=re.compile("What the River Says"))).to_be_visible()

    page.get_by_role("button", name="Choose the size").click()  # 1
    expect(page.get_by_role("heading", name="Hyperparameters", exact=True)).to_be_visible()
    page.get_by_role("button", name="Go to training").click()  # 2
    expect(page.get_by_role("heading", name="Training", exact=True)).to_be_visible()
    page.get_by_role("button", name="Start").click()  # 3
    expect(page).to_have_url(re.compile(r"run=\d{8}-"), timeout=PATIENCE)
    run = only_run(dashboard)
    assert run.config.with_fields(data={"corpus": "builtin"}) == PRESETS["tiny"]

    wait_until(lambda: points(page) > 40)
    before = points(page)
    address = page.url
    page.reload()  # half-way: nothing is lost
    expect(page.get_by_role("heading", name="Training", exact=True)).to_be_visible()
    assert page.url == address
    wait_until(lambda: points(page) > before)
    expect(chip(page, "Done")).to_be_visible(timeout=6 * MINUTES)
    assert run.status() == "finished"
    assert [row.epoch for row in run.log().samples] == list(range(11))

    visit(page, "Samples")  # 4
    expect(page.get_by_text("After epoch 10", exact=True).first).to_be_visible()
    expect(page.get_by_text("Before training").first).to_be_visible()
    visit(page, "Playground")  # 5
    page.get_by_role("textbox", name="Prompt").fill("What does the river")
    page.get_by_role("button", name="Generate").click()  # 6
    expect(page.get_by_text(re.compile(r"tokens a second|tokens/s"))).to_be_visible(timeout=PATIENCE)
    expect(page.get_by_role("button", name="Generate")).to_be_enabled(timeout=PATIENCE)

    visit(page, "Runs")
    expect(page.locator(".lc-plot")).to_be_visible()


WHERE_IT_STOOD = """
window.stood = [];
(function look() {
  const found = [...document.querySelectorAll("button")].find((one) => one.innerText.includes("Single step"));
  const place = found && JSON.stringify(found.getBoundingClientRect());
  if (place && window.stood.at(-1) !== place) window.stood.push(place);
  requestAnimationFrame(look);
})();
"""


def test_a_restarted_dashboard_finds_the_run_and_stop_and_resume_work(dashboard: Dashboard, page: Page) -> None:
    slow_draft()
    run = start(page, dashboard)
    wait_until(lambda: run.log().steps_completed > 20)
    dashboard.restart()
    steps = run.log().steps_completed
    assert run.status() == "running"  # training does not notice that the dashboard went
    page.add_init_script(WHERE_IT_STOOD)
    page.goto(f"{dashboard.url}/training")
    expect(page).to_have_url(re.compile(run.id), timeout=PATIENCE)  # the run that trains now is the one shown
    wait_until(lambda: run.log().steps_completed > steps)

    page.get_by_role("button", name="Pause").click()
    expect(chip(page, "Paused")).to_be_visible(timeout=PATIENCE)
    assert len(page.evaluate("window.stood")) == 1  # nothing moves under the pointer, from its first sight on
    paused_at = run.log().steps_completed
    page.get_by_role("button", name="Single step").click()
    wait_until(lambda: run.log().steps_completed == paused_at + 1)
    expect(page.get_by_text(re.compile(rf"step {paused_at + 1:,} of"))).to_be_visible(timeout=PATIENCE)

    page.get_by_role("button", name="Stop …").click()
    page.get_by_role("dialog").get_by_role("button", name="Stop and keep").click()
    expect(chip(page, "Stopped")).to_be_visible(timeout=PATIENCE)
    kept = run.checkpoint("last")
    assert kept.step == paused_at + 1
    expect(page.get_by_text(kept.name).first).to_be_visible()  # the page says what was saved

    page.get_by_role("button", name="Resume").click()
    wait_until(lambda: run.log().steps_completed > kept.step + 2)
    expect(page.get_by_role("button", name="Pause")).to_be_visible(timeout=PATIENCE)
    assert [event.step for event in run.log().resumed] == [kept.step]


def test_zoom_and_hidden_lines_survive_updates_and_a_point_comes_quickly(dashboard: Dashboard, page: Page) -> None:
    slow_draft()
    run = start(page, dashboard)
    wait_until(lambda: points(page) > 60)
    plot = page.locator(".lc-plot").first
    plot.evaluate("element => { element.dataset.same = 'yes'; }")
    page.locator(".lc-legend button[data-line=train]").first.or_(page.locator(".lc-legend button").nth(2)).first.click()
    drag = plot.locator(".nsewdrag").first
    drag.scroll_into_view_if_needed()
    box = drag.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 0.001 * box["width"] + 3, box["y"] + box["height"] * 0.2)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.5, box["y"] + box["height"] * 0.8, steps=8)
    page.mouse.up()
    x_range = "element => JSON.stringify(element.layout.xaxis.range)"
    zoomed = plot.evaluate(x_range)
    hidden = "element => element.data.filter(trace => trace.visible === false).map(trace => trace.uid).join()"
    hidden_lines = plot.evaluate(hidden)
    assert hidden_lines
    drawn = points(page)
    wait_until(lambda: points(page) > drawn + 20)
    assert plot.evaluate(x_range) == zoomed
    assert plot.evaluate(hidden) == hidden_lines
    assert plot.get_attribute("data-same") == "yes"  # the very same element: never remounted

    run.request("pause")
    wait_until(lambda: run.status() == "paused")
    page.wait_for_timeout(3000)  # the page has drawn all there is
    before = points(page)
    run.request("step")
    wait_until(lambda: run.log().steps[-1].time > time.time() - 1)
    written = run.log().steps[-1].time
    wait_until(lambda: points(page) > before, 30)
    print(f"point shown {time.time() - written:.2f} s after its event was written")


def test_two_tabs_agree_and_two_presses_start_one_run(dashboard: Dashboard, page: Page) -> None:
    slow_draft()
    other = page.context.new_page()
    for tab in (page, other):
        tab.goto(f"{dashboard.url}/training")
        expect(tab.get_by_role("button", name="Start")).to_be_enabled(timeout=PATIENCE)
    page.get_by_role("button", name="Start").dblclick()
    other.get_by_role("button", name="Start").dispatch_event("click")  # it may have been told already, and be disabled
    # A press that came in time leads to the same run; one that came later is told of it, and starts nothing. Which of
    # the tabs is served first is not said.
    wait_until(lambda: any(re.search(r"run=\d{8}-", tab.evaluate("location.href")) for tab in (page, other)))
    run = only_run(dashboard)
    wait_until(lambda: run.log().steps_completed > 5)
    for tab in (page, other):
        expect(tab.get_by_role("link", name=run.id).first).to_be_visible(timeout=PATIENCE)
    assert only_run(dashboard).id == run.id
    for tab in (page, other):
        tab.goto(f"{dashboard.url}/training?run={run.id}")
    page.get_by_role("button", name="Stop …").click()
    page.get_by_role("dialog").get_by_role("button", name="Stop and keep").click()
    for tab in (page, other):
        expect(chip(tab, "Stopped")).to_be_visible(timeout=PATIENCE)


def test_a_double_press_starts_one_run_and_leads_to_it(dashboard: Dashboard, page: Page) -> None:
    slow_draft()
    page.goto(f"{dashboard.url}/training")
    page.get_by_role("button", name="Start").dblclick()
    expect(page).to_have_url(re.compile(r"run=\d{8}-"), timeout=PATIENCE)
    assert page.url.endswith(only_run(dashboard).id)


def test_the_corpus_page_is_found_by_its_name_too(dashboard: Dashboard, page: Page) -> None:
    page.goto(f"{dashboard.url}/corpus?run=abc")
    expect(page.get_by_role("heading", name="Corpus", exact=True)).to_be_visible(timeout=PATIENCE)
    expect(page).to_have_url(f"{dashboard.url}/?run=abc", timeout=PATIENCE)
    expect(page.get_by_role("dialog")).to_have_count(0)  # Streamlit's "Page not found"


def test_a_second_run_on_the_device_is_asked_about_first(dashboard: Dashboard, page: Page) -> None:
    slow_draft()
    run = start(page, dashboard)
    wait_until(lambda: run.log().started is not None)
    page.goto(f"{dashboard.url}/training?run=new")
    expect(page.get_by_text(re.compile("Two runs share the device"))).to_be_visible(timeout=PATIENCE)
    expect(page.get_by_role("button", name="Start")).to_be_disabled()
    expect(page.get_by_text(re.compile("The first sample comes"))).to_be_visible(timeout=PATIENCE)  # all is drawn
    page.get_by_text("Start beside it all the same").click()
    expect(page.get_by_role("button", name="Start")).to_be_enabled(timeout=PATIENCE)
