"""The queue on the Runs page, and the form that fills it on the Hyperparameters page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from gptlab.config import PRESETS
from gptlab.grid import expand
from gptlab.queue import Entry, Queue
from gptlab.runs import RunStore
from pages.shared import predicted, queue_panel
from tests.fake_run import hold, make_run
from tests.pages.seen import DASHBOARD, buttons, dashboard, words


@pytest.fixture(autouse=True)
def woken(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many entries waited each time that runners were to be started; none is."""
    counts: list[int] = []

    def start(self: Queue, runs: Path | None = None) -> list[str]:
        counts.append(len(self.read().waiting))
        return []

    monkeypatch.setattr(Queue, "start_runners", start)
    monkeypatch.setattr(predicted, "measure_step_seconds", lambda config, timeout: 0.1)
    return counts


def fill(*seeds: int, name: str = "sweep") -> list[Entry]:
    return Queue().add(expand(PRESETS["tiny"], {"train.seed": seeds}), name=name)


def rows(app: AppTest) -> list[dict[str, Any]]:
    return app.dataframe[0].value.to_dict("records")


def plainly(app: AppTest) -> str:
    return words(app).replace("\\", "")


def seeds() -> list[int]:
    return [entry.parsed().train.seed for entry in Queue().read().entries]


def title(app: AppTest) -> str:
    return next(item.label for item in app.expander if item.label.startswith("Queue"))


def test_an_empty_queue_says_how_to_fill_it(home: Path) -> None:
    app = dashboard("runs")
    assert not app.exception
    assert title(app) == "Queue · empty"
    assert "Nothing waits" in words(app)


def test_it_shows_what_trains_what_waits_and_why_one_failed(home: Path) -> None:
    first, second, _ = fill(1, 2, 3)
    run = make_run(RunStore(), 2, "interrupted", name="under way")
    Queue().update(first.id, outcome="failed", message="The loss <b>is</b> not a number.")
    Queue().update(second.id, run=run.id)
    with hold(run):
        app = dashboard("runs", run=run.id)
    assert not app.exception
    assert title(app) == "Queue · 1 training, 1 waiting, 1 over"
    assert [row["State"] for row in rows(app)] == ["✕ failed", "● training", "… waiting"]
    assert rows(app)[0]["What became of it"] == "The loss <b>is</b> not a number."
    assert rows(app)[2]["Run"] == "sweep · seed 3"


def test_ticked_rows_are_moved_and_removed(home: Path, woken: list[int]) -> None:
    _, _, three = fill(1, 2, 3)
    assert buttons(dashboard("runs"))["Up"].disabled
    app = AppTest.from_file(str(DASHBOARD), default_timeout=120)
    app.session_state[queue_panel.CHOSEN] = (three.id,)
    app.run()
    app.switch_page("pages/runs.py").run()
    buttons(app)["To the top"].click().run()
    assert seeds() == [3, 1, 2]
    buttons(app)["Down"].click().run()
    assert seeds() == [1, 3, 2]
    buttons(app)["Remove"].click().run()
    assert not app.exception
    assert seeds() == [1, 2]
    assert woken


def test_the_queue_is_paused_and_goes_on(home: Path, woken: list[int]) -> None:
    fill(1)
    app = dashboard("runs")
    next(item for item in app.toggle if item.label == "Pause the queue").set_value(True).run()
    assert Queue().read().paused
    assert title(app) == "Queue · 1 waiting · paused"
    next(item for item in app.toggle if item.label == "Pause the queue").set_value(False).run()
    assert not Queue().read().paused
    assert woken[-1] == 1


def test_what_is_over_can_be_cleared_and_the_runs_stay(home: Path) -> None:
    run = make_run(RunStore(), 2)
    over, _ = fill(1, 2)
    Queue().update(over.id, run=run.id, outcome="finished")
    app = dashboard("runs")
    buttons(app)["Clear what is over"].click().run()
    assert seeds() == [2]
    assert run.path.is_dir()


def test_a_damaged_queue_is_a_sentence_on_a_page_that_works(home: Path) -> None:
    make_run(RunStore(), 2)
    Queue().path.parent.mkdir(parents=True)
    Queue().path.write_text("[")
    app = dashboard("runs")
    assert not app.exception
    assert "The queue cannot be read" in app.error[0].value.replace("\\", "")
    assert len(app.dataframe) == 1


def test_a_grid_over_two_fields_is_added(home: Path, woken: list[int]) -> None:
    app = dashboard("hyperparameters")
    app.multiselect(key="grid.fields").set_value(["optim.learning_rate", "train.seed"]).run()
    app.text_input(key="grid.optim.learning_rate").set_value("1e-3, 4e-3").run()
    app.text_input(key="grid.train.seed").set_value("1; 2").run()
    assert not app.exception
    buttons(app)["Add 4 to the queue"].click().run()
    configs = [entry.parsed() for entry in Queue().read().entries]
    assert [(c.optim.learning_rate, c.train.seed) for c in configs] == [(1e-3, 1), (1e-3, 2), (4e-3, 1), (4e-3, 2)]
    assert "4 runs are in the queue." in words(app)
    assert woken[-1] == 4


def test_the_settings_as_they_are_can_be_queued_too(home: Path) -> None:
    app = dashboard("hyperparameters")
    buttons(app)["Add to the queue"].click().run()
    assert not app.exception
    (entry,) = Queue().read().entries
    assert entry.parsed().model == PRESETS["tiny"].model


@pytest.mark.parametrize(
    ("field", "written", "fault"),
    [
        ("optim.learning_rate", "fast, 1e-3", "Learning rate: “fast” is not a number."),
        ("optim.learning_rate", "-1", "optim.learning_rate is -1.0: it must be above 0."),
        ("model.n_heads", "4, 5", "emb_dim 96 is not divisible by n_heads 5"),
        ("model.context_length", "64, 16000", "context_length 16,000"),
        ("train.seed", ",".join(map(str, range(65))), "These are 65 configurations, more than 64"),
        ("train.seed", " ", "train.seed has no value: give at least one."),
    ],
)
def test_an_impossible_grid_is_a_sentence_and_cannot_be_added(home: Path, field: str, written: str, fault: str) -> None:
    app = dashboard("hyperparameters")
    app.multiselect(key="grid.fields").set_value([field]).run()
    app.text_input(key=f"grid.{field}").set_value(written).run()
    assert not app.exception
    assert fault in plainly(app)
    assert app.button(key="grid.add").disabled
