"""Coach, forks, the exercise and its verdict on the pages."""

from __future__ import annotations

import json

import pytest

from gptlab import launcher
from gptlab.config import PRESETS
from gptlab.corpus import open_corpus
from gptlab.fast import precision
from gptlab.fork import parent_of
from gptlab.runs import Run, RunStore
from pages.shared import draft
from tests.exercise_run import EXERCISE, PUBLISHED, make_exercise_run
from tests.fake_run import hold, make_run
from tests.pages.seen import buttons, components, dashboard, primary, words
from tests.test_fork import CONFIG, worked

TINY = PRESETS["tiny"]


def measures(app) -> dict[str, list[str]]:
    table = next(table for table in components(app, "text_table") if table["label"] == "Losses in three units")
    return {row[0]: row[1:] for row in table["rows"]}


def plain(element) -> str:
    """What an element reads, without the marks that keep Markdown from being read."""
    return element.value.replace("\\", "")


def verdict_rows(app) -> list[list[str]]:
    return next(table for table in components(app, "text_table") if "published" in table["label"])["rows"]


def test_the_coach_reads_a_finished_run_and_offers_ways_on() -> None:
    run = make_run(RunStore(), config=TINY)
    app = dashboard("training", run=run.id)
    assert "since then training loss fell by" in words(app)
    assert "the model is memorising" in words(app)
    assert "Go back to best" in words(app)
    assert not buttons(app)["Open best in the Playground"].disabled
    assert not buttons(app)["Continue from best …"].disabled
    assert len(primary(app)) == 1
    assert measures(app)["Uniform guessing, ln 50,257"] == ["10.825", "50,257", "4.028"]


def test_before_anything_is_saved_the_ways_on_stand_there_disabled_with_the_reason() -> None:
    run = make_run(RunStore(), status="failed", until=0, config=TINY, weights=False, message="It failed.")
    app = dashboard("training", run=run.id)
    assert "ended before its first evaluation" in words(app)
    assert buttons(app)["Continue from best …"].disabled
    assert "Nothing is saved yet" in buttons(app)["Open best in the Playground"].help


def test_a_live_run_is_read_too() -> None:
    run = make_run(RunStore(), status="running", until=12, config=TINY)
    with hold(run):
        app = dashboard("training", run=run.id)
    assert "the model still learns" in words(app)


def test_a_run_whose_text_is_gone_keeps_what_needs_none() -> None:
    run = make_run(RunStore(), config=TINY.with_fields(data={"corpus": f"sha256:{'0' * 64}"}))
    app = dashboard("training", run=run.id)
    assert "The text of this run is not here any more" in words(app)
    assert measures(app)["Training, last"][2] == "–"
    assert not app.exception


def test_continue_from_best_drafts_a_fork_with_the_model_fixed() -> None:
    config = TINY.with_fields(optim={"learning_rate": 1e-3})
    run = make_run(RunStore(), config=config, name="<b>first</b>")
    app = dashboard("training", run=run.id)
    app.button(key="fork-best").click().run()
    assert draft.read_draft().fork == (run.id, "best")
    assert draft.load_draft() == config
    app.switch_page("pages/hyperparameters.py").run()
    assert "A fork of \\<b\\>first\\<\\/b\\>" in words(app)
    assert app.number_input(key="model.n_layers").disabled
    assert not app.text_input(key="model.drop_rate").disabled
    assert not app.text_input(key="optim.learning_rate").disabled
    app.text_input(key="optim.learning_rate").set_value("0.0001").run()
    assert draft.load_draft().optim.learning_rate == 1e-4
    app.button(key="reset-all").click().run()
    assert draft.load_draft() == config
    assert draft.read_draft().fork == (run.id, "best")


def test_a_preset_or_a_press_on_not_a_fork_ends_the_fork() -> None:
    run = make_run(RunStore(), config=TINY)
    draft.choose_fork(run, "best")
    app = dashboard("hyperparameters")
    app.button(key="drop-fork").click().run()
    assert draft.read_draft().fork is None
    assert "A fork of" not in words(app)
    draft.choose_fork(run, "best")
    app.run()
    app.button(key="choose-small").click().run()
    assert draft.read_draft().fork is None
    assert draft.load_draft() == PRESETS["small"].with_fields(data={"corpus": TINY.data.corpus})
    assert draft.draft_name() == ""


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Run]:
    runs: list[Run] = []
    monkeypatch.setattr(launcher, "start", runs.append)
    return runs


def test_start_makes_the_fork_and_the_next_run_is_none(started: list[Run]) -> None:
    parent = RunStore().create(CONFIG, name="the parent")
    worked(parent)
    draft.choose_fork(parent, "best")
    app = dashboard("training", run="new")
    assert "begins with the weights of best" in words(app)
    buttons(app)["Start"].click()
    app.run()
    (child,) = started
    assert child.initial_weights is not None
    assert parent_of(child).run == parent.id  # type: ignore[union-attr]
    assert child.name == "the parent, continued"
    assert draft.read_draft().fork is None
    assert "it began with the weights of the parent, best" in words(app)
    RunStore().delete(parent.id)
    app.run()
    assert "That run was deleted since" in words(app)


@pytest.mark.parametrize("gone", ["run", "checkpoint", "shape"])
def test_a_fork_of_what_is_gone_or_does_not_fit_cannot_start(started: list[Run], gone: str) -> None:
    run = make_run(RunStore(), config=TINY)
    draft.choose_fork(run, "best" if gone != "checkpoint" else "step-77")
    if gone == "run":
        RunStore().delete(run.id)
    if gone == "shape":
        draft.edit_draft(model={"n_layers": 2})
    app = dashboard("training", run="new")
    assert buttons(app)["Start"].disabled
    told = {"run": "There is no run", "checkpoint": "has no checkpoint", "shape": "n\\_layers 2 instead of 3"}[gone]
    assert any(told in error.value for error in app.error)
    app.button(key="drop-fork").click().run()
    assert not buttons(app)["Start"].disabled


@pytest.mark.parametrize("native", [True, False])
def test_one_button_prepares_the_exercise_and_says_what_will_run(
    verdict: str, monkeypatch: pytest.MonkeyPatch, native: bool
) -> None:
    monkeypatch.setattr(precision, "multiplies_bf16", lambda: native)
    app = dashboard("hyperparameters")
    app.button(key="exercise").click().run()
    assert draft.load_draft() == PRESETS["gpt2-124m"].with_fields(data={"corpus": "the-verdict"})
    app.query_params["run"] = "new"
    app.switch_page("pages/training.py").run()
    assert "The reference exercise." in words(app)
    assert "SHA-256 b41e41a6" in words(app)
    assert ("multiplied in bf16" in words(app)) is native
    app.session_state["exercise-order"] = "published"
    draft.edit_draft(data={"order": "published"})
    app.run()
    assert draft.load_draft().data.order == "published"
    assert "as published. While it trains" in words(app)


def test_another_draft_is_not_called_the_exercise() -> None:
    assert "The reference exercise." not in words(dashboard("training", run="new"))


def test_the_verdict_stands_below_a_run_of_the_exercise(verdict: str) -> None:
    open_corpus("the-verdict")
    run = make_exercise_run(RunStore())
    app = dashboard("training", run=run.id)
    assert any("Matches: all 18 evaluations" in plain(success) for success in app.success)
    rows = verdict_rows(app)
    assert len(rows) == 18
    assert rows[8] == ["40", "5", "3.879", "3.879", "+0.0 %", "6.130", "6.130", "+0.0 %", "3.732 / 6.160", "✓ inside"]
    assert "17 words in a row as in the story" in words(app)


def test_while_it_trains_the_evaluations_to_come_wait_in_the_table() -> None:
    run = make_exercise_run(RunStore(), PUBLISHED[:7])
    with hold(run):
        app = dashboard("training", run=run.id)
    assert any("Matches so far: the first 7" in plain(success) for success in app.success)
    assert verdict_rows(app)[7] == ["35", "4", "–", "4.586", "–", "–", "6.285", "–", "4.069 / 6.226", ""]


def test_a_wrong_run_is_called_different() -> None:
    run = make_exercise_run(RunStore(), [(train, val * 1.2) for train, val in PUBLISHED])
    app = dashboard("training", run=run.id)
    assert any("Differs: 18 of 18" in plain(warning) for warning in app.warning)
    assert {row[-1] for row in verdict_rows(app)} == {"✗ outside"}


def test_an_evaluation_on_a_spike_is_marked_as_such() -> None:
    trace = [*PUBLISHED]
    trace[4] = (14.949, 15.428)
    run = make_exercise_run(RunStore(), trace, spike=21)
    app = dashboard("training", run=run.id)
    assert any(
        "Matches: 18 evaluations, but 1 that fell on a spike of the loss, are within the spread" in plain(said)
        for said in app.success
    )
    assert [row[-1] for row in verdict_rows(app)].count("on a spike") == 1
    assert "The evaluation at step 20 is left out" in words(app)


def test_another_run_and_a_fork_have_no_verdict() -> None:
    for config, forked in ((TINY, False), (EXERCISE, True)):
        run = make_exercise_run(RunStore(), config=config)
        if forked:
            (run.path / "initial").mkdir()
            (run.path / "initial" / "weights.safetensors").write_bytes(b"x")
            told = {"run": "gone", "name": "gone", "checkpoint": "best", "step": 1}
            (run.path / "initial" / "parent.json").write_text(json.dumps(told))
        assert "Against the published log" not in [item.value for item in dashboard("training", run=run.id).subheader]
