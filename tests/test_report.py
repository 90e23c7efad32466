"""A run in one file: complete, self-contained, and deaf to what texts and names try."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from gptlab.config import RunConfig
from gptlab.corpus import open_corpus
from gptlab.environment import keep_environment, project_commit
from gptlab.events import Ended
from gptlab.report import MOST_SAMPLES, report
from gptlab.runs import Run, RunStore
from tests.fake_run import make_run

EVIL = "</script><img src=x onerror=alert(1)><b>"


class Elements(HTMLParser):
    """The tags of a page and the text outside scripts and styles."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.words: list[str] = []
        self.inside = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.inside = tag
        assert not {name for name, _ in attrs} & {"src", "href", "onerror"}, (tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        self.inside = ""

    def handle_data(self, data: str) -> None:
        if self.inside not in ("script", "style"):
            self.words.append(data)


def read(run: Run) -> tuple[str, Elements]:
    page = "".join(report(run))
    found = Elements()
    found.feed(page)
    return page, found


def without_plotly(page: str) -> str:
    """The page without the longest script."""
    return page.replace(max(re.findall(r"<script>.*?</script>", page, re.DOTALL), key=len), "")


def test_a_run_that_ends_while_it_is_read_is_told_as_it_ended(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run(RunStore(), 3, status="running")
    status = Run.status

    def ends_now(run: Run) -> str:
        run.append(Ended(step=26, reason="finished", message="That was all."))
        return status(run)

    monkeypatch.setattr(Run, "status", ends_now)
    assert ": finished. That was all." in "".join(report(run))


def test_it_tells_losses_samples_configuration_text_and_environment(home: Path) -> None:
    text = open_corpus("builtin")
    run = make_run(RunStore(), 3, name="one", config=RunConfig().with_fields(data={"corpus": text.reference}))
    run.update_about(tags=("sweep",), notes="a note")
    keep_environment(run.path)
    page, found = read(run)
    words = " ".join(found.words)
    best = f"{min(row.val_loss for row in run.log().evaluations):.4f}"
    for told in (best, "a note", "sweep", text.sha256, "Learning rate (optim.learning_rate)"):
        assert told in words
    environment = json.loads((run.path / "environment.json").read_text())
    for name in ("torch", "python", "machine"):
        assert environment[name]
        assert environment[name] in words
    assert words.count("After epoch") == 3
    assert 'class="t p' in page
    figures = json.loads(re.search(r'id="figures">(.*?)</script>', page, re.DOTALL)[1])  # type: ignore[index]
    assert set(figures["figures"]) == {"epoch", "step", "tokens", "time"}


def test_nothing_in_it_comes_from_elsewhere(home: Path) -> None:
    page, found = read(make_run(RunStore(), 2))
    assert "default-src 'none'" in page
    assert not {"link", "img", "iframe", "object", "base"} & set(found.tags)
    assert "://" not in without_plotly(page)


def test_what_others_wrote_is_text(home: Path) -> None:
    run = make_run(RunStore(), 2, "failed", name=EVIL, prompts=(EVIL,), texts=(EVIL,), message=EVIL, warnings=(EVIL,))
    run.update_about(notes=EVIL, tags=(EVIL,), parent=EVIL)
    page, found = read(run)
    assert EVIL in " ".join(found.words)
    assert EVIL not in without_plotly(page)
    assert found.tags.count("script") == 3


@pytest.mark.parametrize("steps", [0, 1])
def test_a_run_that_failed_at_once_has_a_report(home: Path, steps: int) -> None:
    run = make_run(RunStore(), 2, "failed", until=steps, message="Too little memory.", weights=False)
    _, found = read(run)
    assert "Too little memory." in " ".join(found.words)
    assert ("script" in found.tags) == (steps > 0)


def test_a_damaged_run_says_what_cannot_be_read(home: Path) -> None:
    run = make_run(RunStore(), 2)
    (run.path / "config.json").write_text("{")
    assert f"The config.json of run {run.id} is damaged" in " ".join(read(run)[1].words)
    run.events_path.unlink()
    run.events_path.mkdir()
    assert "Its event log cannot be read: Is a directory." in " ".join(read(Run(run.path))[1].words)


def test_a_text_that_is_gone_is_said_to_be(home: Path) -> None:
    config = RunConfig().with_fields(data={"corpus": "sha256:" + "0" * 64})
    assert "is no longer kept here" in " ".join(read(make_run(RunStore(), 2, config=config))[1].words)


def test_thousands_of_epochs_are_shown_by_some(home: Path) -> None:
    run = make_run(RunStore(), 400, steps_per_epoch=2, weights=False)
    _, found = read(run)
    words = " ".join(found.words)
    assert found.tags.count("article") == MOST_SAMPLES
    assert f"{MOST_SAMPLES} of 401 samples" in words
    assert "After epoch 400" in words


def test_a_folder_that_is_no_checkout_has_no_commit(tmp_path: Path) -> None:
    assert project_commit(tmp_path) == ""
