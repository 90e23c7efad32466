"""The Training page: the draft and its Start, a live run and its controls, how each run ended."""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from streamlit.runtime.scriptrunner_utils.exceptions import StopException
from streamlit.runtime.state.safe_session_state import SafeSessionState

from gptlab import launcher
from gptlab.config import PRESETS
from gptlab.runs import Run, RunStore
from pages.shared import new_run, run_picker, starting
from pages.shared.draft import save_draft
from pages.shared.run_status import GRACE, standing, unanswered
from tests.fake_run import hold, make_run
from tests.pages.seen import buttons, components, dashboard, primary, words

NASTY = "<script>alert(1)</script> *bold* `code` [link](http://x)"


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> list[Run]:
    """Runs that were started; their worker is a lock that is held to the end of the test."""
    started: list[Run] = []
    locks = []

    def start(run: Run) -> None:
        lock = hold(run)
        lock.__enter__()
        locks.append(lock)
        started.append(run)

    monkeypatch.setattr(launcher, "start", start)
    yield started
    for lock in locks:
        lock.__exit__()


def card(app) -> dict:
    return components(app, "status_card")[0]


def fact(app, name: str) -> list[str]:
    return next(item for item in card(app)["facts"] if item[0] == name)


# Before a run


def test_without_a_run_the_page_shows_the_draft_and_start() -> None:
    app = dashboard("training")
    assert card(app)["chip"] == "Ready"
    assert card(app)["line"].startswith("tiny on Built-in story")
    assert fact(app, "Parameters")[1] == "9,990,336"
    assert not buttons(app)["Start"].disabled


@pytest.mark.parametrize(
    ("predicted", "rough", "told"),
    [
        (90.0, 1565.0, ["Time", "1 min 30 s", "predicted"]),
        (None, 1565.0, ["Time", "≈ 25 min", "a rough guess"]),
        (None, None, ["Time", "–", "not measured yet"]),
    ],
)
def test_the_time_is_predicted_or_guessed_or_not_known(
    predicted: float | None, rough: float | None, told: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(new_run, "predicted_seconds", lambda *_: predicted)
    monkeypatch.setattr(new_run, "rough_seconds", lambda *_: rough)
    assert fact(dashboard("training"), "Time") == told


def test_a_run_that_begins_or_ends_elsewhere_draws_the_page_of_a_new_one_again(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reruns: list[str] = []
    monkeypatch.setattr(new_run.st, "rerun", lambda: reruns.append("again"))
    run = make_run(RunStore(), status="running")
    new_run._news([])
    assert reruns == []  # it stands there, but nobody holds it
    with hold(run):
        new_run._news([run])
        assert reruns == []
        new_run._news([])
    new_run._news([run])
    assert reruns == ["again", "again"]


def test_start_makes_a_run_of_the_draft_and_puts_it_into_the_url(launched: list[Run]) -> None:
    app = dashboard("training")
    app.text_input(key="new-name").set_value(NASTY)
    buttons(app)["Start"].click()
    app.run()
    assert [run.about.name for run in launched] == [NASTY]
    assert launched[0].config.model == PRESETS["tiny"].model
    assert app.query_params["run"] == launched[0].id
    assert card(app)["chip"] == "Loading"


def test_the_second_press_of_a_double_click_leads_to_the_run_too_and_a_choice_leads_away_from_it(
    launched: list[Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    app = dashboard("training")
    buttons(app)["Start"].click()
    app.run()
    app.query_params["run"] = "new"  # a press that was sent from the address before the start
    app.run()
    assert app.query_params["run"] == launched[0].id
    assert [run.id for run in launched] == [launched[0].id]
    app.selectbox(key="run-or-new").select_index(0).run()  # and so does what the press says of the picker
    assert app.query_params["run"] == launched[0].id
    monkeypatch.setattr(run_picker, "SETTLING", 0.0)
    app.selectbox(key="run-or-new").select_index(0).run()
    assert app.query_params["run"] == "new"
    assert "Start" in buttons(app)


def test_a_second_press_that_ends_the_script_once_the_run_is_started_leads_there_too(
    launched: list[Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Streamlit ends a script for a newer one wherever it touches the session's state, reading or writing."""
    app = dashboard("training")

    def touch(real: Callable[..., Any]) -> Callable[..., Any]:
        def touched(*arguments: Any) -> Any:
            asking = [Path(frame.filename) for frame in traceback.extract_stack(limit=5)]
            in_a_page = any(path.stem == "session_state_proxy" for path in asking) and any(
                path.parent == Path(run_picker.__file__).parent and path.stem != "late_fragments"
                for path in asking[:-1]
            )
            if launched and in_a_page:
                again.undo()
                raise StopException
            return real(*arguments)

        return touched

    with monkeypatch.context() as again:
        for name in ("__getitem__", "__setitem__", "__contains__"):
            again.setattr(SafeSessionState, name, touch(getattr(SafeSessionState, name)))
        buttons(app)["Start"].click().run()
    assert len(launched) == 1
    app.query_params["run"] = "new"
    app.run()
    assert app.query_params["run"] == launched[0].id


def test_start_is_disabled_with_the_reason_where_the_text_is_too_short(home: Path) -> None:
    save_draft(PRESETS["tiny"].with_fields(model={"context_length": 8192}))
    app = dashboard("training")
    assert buttons(app)["Start"].disabled
    assert "see below" in buttons(app)["Start"].help
    assert card(app)["chip"] == "Not ready"
    assert any("context" in error.value for error in app.error)


def test_start_is_disabled_where_the_disk_is_too_full(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gptlab.preflight.free_bytes", lambda path: 1_000_000)
    save_draft(PRESETS["tiny"].with_fields(train={"seed": 4321}))
    app = dashboard("training")
    assert buttons(app)["Start"].disabled
    assert any("disk" in error.value for error in app.error)


def test_another_run_on_the_device_must_be_agreed_to(home: Path, launched: list[Run]) -> None:
    other = make_run(RunStore(), status="running", name="the other")
    with hold(other):
        app = dashboard("training", run="new")
        assert buttons(app)["Start"].disabled
        assert any("the other" in warning.value for warning in app.warning)
        app.checkbox[0].check().run()
        assert not buttons(app)["Start"].disabled
        buttons(app)["Start"].click()
        app.run()
    assert len(launched) == 1


def test_two_tabs_that_press_start_at_once_start_one_worker(home: Path, launched: list[Run]) -> None:
    store, seen = RunStore(), ()
    results: list[starting.Started] = []

    def press() -> None:
        results.append(starting.start_once(store, PRESETS["tiny"], name="", seen=seen))

    tabs = [threading.Thread(target=press) for _ in range(4)]
    for tab in tabs:
        tab.start()
    for tab in tabs:
        tab.join()
    assert len(launched) == 1
    assert {result.run.id for result in results} == {launched[0].id}
    assert sorted(result.fresh for result in results) == [False, False, False, True]


def test_a_press_on_a_page_that_is_out_of_date_starts_nothing(home: Path, launched: list[Run]) -> None:
    app = dashboard("training", run="new")
    start = buttons(app)["Start"]
    with hold(make_run(RunStore(), status="running", name="meanwhile")):
        start.click()
        app.run()
        assert launched == []
        assert any("meanwhile" in warning.value for warning in app.warning)


def test_a_run_that_cannot_start_says_why(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    app = dashboard("training")

    def refuse(*args: object, **more: object) -> None:
        raise ValueError("The cupboard <b>is</b> bare: fill it.")

    monkeypatch.setattr("pages.shared.new_run.start_once", refuse)
    buttons(app)["Start"].click()
    app.run()
    assert any(r"cupboard \<b\>is" in error.value for error in app.error)


# While it trains


def test_a_live_run_shows_its_step_epoch_losses_and_charts(home: Path) -> None:
    run = make_run(RunStore(), status="running")
    with hold(run):
        app = dashboard("training")
    assert card(app)["line"] == "step 45 of 90 · epoch 5.00 of 10"
    assert card(app)["done"] == pytest.approx(0.5)
    assert fact(app, "Validation loss")[2].startswith("best ")
    assert fact(app, "Time left")[1] in ("22 s", "23 s")
    chart = components(app, "live_chart")[0]
    assert sum(len(trace["x"]) for trace in chart["figure"]["data"] if trace["name"] == "validation") == 9
    assert chart["csv"].endswith(f"{run.id}/metrics.csv")
    assert "best validation" in chart["label"]


def test_the_samples_stand_beside_the_chart_with_the_same_epochs(home: Path) -> None:
    run = make_run(RunStore(), status="running")
    with hold(run):
        app = dashboard("training", run=run.id)
    (feed,) = components(app, "theatre")
    (chart,) = components(app, "live_chart")
    assert feed["layout"] == "feed"
    assert feed["run"] == chart["run"] == run.id
    newest, sample = feed["frames"][-1], run.log().samples[-1]
    assert newest["name"] == "After epoch 5"
    assert newest["samples"][0]["ids"] == list(sample.token_ids)
    assert newest["samples"][0]["p"][-1] == pytest.approx(sample.probabilities[-1], rel=1e-3)
    assert chart["epochs"] == [[float(frame["epoch"]), frame["epoch"]] for frame in feed["frames"]]


@pytest.mark.parametrize(
    ("label", "kind", "said"),
    [
        ("Pause", "pause", "Pausing after this step …"),
        ("Single step", "step", "Making one step …"),
        ("Save now", "save", "Saving after this step …"),
    ],
)
def test_a_request_is_left_for_the_worker_and_acknowledged(home: Path, label: str, kind: str, said: str) -> None:
    run = make_run(RunStore(), status="running")
    with hold(run):
        app = dashboard("training", run=run.id)
        buttons(app)[label].click()
        app.run()
    assert run.pending_request() == kind
    assert card(app)["said"] == said


@pytest.mark.parametrize(("label", "kind"), [("Stop and keep", "stop"), ("Stop and discard", "discard")])
def test_stop_asks_names_the_run_and_says_what_is_kept(home: Path, label: str, kind: str) -> None:
    run = make_run(RunStore(), status="running", name=NASTY)
    with hold(run):
        app = dashboard("training", run=run.id)
        buttons(app)["Stop …"].click()
        app.run()
        assert run.pending_request() is None
        assert r"\<script\>" in words(app)
        buttons(app)[label].click()
        app.run()
        assert run.pending_request() == kind
        assert card(app)["said"].startswith("Stopping after this step")
        assert buttons(app)["Pause"].disabled


def test_a_paused_run_can_go_on(home: Path) -> None:
    run = make_run(RunStore(), status="paused")
    with hold(run):
        app = dashboard("training", run=run.id)
        assert card(app)["chip"] == "Paused"
        assert primary(app) == ["Resume"]
        buttons(app)["Resume"].click()
        app.run()
    assert run.pending_request() == "resume"


def test_force_is_offered_only_after_the_worker_had_its_time(home: Path) -> None:
    run = make_run(RunStore(), status="running")
    run.request("stop")
    asked = (run.path / "request.json").stat().st_mtime
    assert not unanswered(run, run.log(), now=asked + GRACE - 1)
    assert unanswered(run, run.log(), now=asked + GRACE + 1)
    run.take_request()
    assert not unanswered(run, run.log(), now=asked + GRACE + 1)


def test_force_stop_ends_the_worker(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forced = []
    monkeypatch.setattr(launcher, "force_stop", lambda run: forced.append(run.id) or True)
    monkeypatch.setattr("pages.shared.run_status.GRACE", -1e9)
    run = make_run(RunStore(), status="running")
    with hold(run):
        run.request("stop")
        monkeypatch.setattr("pages.shared.run_status.seconds_per_step", lambda log: float("nan"))
        app = dashboard("training", run=run.id)
        buttons(app)["Force stop"].click()
        app.run()
    assert forced == [run.id]


def test_a_pause_does_not_count_as_training_time(home: Path) -> None:
    run = make_run(RunStore(), status="paused")
    log, now = run.log(), run.log().events[-1].time + 3600
    facts = {name: value for name, value, _ in standing(run, log, "paused", run.config, now).facts}
    assert facts["Elapsed"] in ("22 s", "23 s")


# After the end


def test_a_finished_run_says_what_comes_next(home: Path) -> None:
    run = make_run(RunStore(), message="Finished after 90 steps.")
    app = dashboard("training", run=run.id)
    assert card(app)["chip"] == "Done"
    assert "Finished after 90 steps" in app.success[0].value
    assert {"Read the samples", "Try it in the Playground", "New run"} <= set(buttons(app))
    assert "Resume" not in buttons(app)


def test_an_interrupted_run_says_what_was_saved_shows_the_last_words_and_offers_resume(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(RunStore(), status="interrupted")
    (run.path / "worker.log").write_text("Killed <img src=x onerror=alert(1)>\n")
    app = dashboard("training", run=run.id)
    assert "step-000045" in app.warning[0].value
    assert "45 steps" in app.warning[0].value
    assert app.code[0].value.startswith("Killed <img")
    resumed = []
    monkeypatch.setattr(launcher, "resume", lambda run: resumed.append(run.id))
    buttons(app)["Resume"].click()
    app.run()
    assert resumed == [run.id]


def test_a_resume_that_is_refused_says_why(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run(RunStore(), status="stopped")

    def refuse(run: Run) -> None:
        raise ValueError("It is training already: watch it.")

    monkeypatch.setattr(launcher, "resume", refuse)
    app = dashboard("training", run=run.id)
    buttons(app)["Resume"].click()
    app.run()
    assert any("training already" in error.value for error in app.error)


def test_a_failed_run_shows_its_reason_as_text(home: Path) -> None:
    run = make_run(RunStore(), status="failed", message=f"It broke: {NASTY}", warnings=(NASTY,))
    app = dashboard("training", run=run.id)
    assert card(app)["chip"] == "Failed"
    for shown in (app.error[0].value, app.warning[0].value):
        assert r"\<script\>alert\(1\)\<\/script\>" in shown
        assert r"\*bold\*" in shown


def test_a_discarded_run_offers_no_resume(home: Path) -> None:
    run = make_run(RunStore(), status="discarded")
    app = dashboard("training", run=run.id)
    assert card(app)["chip"] == "Discarded"
    assert "Resume" not in buttons(app)


def test_a_damaged_run_opens_and_says_what_is_wrong(home: Path) -> None:
    run = make_run(RunStore(), status="interrupted")
    (run.path / "config.json").write_text("{")
    app = dashboard("training", run=run.id)
    assert not app.exception
    assert card(app)["chip"] == "Damaged"
    assert app.error


def test_a_link_to_a_run_that_is_gone_says_so(home: Path) -> None:
    app = dashboard("training", run="../../<b>etc")
    assert not app.exception
    assert any(r"\<b\>etc" in warning.value for warning in app.warning)
