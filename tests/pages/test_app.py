"""The shell: every page opens from the router with content of its own; downloads; nothing is fetched from elsewhere."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from gptlab.runs import RunStore
from pages.shared.addresses import plotly_url, run_url
from pages.shared.routes import routes
from tests.fake_run import hold, make_run
from tests.pages.seen import DASHBOARD, components, dashboard, primary, sidebar, words

QUESTIONS = {
    "corpus": "What is the model going to read?",
    "hyperparameters": "What am I about to train?",
    "training": "How is it going?",
    "samples": "What has it learnt, epoch by epoch?",
    "playground": "What does it say, and why?",
    "runs": "Which run was better?",
}


@pytest.fixture
def client() -> TestClient:
    return TestClient(Starlette(routes=routes()))


@pytest.mark.parametrize("page", QUESTIONS)
def test_each_page_opens_from_the_router_and_asks_its_own_question(page: str) -> None:
    app = dashboard(page)
    assert not app.exception
    assert app.title[0].value.lower() == page
    assert QUESTIONS[page].lower() in words(app).lower()


@pytest.mark.parametrize("page", ["training", "samples"])
@pytest.mark.parametrize("status", ["running", "paused", "finished", "stopped", "discarded", "failed", "interrupted"])
def test_a_page_has_one_primary_button_whatever_the_run_does(home: Path, page: str, status: str) -> None:
    run = make_run(RunStore(), status=status)
    if status in ("running", "paused"):
        with hold(run):
            app = dashboard(page, run=run.id)
    else:
        app = dashboard(page, run=run.id)
    assert not app.exception
    assert len(primary(app)) == 1


def test_the_sidebar_tells_of_a_run_that_trains_and_is_silent_otherwise(home: Path) -> None:
    run = make_run(RunStore(), status="running", name="night *shift*")
    assert "night" not in sidebar(dashboard("corpus"))
    with hold(run):
        assert "night" in sidebar(dashboard("corpus"))


def test_the_configuration_keeps_the_dashboard_local_and_private() -> None:
    config = tomllib.loads((DASHBOARD.parent / ".streamlit" / "config.toml").read_text("utf-8"))
    assert config["server"]["address"] == "localhost"
    assert config["server"]["enableXsrfProtection"] is True
    assert config["server"]["maxUploadSize"] == 200
    assert config["server"]["showEmailPrompt"] is False
    assert config["browser"]["gatherUsageStats"] is False
    assert "http" not in (DASHBOARD.parent / ".streamlit" / "config.toml").read_text("utf-8")


def test_plotly_comes_from_the_installed_package_and_may_be_kept_for_long(client: TestClient) -> None:
    answer = client.get(plotly_url())
    assert answer.status_code == 200
    assert "immutable" in answer.headers["cache-control"]
    assert answer.headers["content-type"].startswith("text/javascript")
    assert b"Plotly" in answer.content


def test_a_runs_files_can_be_downloaded(home: Path, client: TestClient) -> None:
    run = make_run(RunStore(), 2)
    config = client.get(run_url(run, "config.json"))
    assert config.json()["train"]["num_epochs"] == 2
    assert f"{run.id}-config.json" in config.headers["content-disposition"]
    lines = client.get(run_url(run, "metrics.csv")).text.splitlines()
    assert len(lines) == 1 + 18
    assert lines[0].startswith("step,")
    weights = client.get(run_url(run, "step-000018/weights.safetensors"))
    assert weights.content == (run.path / "checkpoints" / "step-000018" / "weights.safetensors").read_bytes()


@pytest.mark.parametrize(
    "path",
    [
        "/gptlab/runs/none/config.json",
        "/gptlab/runs/../config.json",
        "/gptlab/runs/..%2f..%2fetc/config.json",
        "/gptlab/runs/%2e%2e/metrics.csv",
        "/gptlab/runs/RUN/step-000099/weights.safetensors",
        "/gptlab/runs/RUN/..%2fcheckpoints%2fbest/weights.safetensors",
        "/gptlab/runs/RUN/../../RUN/worker.log",
        "/gptlab/runs/RUN/events.jsonl",
        "/gptlab/runs/",
    ],
)
def test_no_other_file_can_be_had(home: Path, client: TestClient, path: str) -> None:
    run = make_run(RunStore(), 1)
    (home / "config.json").write_text("{}")
    assert client.get(path.replace("RUN", run.id)).status_code == 404


def test_before_the_first_run_the_charts_stand_there_greyed(home: Path) -> None:
    chart = components(dashboard("training"), "live_chart")[0]
    assert chart["note"]
    assert chart["figure"]["layout"]["xaxis"]["range"][1] > 0
