"""The coach, a fork by clicks, and the verdict on the exercise, in a real browser."""

from __future__ import annotations

import re

from playwright.sync_api import Page, expect

from gptlab.fork import parent_of
from gptlab.runs import RunStore
from tests.browser.conftest import PATIENCE, Dashboard
from tests.browser.test_click_through import MINUTES, chip, wait_until
from tests.exercise_run import PUBLISHED, make_exercise_run
from tests.fake_run import hold
from tests.test_fork import CONFIG, worked


def test_a_fork_is_three_clicks_from_the_coach_and_says_where_it_comes_from(dashboard: Dashboard, page: Page) -> None:
    parent = RunStore().create(CONFIG, name="the parent")
    worked(parent)
    page.goto(f"{dashboard.url}/training?run={parent.id}")
    expect(page.get_by_text(re.compile("(finished learning|levelled off|memorising)\\.$"))).to_be_visible(
        timeout=PATIENCE
    )
    expect(page.get_by_role("cell", name="Token frequencies alone")).to_be_visible(timeout=PATIENCE)

    page.get_by_role("button", name="Continue from best").click()  # 1
    expect(page.get_by_role("heading", name="Hyperparameters", exact=True)).to_be_visible(timeout=PATIENCE)
    expect(page.get_by_text("A fork of the parent")).to_be_visible(timeout=PATIENCE)
    expect(page.get_by_label("Layers", exact=True)).to_be_disabled(timeout=PATIENCE)
    page.get_by_role("button", name="Go to training").click()  # 2
    expect(page.get_by_text("and a fresh optimiser")).to_be_visible(timeout=PATIENCE)
    page.get_by_role("button", name="Start", exact=True).click()  # 3
    expect(page.get_by_text(re.compile("it began with the weights of the parent, best"))).to_be_visible(
        timeout=PATIENCE
    )
    expect(chip(page, "Done")).to_be_visible(timeout=3 * MINUTES)
    child = next(run for run in dashboard.store.list() if run.id != parent.id)
    assert parent_of(child).run == parent.id  # type: ignore[union-attr]
    learnt = [run.log().evaluations for run in (parent, child)]
    assert abs(learnt[1][0].val_loss - learnt[0][-1].val_loss) < 0.05  # one step on from there

    page.get_by_role("button", name="To its parent").click()
    expect(page).to_have_url(re.compile(parent.id), timeout=PATIENCE)


def test_the_verdict_follows_a_run_of_the_exercise_evaluation_by_evaluation(dashboard: Dashboard, page: Page) -> None:
    run = make_exercise_run(dashboard.store, PUBLISHED[:7])
    with hold(run):
        page.goto(f"{dashboard.url}/training?run={run.id}")
        expect(page.get_by_text("Matches so far: the first 7")).to_be_visible(timeout=PATIENCE)
        table = page.get_by_role("table", name="Each evaluation beside the published one")
        expect(table.get_by_text("✓ inside")).to_have_count(7, timeout=PATIENCE)
        last = run.log().steps[-1].step
        for event in make_exercise_run(dashboard.store, PUBLISHED[:8]).events():
            if event.step > last:
                run.append(event)
        expect(table.get_by_text("✓ inside")).to_have_count(8, timeout=PATIENCE)
        expect(page.get_by_text("Matches so far: the first 8")).to_be_visible(timeout=PATIENCE)
    wrong = make_exercise_run(dashboard.store, [(train, 1.2 * val) for train, val in PUBLISHED])
    page.goto(f"{dashboard.url}/training?run={wrong.id}")
    expect(page.get_by_text(re.compile("Differs: 18 of 18 evaluations"))).to_be_visible(timeout=PATIENCE)
    wait_until(lambda: page.get_by_text("✗ outside").count() == 18)
