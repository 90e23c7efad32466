"""A checkpoint that is written beside the training holds what was, not what has become of it since."""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from gptlab import checkpoint, saving
from gptlab.checkpoint import SaveError, load_model, read_resume, step_checkpoints
from gptlab.config import RunConfig
from gptlab.events import Ended, Event, Phase, Saved, Stepped, Warned
from gptlab.saving import Writer, copy_of, in_memory, pays
from gptlab.state import TrainState
from gptlab.training import train
from tests.small_models import parts, run_config, small_model

LIMIT = 20  # seconds that a thread is waited for before a test fails


@pytest.fixture(autouse=True)
def beside(monkeypatch: pytest.MonkeyPatch) -> None:
    """However small, a checkpoint is written beside the training; nothing waits for the disk itself."""
    monkeypatch.setattr(saving, "LARGE", 0)
    monkeypatch.setattr(os, "fsync", lambda _: None)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "checkpoints"


class Held:
    """``checkpoint``'s function of that name, which in a thread does not begin before it may."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, name: str = "save_checkpoint") -> None:
        self.may, self.real, self.threads = threading.Event(), getattr(checkpoint, name), list[bool]()
        self.resumes: list[dict] = []  # what is in each one's resume.pt, before a later one takes its place
        monkeypatch.setattr(checkpoint, name, self)

    def __call__(self, *arguments: Any, **facts: Any) -> Any:
        beside = threading.current_thread() is not threading.main_thread()
        self.threads.append(beside)
        assert not beside or self.may.wait(LIMIT)
        place = self.real(*arguments, **facts)
        self.resumes.append(read_resume(place))
        return place


def at(times: dict[int, Callable[[], str | None]]) -> Callable[[], str | None]:
    """Requests: at the n-th time that training asks (from 0), what is done then and wished for."""
    count = iter(range(10**6))
    return lambda: times.get(next(count), lambda: None)()


def seldom(**sections: Any) -> RunConfig:
    """Evaluated, and so saved as the best, after the first step alone: nothing else then waits to be written."""
    return run_config(train={"eval_freq": 100}).with_fields(**sections)


def run(folder: Path, requests: Callable[[], str | None] = lambda: None, **sections: Any) -> list[Event]:
    return list(train(seldom(**sections), parts(), checkpoints=folder, requests=requests))


def saved(events: list[Event]) -> list[tuple[int, str, str]]:
    return [(event.step, event.checkpoint, event.reason) for event in events if isinstance(event, Saved)]


def same(one: Any, other: Any) -> bool:
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    return torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other


def test_what_is_written_late_is_what_training_had_then(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sections = {"train": {"keep_checkpoints": None}, "model": {"drop_rate": 0.3}}
    with monkeypatch.context() as at_once:
        at_once.setattr(saving, "LARGE", math.inf)
        its_resumes = Held(at_once).resumes
        right = run(tmp_path / "at-once", **sections)
    held = Held(monkeypatch)
    events = run(folder, at({8: held.may.set}), **sections)
    assert held.threads == [True, False]  # of the first epoch, of 5 steps, beside; the last one is waited for
    order = [e.step if isinstance(e, Stepped) else e.checkpoint for e in events if isinstance(e, Stepped | Saved)]
    assert order.index("step-000005") > order.index(7)
    assert sorted(saved(events)) == sorted(saved(right))
    for place in ("step-000005", "step-000010", "best"):
        ours, its = (load_model(root / place).state_dict() for root in (folder, tmp_path / "at-once"))
        assert same(dict(ours), dict(its))
    assert [resume["step"] for resume in its_resumes] == [5, 10]
    assert all(same(ours, its) for ours, its in zip(held.resumes, its_resumes, strict=True))


def test_a_run_that_died_goes_on_from_what_was_written_beside_it(folder: Path, tmp_path: Path) -> None:
    unbroken = [event.loss for event in run(tmp_path / "unbroken") if isinstance(event, Stepped)]
    state = TrainState.build(seldom(), parts())
    events = train(state.config, state=state, checkpoints=folder)
    while state.step < 8:
        next(events)
    events.close()
    assert read_resume(folder / "step-000005")["step"] == 5
    again = list(train(seldom(), parts(), checkpoints=folder, resume_from=folder))
    assert [event.loss for event in again if isinstance(event, Stepped)] == unbroken[5:]


def test_a_second_save_waits_for_the_first_and_the_end_for_all(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held = Held(monkeypatch)
    threading.Timer(0.3, held.may.set).start()
    events = run(folder, train={"num_epochs": 3})
    assert [name for _, name, reason in saved(events) if reason != "best"] == [f"step-{n:06d}" for n in (5, 10, 15)]
    assert isinstance(events[-1], Ended)
    assert events[-1].reason == "finished"
    assert len(step_checkpoints(folder)) >= 1
    assert not list(folder.glob(".*"))


def test_what_need_not_be_kept_goes_while_the_run_goes_on(folder: Path) -> None:
    there: list[list[str]] = []

    def look() -> None:
        there.append([path.name for path in step_checkpoints(folder)])

    run(folder, at(dict.fromkeys(range(15), look)), train={"num_epochs": 3, "keep_checkpoints": 1})
    assert ["step-000005"] in there
    assert there[-1] == ["step-000010"]


@pytest.mark.parametrize(("wish", "left"), [("stop", ["step-000005", "step-000007"]), ("discard", [])])
def test_a_stop_waits_for_what_is_being_written(
    folder: Path, monkeypatch: pytest.MonkeyPatch, wish: str, left: list[str]
) -> None:
    held = Held(monkeypatch)

    def stop() -> str:
        threading.Timer(0.2, held.may.set).start()
        return wish

    events = run(folder, at({7: stop}), train={"keep_checkpoints": None})
    assert [path.name for path in step_checkpoints(folder)] == left
    assert [name for _, name, reason in saved(events) if reason != "best"] == ["step-000005", *left[1:]]
    assert not list(folder.glob(".*"))


def test_while_paused_the_end_of_a_save_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held = Held(monkeypatch)
    events = run(folder, at({6: lambda: "pause", 9: held.may.set, 30: lambda: "resume"}))
    told = [e.phase if isinstance(e, Phase) else e.checkpoint for e in events if isinstance(e, Phase | Saved)]
    assert told[told.index("paused") + 1] == "step-000005"


def test_a_fault_of_the_disk_is_told_when_it_is_known_and_training_goes_on(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = Held(monkeypatch)

    def refuse(place: Path, model: Any, step: int, *_: Any, **__: Any) -> None:
        raise SaveError(f"step-{step:06d} could not be written: the disk is full.")

    real, held.real = held.real, refuse
    held.may.set()
    after = at({8: lambda: setattr(held, "real", real)})
    events = run(folder, after)
    warned = [event.message for event in events if isinstance(event, Warned)]
    assert warned[-1] == (
        "step-000005 could not be written: the disk is full. No checkpoint to go on from has been saved."
    )
    assert [name for _, name, reason in saved(events) if reason != "best"] == ["step-000010"]
    assert isinstance(events[-1], Ended)
    assert events[-1].reason == "finished"


def test_a_run_that_fails_names_the_checkpoint_that_was_being_written(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = Held(monkeypatch)
    state = TrainState.build(seldom(), parts())

    def spoil() -> None:
        threading.Timer(0.2, held.may.set).start()
        with torch.no_grad():
            state.model.pos_emb.weight.fill_(math.nan)

    last = list(train(state.config, state=state, checkpoints=folder, requests=at({7: spoil})))[-1]
    assert isinstance(last, Ended)
    assert last.reason == "failed"
    assert "The newest checkpoint is step-000005, 2 steps earlier." in last.message


def test_any_other_fault_of_the_thread_is_the_trainings(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def break_down(*_: Any, **__: Any) -> None:
        raise LookupError("nobody thought of this")

    monkeypatch.setattr(checkpoint, "save_checkpoint", break_down)
    with pytest.raises(LookupError, match="nobody thought of this"):
        run(folder)


def test_what_is_small_or_has_no_room_beside_the_training_is_written_at_once(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(saving, "free_memory", lambda: 1_000_000_000)
    assert pays(500_000_000)
    assert not pays(500_000_001)
    monkeypatch.setattr(saving, "LARGE", 100)
    assert pays(100)
    assert not pays(99)
    monkeypatch.setattr(saving, "free_memory", lambda: 0)
    held = Held(monkeypatch)
    run(folder)
    assert held.threads == [False, False]


@pytest.mark.parametrize("tied", [False, True])
def test_a_copy_is_the_model_and_stays_so(tied: bool) -> None:
    model = small_model(tie_weights=tied)
    copy = copy_of(model)
    right = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert same(dict(copy.state_dict()), right)
    assert (copy.out_head.weight is copy.tok_emb.weight) == tied
    facts = {"a": torch.ones(2), "b": {"c": torch.ones(2)}, "d": 3}
    copied = in_memory(facts)
    facts["a"].zero_()  # type: ignore[attr-defined]
    facts["b"]["c"].zero_()  # type: ignore[index]
    assert same(copied, {"a": torch.ones(2), "b": {"c": torch.ones(2)}, "d": 3})


def test_a_writer_tells_once_of_each_thing_that_it_did() -> None:
    writer, may = Writer(), threading.Event()
    assert writer.ended(wait=True) is None
    writer.begin(lambda: may.wait(LIMIT), "first", beside=True)
    assert writer.busy
    assert writer.ended(wait=False) is None
    may.set()
    told = writer.ended(wait=True)
    assert told is not None
    assert (told.what, told.error) == ("first", None)
    assert writer.ended(wait=True) is None
    writer.begin(lambda: None, "second", beside=False)
    told = writer.ended(wait=False)
    assert told is not None
    assert told.what == "second"
