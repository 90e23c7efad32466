"""What the page of a run that trains fetches by itself: its card and its chart, and when the page is drawn again."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from gptlab.events import Evaluated, Event, Phase, Sampled, Saved, Started, Stepped, Warned
from gptlab.runs import Run, RunStore
from pages.shared import live_view
from pages.shared.live_view import live_of, losses_text, now_text, revision_of
from pages.shared.loss_chart import View
from pages.shared.routes import routes
from tests.fake_run import hold, make_run
from tests.pages.seen import components, dashboard


@pytest.fixture
def client() -> TestClient:
    return TestClient(Starlette(routes=routes()))


@pytest.fixture
def run(home: Path) -> Iterator[Run]:
    run = make_run(RunStore(), status="running")
    with hold(run):
        yield run


@pytest.fixture(autouse=True)
def always_fresh() -> None:
    """No text of another test, or of a moment ago."""
    forget()


def forget() -> None:
    now_text.clear()
    losses_text.clear()


def step(run: Run, number: int = 45) -> Stepped:
    return Stepped(step=number, epoch=6, tokens_seen=512 * (number + 1), loss=1.25, learning_rate=4e-4, grad_norm=1.0,
                   tokens_per_second=900.0, time=time.time())  # fmt: skip


def card(client: TestClient, run: Run) -> dict[str, Any]:
    forget()
    return client.get(f"/gptlab/runs/{run.id}/now.json").json()


def points(chart: dict[str, Any]) -> int:
    return sum(len(trace["x"]) for trace in chart["figure"]["data"] if trace["name"] == "train, each step")


def test_card_and_chart_of_a_live_page_say_where_their_next_version_is(client: TestClient, run: Run) -> None:
    app = dashboard("training", run=run.id)
    (shown,), (chart,) = components(app, "status_card"), components(app, "live_chart")
    assert shown["live"]["status"] == "running"
    news = client.get(shown["live"]["url"])
    assert news.headers["cache-control"] == "no-store"
    assert news.headers["content-encoding"] == "identity"
    same = ("chip", "tone", "line", "done", "live")
    assert {name: news.json()[name] for name in same} == {name: shown[name] for name in same}
    assert client.get(f"{chart['live']}&since=0").json() == chart
    assert client.get(f"{chart['live']}&since={chart['mark']}").status_code == 204


@pytest.mark.parametrize(("per_epoch", "said"), [(500, "0.09 of 20,000"), (7, "6.43 of 1,428,571.43")])
def test_epochs_are_whole_numbers_however_many(client: TestClient, run: Run, per_epoch: int, said: str) -> None:
    sizes = {"n_parameters": 1, "total_steps": 10_000_000, "threads": 1, "steps_per_epoch": per_epoch}
    run.append(Started(run=run.id, device="cpu", **sizes))
    assert card(client, run)["line"] == f"step 45 of 10,000,000 · epoch {said}"


def test_a_step_is_news_for_card_and_chart_and_the_page_is_not_drawn_for_it(client: TestClient, run: Run) -> None:
    app = dashboard("training", run=run.id)
    (chart,) = components(app, "live_chart")
    before = card(client, run)
    run.append(step(run))
    after = card(client, run)
    assert (before["line"], after["line"]) == ("step 45 of 90 · epoch 5.00 of 10", "step 46 of 90 · epoch 5.11 of 10")
    assert after["live"] == before["live"]
    assert after["at"] > before["at"]
    news = client.get(f"{chart['live']}&since={chart['mark']}")
    assert news.status_code == 200
    assert points(news.json()) == points(chart) + 1
    assert news.json()["mark"] > chart["mark"]


@pytest.mark.parametrize(
    "event",
    [
        Evaluated(step=45, epoch=6, tokens_seen=23_552, train_loss=1.0, val_loss=6.0),
        Sampled(step=45, epoch=6, prompt="Every effort", token_ids=(1, 2), text="ab", probabilities=(0.5, 0.5)),
        Saved(step=45, checkpoint="step-000046", reason="asked"),
        Warned(step=45, message="The disk is nearly full."),
    ],
    ids=lambda event: type(event).__name__,
)  # fmt: skip
def test_the_page_is_drawn_again_for(run: Run, event: Event) -> None:
    before = revision_of(run, run.log())
    run.append(event)
    assert revision_of(run, run.log()) != before


def test_a_worker_that_does_not_answer_is_a_reason_too(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    before = revision_of(run, run.log())
    run.request("pause")
    assert revision_of(run, run.log()) == before
    monkeypatch.setattr("pages.shared.live_view.unanswered", lambda run, log: True)
    assert revision_of(run, run.log()) != before


def test_another_status_is_told_and_an_ended_run_is_not_followed(client: TestClient, home: Path) -> None:
    run = make_run(RunStore(), status="running")
    with hold(run):
        assert card(client, run)["live"]["status"] == "running"
        run.append(Phase(step=45, phase="paused", time=time.time()))
        assert card(client, run)["live"]["status"] == "paused"
    assert card(client, run)["live"] is None
    assert live_of(run, run.log(), "finished") is None
    app = dashboard("training", run=run.id)
    assert components(app, "status_card")[0]["live"] is None
    assert components(app, "live_chart")[0]["live"] is None


def test_the_chart_comes_as_it_was_chosen(client: TestClient, run: Run) -> None:
    view = View("tokens", True, False, 0.5)
    chart = client.get(f"/gptlab/runs/{run.id}/losses.json?{view.query()}").json()
    assert chart["figure"]["layout"]["uirevision"] == f"{run.id}/tokens/True/False"
    assert chart["live"].endswith(view.query())
    smoothed = next(trace for trace in chart["figure"]["data"] if trace["name"] == "train, smoothed")
    assert len(smoothed["x"]) == 45


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("axis=miles&x=0&y=0&smoothing=0", "'miles' is none of"),
        ("axis=flops&x=0&y=0&smoothing=0", "'flops' is none of"),
        ("axis=step&x=2&y=0&smoothing=0", "'2' is none of 0, 1"),
        ("axis=step&x=0&y=0&smoothing=1", "1 is not from 0.0 to 0.99"),
        ("axis=step&x=0&y=0&smoothing=nan", "nan is not from 0.0 to 0.99"),
        ("", "'' is none of"),
    ],
)
def test_what_no_page_asks_is_refused_in_a_sentence(client: TestClient, run: Run, query: str, said: str) -> None:
    answer = client.get(f"/gptlab/runs/{run.id}/losses.json?{query}")
    assert answer.status_code == 400
    assert said in answer.text


@pytest.mark.parametrize("file", ["now.json", "losses.json"])
def test_a_run_that_is_not_there_any_more_is_said_to_be_missing(client: TestClient, home: Path, file: str) -> None:
    run = make_run(RunStore(), 1)
    address = f"/gptlab/runs/{run.id}/{file}?{View().query()}"
    assert client.get(address).status_code == 200
    RunStore().delete(run.id)
    assert client.get(address).status_code == 404
    assert client.get("/gptlab/runs/%2e%2e/now.json").status_code == 404


def test_pages_that_ask_at_the_same_time_are_given_the_same_text(
    client: TestClient, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []
    real = live_view.loss_chart
    monkeypatch.setattr(live_view, "loss_chart", lambda *given, **more: made.append(1) or real(*given, **more))
    address = f"/gptlab/runs/{run.id}/losses.json?{View().query()}"
    answers = {client.get(address).text for _ in range(10)}
    assert len(answers) == len(made) == 1
    forget()
    client.get(address)
    assert len(made) == 2
