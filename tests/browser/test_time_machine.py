"""The playground in a real browser: one small trained run, and everything that a person can ask it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator

import pytest
from playwright.sync_api import Locator, Page, expect

from gptlab import launcher
from gptlab.config import PRESETS
from gptlab.preflight import prepare
from gptlab.runs import Run
from tests.browser.conftest import PATIENCE, ROOT, Dashboard

SMALL = PRESETS["tiny"].with_fields(
    model={"context_length": 32, "emb_dim": 32, "n_heads": 2, "n_layers": 2},
    train={"num_epochs": 3, "sample_tokens": 5, "device": "cpu"},
)


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dashboard]:
    """A dashboard whose data folder holds one run of three epochs."""
    folder = tmp_path_factory.mktemp("studio")
    dashboard = Dashboard(folder / "home", folder / "streamlit.log")
    settings = [
        f"--set={section}.{name}={value}"
        for section, fields in (("model", SMALL.model), ("train", SMALL.train))
        for name, value in fields.model_dump(
            include={"context_length", "emb_dim", "n_heads", "n_layers", "num_epochs", "sample_tokens", "device"}
        ).items()
    ]
    subprocess.run(
        [sys.executable, "-m", "gptlab", "train", "--preset", "tiny", "--name", "small one", *settings],
        cwd=ROOT,
        env={**os.environ, "GPTLAB_HOME": str(dashboard.home)},
        check=True,
        capture_output=True,
    )
    dashboard.start()
    yield dashboard
    dashboard.stop()
    for run in dashboard.store.list():
        launcher.force_stop(run, grace=0.2)


def trained(studio: Dashboard) -> Run:
    return studio.store.get("small one")


def visit(page: Page, studio: Dashboard, address: str) -> None:
    page.goto(f"{studio.url}/{address}&run={trained(studio).id}")
    expect(page.get_by_text("In memory").or_(page.get_by_role("dialog")).first).to_be_visible(timeout=PATIENCE)


def tokens_of(page: Page, label: str) -> Locator:
    return page.locator(f'[aria-label^="{label}"] .tok')


def written(page: Page) -> Locator:
    """The tokens of the answer that are not the prompt."""
    return page.locator('[aria-label^="The answer, each token"] .tok:not(.prompt)')


def test_an_answer_branches_at_a_token_is_walked_back_and_survives_a_reload(studio: Dashboard, page: Page) -> None:
    visit(page, studio, "playground?prompt=The+river&new_tokens=12&temperature=0.9&seed=3")
    page.get_by_role("button", name="Generate").click()
    expect(page.get_by_text(re.compile("12 tokens in"))).to_be_visible(timeout=PATIENCE)
    first = written(page).all_text_contents()
    word = next(place for place, text in enumerate(first) if place > 1 and text.strip())
    written(page).nth(word).click()
    alternatives = page.get_by_role("table", name=re.compile("Alternatives at this place"))
    other = alternatives.locator("tr:not(.chosen) button").first
    other.click()
    expect(page.get_by_text(re.compile("instead$"))).to_be_visible(timeout=PATIENCE)
    expect(written(page)).to_have_count(word + 1 + 12, timeout=PATIENCE)
    assert written(page).all_text_contents()[:word] == first[:word]
    page.get_by_text("The first answer").click()
    expect(written(page)).to_have_count(12, timeout=PATIENCE)
    assert written(page).all_text_contents() == first

    rows = page.get_by_role("table", name=re.compile("likeliest next tokens")).locator("tbody tr")
    kept = page.get_by_text(re.compile(r"^[\d,]+ of 50,257 tokens can be drawn"))
    expect(rows).to_have_count(12, timeout=PATIENCE)
    page.get_by_text("Careful").click()
    expect(kept).to_have_text(re.compile("^1 of 50,257"), timeout=PATIENCE)
    page.get_by_text("Wild").click()
    expect(page).to_have_url(re.compile("temperature=1.6"), timeout=PATIENCE)
    page.reload()
    expect(page.get_by_role("textbox", name="Prompt")).to_have_value("The river", timeout=PATIENCE)
    expect(page.get_by_role("spinbutton", name="Min p")).to_have_value("0.02", timeout=PATIENCE)


def test_two_epochs_answer_side_by_side(studio: Dashboard, page: Page) -> None:
    visit(page, studio, "playground?view=compare&prompt=The+river&new_tokens=10")
    page.get_by_role("button", name="Write both").click()
    expect(page.get_by_text(re.compile("Struck through: only B did"))).to_be_visible(timeout=PATIENCE)
    for side in "AB":
        expect(tokens_of(page, f"The answer of {side}")).to_have_count(2 + 10, timeout=PATIENCE)
        expect(page.get_by_role("table", name=re.compile(f"as {side} sees them"))).to_be_visible()
    assert "b_checkpoint=step-" in page.url


def test_a_token_shows_where_it_looks_and_what_each_layer_would_say(studio: Dashboard, page: Page) -> None:
    visit(page, studio, "playground?view=inside&panels=attention.layers.next.surprise&prompt=The+river+rose+again")
    page.get_by_role("button", name="layer 2, head 1").click()
    expect(page.get_by_text(re.compile("Layer 2, head 1:"))).to_be_visible(timeout=PATIENCE)
    expect(page).to_have_url(re.compile(r"head=2\.1"), timeout=PATIENCE)
    page.locator('[aria-label^="The text: point at"] span').nth(1).hover()
    expect(page.get_by_text(re.compile(r"river \(place 2\) looks at"))).to_be_visible()
    expect(page.get_by_role("table", name="The guess of each layer").locator("tbody tr")).to_have_count(3)
    expect(page.get_by_role("table", name="The 20 likeliest next tokens").locator("tbody tr")).to_have_count(20)
    expect(page.get_by_text(re.compile("Mean surprise"))).to_be_visible()


def test_a_press_on_a_token_of_the_corpus_opens_its_chain(studio: Dashboard, page: Page) -> None:
    page.goto(f"{studio.url}/?run={trained(studio).id}")
    token = page.locator('[aria-label="Tokens"] .tok', has_text="measured").first
    token.click(timeout=PATIENCE)
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_text("Where this token comes from")).to_be_visible(timeout=PATIENCE)
    expect(dialog.get_by_role("table", name="Merges")).to_be_visible(timeout=PATIENCE)
    losses = dialog.get_by_role("table", name="The token's loss at each saved epoch")
    expect(losses.locator("tbody tr")).to_have_count(3, timeout=PATIENCE)
    dialog.get_by_text("Its neighbours").click()
    expect(dialog.get_by_role("table", name="Nearest neighbours by cosine")).to_have_count(2, timeout=PATIENCE)
    dialog.get_by_text("What predicted it").click()
    expect(dialog.get_by_text(re.compile("Layer 1, head 1"))).to_be_visible(timeout=PATIENCE)
    expect(page).to_have_url(re.compile("token="))
    dialog.get_by_role("button", name="Close").click()
    expect(page).not_to_have_url(re.compile("token="), timeout=PATIENCE)


def test_a_text_is_scored_at_two_epochs_and_the_quiz_asks_every_epoch(studio: Dashboard, page: Page) -> None:
    visit(page, studio, "playground?view=score&against=epoch&text=The+river+rose,+and+the+book+said+so.")
    expect(page.get_by_text(re.compile("bits a character"))).to_be_visible(timeout=PATIENCE)
    visit(page, studio, "playground?view=quiz&quiz=5&part=train")
    page.get_by_role("textbox", name="Your guess").fill("river")
    page.get_by_role("button", name="Reveal").click()
    table = page.get_by_role("table", name="What the model guessed at each epoch")
    expect(table.locator("tbody tr")).to_have_count(3, timeout=PATIENCE)


def test_a_run_that_trains_is_played_with_and_its_newer_weights_are_offered(
    studio: Dashboard, page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GPTLAB_HOME", str(studio.home))
    config = SMALL.with_fields(train={"num_epochs": 10_000, "max_steps": 100_000, "keep_checkpoints": 3})
    run = prepare(studio.store, config, name="still training")
    launcher.start(run)
    page.goto(f"{studio.url}/playground?run={run.id}&prompt=The+river&new_tokens=5")
    expect(page.get_by_text(re.compile("Training goes on"))).to_be_visible(timeout=PATIENCE)
    run.request("pause")
    name = run.checkpoint("last").name
    page.goto(f"{studio.url}/playground?run={run.id}&checkpoint={name}&prompt=The+river&new_tokens=5")
    page.get_by_role("button", name="Generate").click()
    expect(page.get_by_text(re.compile("5 tokens in"))).to_be_visible(timeout=PATIENCE)
    run.request("resume")
    offer = page.get_by_role("button", name=re.compile("Use the newest: after"))
    expect(offer).to_be_visible(timeout=PATIENCE)
    offer.click()
    expect(page).to_have_url(re.compile("checkpoint=last"), timeout=PATIENCE)
    launcher.force_stop(run, grace=0.5)


def test_a_lesson_shows_only_itself_and_trains_its_model_on_request(studio: Dashboard, page: Page) -> None:
    page.goto(f"{studio.url}/playground?lesson=tokens")
    expect(page.get_by_role("heading", name="Tokens", exact=True)).to_be_visible(timeout=PATIENCE)
    assert page.get_by_role("button", name="Generate").count() == 0
    page.get_by_role("button", name="Train the small model").click()
    expect(page.get_by_text(re.compile("Training the small model: step"))).to_be_visible(timeout=PATIENCE)
    for run in studio.store.list():
        if run.name != "small one":
            launcher.force_stop(run, grace=0.5)
