from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from gptlab import launcher
from gptlab.config import PRESETS
from gptlab.events import Ended
from gptlab.lesson_run import LESSON_RUN_NAME, LESSON_TAG, find_lesson_run, lesson_run
from gptlab.preflight import prepare
from gptlab.runs import Run, RunStore


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """What was started and resumed, in place of processes."""
    calls: list[tuple[str, str]] = []
    monkeypatch.setattr(launcher, "start", lambda run: calls.append(("start", run.id)))
    monkeypatch.setattr(launcher, "resume", lambda run: calls.append(("resume", run.id)))
    return calls


def end(run: Run, reason: str) -> None:
    run.append(Ended(reason=reason, step=189))  # type: ignore[arg-type]
    if reason == "finished":
        folder = run.path / "checkpoints" / "step-000190"
        folder.mkdir(parents=True)
        (folder / "weights.safetensors").write_bytes(b"")


def test_the_first_request_makes_and_starts_the_run_and_later_ones_find_it(home: Path, started: list) -> None:
    store = RunStore()
    assert find_lesson_run(store) is None
    run = lesson_run(store)
    assert started == [("start", run.id)]
    assert (run.about.name, run.about.tags) == (LESSON_RUN_NAME, (LESSON_TAG,))
    assert run.config.model == PRESETS["tiny"].model
    end(run, "finished")
    run.rename("something else")
    assert lesson_run(store).id == run.id
    assert len(started) == len(store.list()) == 1


def test_a_run_that_trains_is_waited_for_and_one_that_was_stopped_goes_on(home: Path, started: list) -> None:
    store = RunStore()
    run = lesson_run(store)
    lock = launcher.take_lock(run)
    assert lesson_run(store).id == run.id
    assert len(started) == 1
    os.close(lock)
    end(run, "stopped")
    assert lesson_run(store).id == run.id
    assert started[1:] == [("resume", run.id)]


@pytest.mark.parametrize("reason", ["failed", "discarded"])
def test_a_run_that_cannot_go_on_is_replaced(home: Path, started: list, reason: str) -> None:
    store = RunStore()
    first = lesson_run(store)
    end(first, reason)
    second = lesson_run(store)
    assert second.id != first.id
    assert started == [("start", first.id), ("start", second.id)]


def test_a_finished_run_without_its_checkpoints_is_replaced(home: Path, started: list) -> None:
    store = RunStore()
    first = lesson_run(store)
    first.append(Ended(reason="finished", step=189))
    assert lesson_run(store).id != first.id


def test_other_runs_are_never_taken_for_it(home: Path, started: list) -> None:
    store = RunStore()
    untagged = prepare(store, PRESETS["tiny"], name=LESSON_RUN_NAME)
    end(untagged, "finished")
    tagged = prepare(store, PRESETS["tiny"].with_fields(train={"seed": 5}))
    tagged.update_about(tags=(LESSON_TAG,))
    end(tagged, "finished")
    assert lesson_run(store).id not in (untagged.id, tagged.id)


def test_two_requests_at_once_make_one_run(home: Path, started: list) -> None:
    store, found = RunStore(), []
    threads = [threading.Thread(target=lambda: found.append(lesson_run(store).id)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert len(set(found)) == len(store.list()) == 1
