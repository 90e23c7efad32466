"""The Runs page: the table, the comparison, and everything that can be done with one run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from gptlab import launcher
from gptlab.config import PRESETS
from gptlab.runs import Run, RunStore
from gptlab.summary import RunSummary, summarise
from pages.shared import run_card, run_table
from pages.shared.compare import said
from pages.shared.compare_samples import counts
from pages.shared.run_arrangement import ORDERS, matches, sort
from tests.fake_run import hold, make_run
from tests.pages.seen import buttons, components, dashboard, primary, words

ENDED = ("finished", "stopped", "discarded", "failed", "interrupted")
HTML = "<img src=x onerror=alert(1)> **bold** [a](b) $x$ ../../etc"


def table(app: AppTest) -> Any:
    return app.dataframe[0].value


def chart(app: AppTest) -> dict[str, Any]:
    return components(app, "live_chart")[0]


def plainly(app: AppTest) -> str:
    return words(app).replace("\\", "")


def links(app: AppTest) -> dict[str, Any]:
    """The link buttons of the page by their label."""
    return {node.proto.label: node.proto for node in app.get("link_button")}


def test_without_a_run_it_says_what_to_do(home: Path) -> None:
    app = dashboard("runs")
    assert not app.exception
    assert "No run yet" in app.info[0].value


def test_the_table_tells_every_runs_key_figures_newest_first(home: Path) -> None:
    older = make_run(RunStore(), 2, name="older")
    newer = make_run(RunStore(), 4, "stopped", name="newer")
    newer.update_about(tags=("sweep", "lr"))
    shown = table(dashboard("runs"))
    assert list(shown["name"]) == ["newer", "older"]
    assert list(shown["status"]) == ["■ stopped", "✓ done"]
    assert list(shown["steps"]) == ["18 of 36", "18 of 18"]
    assert list(shown["epochs"]) == ["2 of 4", "2 of 2"]
    assert list(shown["tags"].iloc[0]) == ["sweep", "lr"]
    line = summarise(older)
    assert shown["val"].iloc[1] == line.best_val_loss == older.log().best.val_loss  # type: ignore[union-attr]
    assert shown["train"].iloc[1] == line.last_train_loss
    assert shown["parameters"].iloc[1] == 162_419_712
    assert shown["bytes"].iloc[1] == line.bytes > 0


def test_a_damaged_run_is_listed_with_what_is_wrong_and_the_others_are_as_ever(home: Path) -> None:
    good, torn, unreadable = (make_run(RunStore(), 2, name=name) for name in ("good", "torn", "unreadable"))
    (torn.path / "config.json").write_text('{"model": ')
    unreadable.events_path.unlink()
    unreadable.events_path.mkdir()
    app = dashboard("runs", run=good.id)
    assert not app.exception
    assert set(table(app)["name"]) == {"good", "torn", "unreadable"}
    assert f"The config.json of run {torn.id} is damaged" in plainly(app)
    assert f"The event log of run {unreadable.id} cannot be read: Is a directory." in plainly(app)
    for run in (torn, unreadable):
        assert not dashboard("runs", run=run.id).exception


def test_the_newest_runs_are_compared_at_first_one_colour_a_run(home: Path) -> None:
    runs = [make_run(RunStore(), 2, name=f"run {number}") for number in range(4)]
    traces = [trace for trace in chart(dashboard("runs"))["figure"]["data"] if trace["x"]]
    assert {trace["name"] for trace in traces} == {
        f"{run.name} · {what}" for run in runs[1:] for what in ("train", "validation")
    }
    for run in runs[1:]:
        train, val = (
            next(t for t in traces if t["name"] == f"{run.name} · {what}") for what in ("train", "validation")
        )
        assert train["line"]["color"] == val["line"]["color"]
        assert train["line"]["width"] < val["line"]["width"]
        assert train["opacity"] < val["opacity"]
    assert len({trace["line"]["color"] for trace in traces}) == 3


@pytest.mark.parametrize(("axis", "last"), [("step", 16.0), ("epoch", 16 / 9), ("tokens", 16 * 512.0), ("time", 8.0)])
def test_the_horizontal_axis_can_be_chosen(home: Path, axis: str, last: float) -> None:
    make_run(RunStore(), 2)
    app = dashboard("runs")
    app.segmented_control(key="runs.axis").set_value(axis).run()
    trace = chart(app)["figure"]["data"][0]
    assert trace["x"][-1] == pytest.approx(last)


def test_only_the_fields_that_differ_are_shown(home: Path) -> None:
    first = PRESETS["tiny"]
    second = first.with_fields(optim={"learning_rate": 1e-3, "grad_clip": 1.0}, data={"shuffle": False})
    make_run(RunStore(), name="one", config=first)
    make_run(RunStore(), name="two", config=second)
    differences = dashboard("runs").dataframe[1].value
    assert differences.to_dict("records") == [
        {"Field": "Shuffle", "two": "off", "one": "on"},
        {"Field": "Learning rate", "two": "0.001", "one": "0.004"},
        {"Field": "Gradient clipping", "two": "1", "one": "–"},
    ]


def test_runs_with_one_configuration_are_said_to_be_the_same(home: Path) -> None:
    for name in ("one", "two"):
        make_run(RunStore(), 2, name=name)
    app = dashboard("runs")
    assert "These runs have the same configuration." in words(app)
    assert "The lowest validation loss is that of" in words(app)


def test_losses_on_different_texts_are_not_ranked(home: Path) -> None:
    for ratio in (0.8, 0.9):
        make_run(RunStore(), 2, config=PRESETS["tiny"].with_fields(data={"train_ratio": ratio}))
    app = dashboard("runs")
    assert "validate on different texts" in words(app)
    assert "The lowest validation loss" not in words(app)


@pytest.mark.parametrize("status", [*ENDED, "running", "paused"])
def test_there_is_one_primary_button_and_it_resumes_what_can_be_resumed(home: Path, status: str) -> None:
    run = make_run(RunStore(), status=status)
    if status in ("running", "paused"):
        with hold(run):
            app = dashboard("runs", run=run.id)
    else:
        app = dashboard("runs", run=run.id)
    resumable = status in ("stopped", "failed", "interrupted")
    assert primary(app) == ["Resume" if resumable else "Open in Playground"]
    assert buttons(app)["Delete …"].disabled == (status in ("running", "paused"))


def test_resume_goes_on_and_shows_the_training_page(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    resumed: list[str] = []
    monkeypatch.setattr(launcher, "resume", lambda run: resumed.append(run.id))
    run = make_run(RunStore(), status="stopped")
    app = dashboard("runs", run=run.id)
    buttons(app)["Resume"].click().run()
    assert resumed == [run.id]
    assert app.title[0].value == "Training"
    assert app.query_params["run"] == run.id


def test_a_resume_that_is_refused_is_a_sentence(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(run: Run) -> None:
        raise launcher.AlreadyRunning(f"Run {run.name} is training already: watch it, or stop it first.")

    monkeypatch.setattr(launcher, "resume", refuse)
    run = make_run(RunStore(), status="stopped", name="a <b>")
    app = dashboard("runs", run=run.id)
    buttons(app)["Resume"].click().run()
    assert not app.exception
    assert app.error[0].value.replace("\\", "") == "Run a <b> is training already: watch it, or stop it first."


def test_resuming_beside_a_run_on_the_same_device_asks_first(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    resumed: list[str] = []
    monkeypatch.setattr(launcher, "resume", lambda run: resumed.append(run.id))
    run, other = (make_run(RunStore(), status="interrupted", name=name) for name in ("mine", "theirs"))
    with hold(other):
        app = dashboard("runs", run=run.id)
        buttons(app)["Resume"].click().run()
        assert not resumed
        assert "theirs is training on cpu now" in plainly(app)
        buttons(app)["Resume nevertheless"].click().run()
    assert resumed == [run.id]


def about_form(app: AppTest, name: str | None = None, notes: str | None = None) -> AppTest:
    if name is not None:
        next(item for item in app.text_input if item.label == "Name").set_value(name)
    if notes is not None:
        next(item for item in app.text_area if item.label == "Notes").set_value(notes)
    buttons(app)["Save"].click()
    return app.run()


def test_name_and_notes_are_kept_as_written(home: Path) -> None:
    run = make_run(RunStore(), 2, name="before")
    app = about_form(dashboard("runs", run=run.id), HTML, "first\n<script>second</script>")
    assert not app.exception
    assert (Run(run.path).about.name, Run(run.path).about.notes) == (HTML, "first\n<script>second</script>")
    assert table(app)["name"].iloc[0] == HTML
    assert run.path.is_dir()  # the name never moves anything


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("y" * 300, "The name has 300 characters, more than 120: shorten it."),
        ("a\x00b", "The name holds characters that cannot be shown: leave them out."),
    ],
)
def test_an_impossible_name_is_refused_in_a_sentence_and_nothing_is_lost(home: Path, name: str, fault: str) -> None:
    run = make_run(RunStore(), 2, name="before")
    app = about_form(dashboard("runs", run=run.id), name, "a note")
    assert app.error[0].value.replace("\\", "") == fault
    assert Run(run.path).about.name == "before"
    assert next(item for item in app.text_input if item.label == "Name").value == name  # still there to shorten


def test_a_name_with_html_and_markdown_is_text_wherever_it_stands(home: Path) -> None:
    runs = [make_run(RunStore(), 2, "stopped", name=HTML) for _ in range(2)]
    app = dashboard("runs", run=runs[0].id)
    buttons(app)["Delete …"].click().run()
    assert not app.exception
    assert HTML in plainly(app)  # the dialog names the run
    for element in (*app.markdown, *app.caption):
        assert "<img" not in element.value.replace(r"\<", "")
        assert "**bold" not in element.value


def test_delete_names_the_run_asks_and_removes_only_that_one(home: Path) -> None:
    kept, doomed = make_run(RunStore(), 2, name="kept"), make_run(RunStore(), 2, name="doomed")
    app = dashboard("runs", run=doomed.id)
    buttons(app)["Delete …"].click().run()
    assert "doomed" in words(app)
    assert doomed.path.is_dir()  # not before it is confirmed
    buttons(app)["Delete for good"].click().run()
    app.run()
    assert not app.exception
    assert not doomed.path.exists()
    assert kept.path.is_dir()
    assert list(table(app)["name"]) == ["kept"]
    assert app.query_params["run"] == kept.id


def test_a_run_that_began_to_train_meanwhile_is_not_deleted(home: Path) -> None:
    run = make_run(RunStore(), status="stopped")
    app = dashboard("runs", run=run.id)
    buttons(app)["Delete …"].click().run()
    with hold(run):
        buttons(app)["Delete for good"].click().run()
    assert run.path.is_dir()
    assert "is training: stop it first, then delete it." in plainly(app)


def test_downloads_are_links_that_stream(home: Path) -> None:
    run = make_run(RunStore(), 2)
    found = links(dashboard("runs", run=run.id))
    assert found["Configuration"].url == f"/gptlab/runs/{run.id}/config.json"
    assert found["Metrics as CSV"].url == f"/gptlab/runs/{run.id}/metrics.csv"
    assert found["Download"].url == f"/gptlab/runs/{run.id}/best/weights.safetensors"


def test_the_weights_of_any_checkpoint_can_be_had(home: Path) -> None:
    run = make_run(RunStore(), 2)
    app = dashboard("runs", run=run.id)
    picker = app.selectbox(key=f"runs.weights.{run.id}")
    assert [option.split(" · ")[0] for option in picker.options] == ["best", "step-000018", "step-000009"]
    picker.select("step-000009").run()
    assert links(app)["Download"].url == f"/gptlab/runs/{run.id}/step-000009/weights.safetensors"
    assert links(dashboard("runs", run=make_run(RunStore(), 2, "discarded").id))["Download"].disabled


def test_only_runs_that_changed_are_read_again(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = [make_run(RunStore(), 1, "stopped", name=f"run {number}", weights=False) for number in range(5)]
    run_table.summaries(RunStore())
    read: list[str] = []
    monkeypatch.setattr(run_table, "summarise", lambda run: read.append(run.id) or summarise(run))
    run_table.summaries(RunStore())
    assert read == []
    runs[2].rename("another")
    with hold(runs[4]):
        lines = {line.id: line for line in run_table.summaries(RunStore())}
    assert sorted(read) == sorted([runs[2].id, runs[4].id])
    assert lines[runs[2].id].name == "another"
    assert lines[runs[4].id].status == "running"


def test_values_read_as_people_write_them() -> None:
    assert [said(value) for value in (None, True, 1024, 4e-4, ("a", "b"), (0.9, 0.95))] == [
        "–",
        "on",
        "1,024",
        "0.0004",
        "a, b",
        "0.9, 0.95",
    ]


def test_a_picked_run_that_can_be_resumed_is_the_same_everywhere() -> None:
    assert set(run_card.RESUMABLE) < set(ENDED)


def test_the_run_that_is_looked_at_is_opaque_and_the_others_are_faint(home: Path) -> None:
    one, two = (make_run(RunStore(), 2, name=name) for name in ("one", "two"))
    traces = {t["name"]: t for t in chart(dashboard("runs", run=one.id))["figure"]["data"]}
    assert traces["one · validation"]["opacity"] == 1
    assert traces["two · validation"]["opacity"] < 0.5
    traces = {t["name"]: t for t in chart(dashboard("runs", run=two.id))["figure"]["data"]}
    assert traces["two · validation"]["opacity"] == 1


def test_any_number_of_runs_is_drawn(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_table, "FEWEST_TICKED", 20)
    for number in range(20):
        make_run(RunStore(), 1, name=f"run {number}", weights=False)
    app = dashboard("runs")
    assert not app.exception
    drawn = {trace["name"] for trace in chart(app)["figure"]["data"]}
    assert {f"run {number} · validation" for number in range(20)} <= drawn


def test_operations_are_an_axis_that_follows_the_size_of_the_model(home: Path) -> None:
    for name, preset in (("small model", "tiny"), ("large model", "gpt2-124m")):
        make_run(RunStore(), 2, name=name, config=PRESETS[preset])
    app = dashboard("runs")
    app.segmented_control(key="runs.axis").set_value("flops").run()
    last = {t["name"]: t["x"][-1] for t in chart(app)["figure"]["data"]}
    tokens = 16 * 512
    weights = 12 * 12 * 768**2 + 50_257 * 768
    assert last["large model · validation"] == pytest.approx(6 * weights * tokens, rel=0.05)
    assert last["small model · validation"] < last["large model · validation"] / 10


def test_samples_stand_side_by_side_at_equal_epoch_and_at_equal_tokens(home: Path) -> None:
    short, long = make_run(RunStore(), 2, name="short"), make_run(RunStore(), 4, name="long")
    app = dashboard("runs")
    app.segmented_control(key="runs.equal").set_value("tokens").run()
    slider = next(item for item in app.select_slider if item.label == "Tokens seen")
    slider.set_value(9 * 512).run()
    assert not app.exception
    told = [item.value for item in app.caption if "tokens seen" in item.value]
    assert told == [
        f"After epoch 1 · {9 * 512:,} tokens seen · {counts(run.log().samples[1])}" for run in (long, short)
    ]
    app.segmented_control(key="runs.equal").set_value("epoch").run()
    slider = next(item for item in app.select_slider if item.label == "Epoch")
    assert slider.value == 2  # as far as both came
    slider.set_value(4).run()
    assert "Nothing of this prompt at that point." in words(app)  # the short one has no fourth epoch


def test_the_table_is_arranged_by_words_tags_and_figures(home: Path) -> None:
    lines = [
        RunSummary("a", "first", "finished", 1.0, ("lr",), "too high", best_val_loss=6.0, n_parameters=5, seconds=9),
        RunSummary("b", "second", "finished", 2.0, ("lr", "wd"), "", best_val_loss=5.0, n_parameters=9, seconds=3),
        RunSummary("c", "third", "failed", 3.0),
    ]
    assert [line.id for line in lines if matches(line, "HIGH first", [])] == ["a"]
    assert [line.id for line in lines if matches(line, "", ["lr", "wd"])] == ["b"]
    orders = {order: "".join(line.id for line in sort(lines, order)) for order in ORDERS}
    assert orders["Best validation loss"] == "bac"
    assert orders["Training time"] == "bac"
    assert orders["Parameters"] == "abc"
    assert orders["Newest first"] == "cba"


def test_a_run_that_the_filter_hides_stays_ticked(home: Path) -> None:
    runs = [make_run(RunStore(), 1, name=f"run {number}") for number in range(4)]
    app = dashboard("runs")
    app.text_input(key="runs.find").set_value("run 3").run()
    assert list(table(app)["name"]) == ["run 3"]
    assert "1 of 4 runs" in words(app)
    assert set(app.session_state[run_table.COMPARED]) == {run.id for run in runs[1:]}


def test_the_script_and_the_report_of_a_run_are_offered(home: Path) -> None:
    run = make_run(RunStore(), 2)
    app = dashboard("runs", run=run.id)
    assert "from gptlab import RunConfig, open_corpus, train" in app.code[0].value
    assert links(app)["Report"].url == f"/gptlab/runs/{run.id}/report.html"


@pytest.mark.parametrize("until", [0, 1])
def test_a_run_that_failed_at_its_first_step_is_compared_like_any_other(home: Path, until: int) -> None:
    make_run(RunStore(), 1, "failed", name="failed", until=until, weights=False)
    make_run(RunStore(), 1, name="one epoch", weights=False)
    assert not dashboard("runs").exception
