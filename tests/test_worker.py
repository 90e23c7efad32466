"""The worker's own wiring: what it does when not even its log can be written."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

import pytest

from gptlab import training, worker
from gptlab.config import PRESETS
from gptlab.events import Ended, Event, Phase, Saved
from gptlab.launcher import take_lock
from gptlab.runs import Run, RunStore


class FullDisk:
    """Standard error as it is when worker.log is on a full disk."""

    def write(self, text: str) -> int:
        raise OSError(28, "No space left on device")

    def flush(self) -> None:
        raise OSError(28, "No space left on device")


@pytest.fixture
def run() -> Run:
    return RunStore().create(PRESETS["tiny"])


def test_a_disk_too_full_for_the_log_does_not_end_the_training(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def facts(run: Run, requests: object) -> Iterator[Event]:
        for step in range(3):
            yield Phase(phase="training", step=step)

    written: list[Event] = []

    def append(run: Run, event: Event) -> None:
        if isinstance(event, Phase) and event.step < 2 and len(tries) < 2:
            tries.append(event)
            raise OSError(28, "No space left on device")
        written.append(event)

    tries: list[Event] = []
    monkeypatch.setattr(worker, "facts", facts)
    monkeypatch.setattr(Run, "append", append)
    monkeypatch.setattr(sys, "stderr", FullDisk())
    lock = take_lock(run)
    seen = list(worker.work(run, lock))
    os.close(lock)
    assert len(seen) == 3
    assert written == seen  # late, but all of them, in their order


def test_a_fault_on_a_full_disk_still_ends_with_its_reason(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    (run.path / "config.json").unlink()
    monkeypatch.setattr(sys, "stderr", FullDisk())
    ended = list(worker.facts(run, lambda: None))[-1]
    assert "config.json" in getattr(ended, "message", "")


@pytest.mark.parametrize(("steps", "kept"), [(3, 4), (20_000, 1)])
def test_a_run_that_ends_on_a_disk_still_full_says_how_in_its_log(
    run: Run, monkeypatch: pytest.MonkeyPatch, steps: int, kept: int
) -> None:
    def facts(run: Run, requests: object) -> Iterator[Event]:
        for step in range(steps):
            yield Phase(phase="training", step=step)
        yield Ended(reason="failed", message="The last checkpoint could not be saved.", step=steps - 1)

    def append(run: Run, event: Event) -> None:
        if (run.path / ".reserve").exists():
            raise OSError(28, "No space left on device")
        written.append(event)

    written: list[Event] = []
    monkeypatch.setattr(worker, "facts", facts)
    monkeypatch.setattr(Run, "append", append)
    monkeypatch.setattr(sys, "stderr", FullDisk())
    lock = take_lock(run)
    seen = list(worker.work(run, lock))
    os.close(lock)
    assert written == seen[-kept:]
    assert not (run.path / ".reserve").exists()


def test_a_late_word_of_a_checkpoint_does_not_set_the_step_back(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def train(*_: object, **__: object) -> Iterator[Event]:
        yield Phase(phase="training", step=9)
        yield Saved(step=8, checkpoint="step-000009", reason="epoch", epoch=1)
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr(training, "train", train)
    ended = list(worker.facts(run, lambda: None))[-1]
    assert isinstance(ended, Ended)
    assert (ended.reason, ended.step) == ("failed", 9)
