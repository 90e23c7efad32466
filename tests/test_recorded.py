"""A step that is recorded and started as a whole is the step that was recorded."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from gptlab.acceleration import record_step
from gptlab.events import Ended, Evaluated, Event, Stepped, Warned
from gptlab.fast import recorded as module
from gptlab.fast.fused import FusedLoss
from gptlab.fast.recorded import AHEAD, Batch, RecordedStep
from gptlab.state import TrainState
from gptlab.training import train
from tests.small_models import parts, run_config

SECTIONS: dict[str, dict[str, Any]] = {
    "plain": {"optim": {"warmup_steps": 6}},
    "dropout": {"model": {"drop_rate": 0.3}},
    "accumulated-clipped": {
        "optim": {"grad_accumulation": 3, "grad_clip": 0.05},
        "data": {"drop_last": False, "batch_size": 3},
    },
}


def told(state: TrainState) -> list[Event]:
    return list(train(state.config, state=state))


def numbers(events: list[Event]) -> list[tuple]:
    steps = [(e.step, e.loss, e.grad_norm, e.tokens_seen) for e in events if isinstance(e, Stepped)]
    return steps + [(e.step, e.train_loss, e.val_loss) for e in events if isinstance(e, Evaluated)]


class _Graph:
    """What is recorded, without a GPU: the same work on the same memory, done again each time."""

    def __init__(self, state: TrainState) -> None:
        size, length = state.config.data.batch_size, state.config.model.context_length
        self.state, self.played = state, 0
        rooms = torch.zeros(state.config.optim.grad_accumulation, 2, size, length, dtype=torch.long)
        batches: Sequence[Batch] = [(inputs, targets) for inputs, targets in rooms]
        numbers = torch.zeros(len(batches) + 1)
        self.step = RecordedStep(self, batches, state.mask_keys(len(batches)), numbers)  # type: ignore[arg-type]

    def replay(self) -> None:
        self.played += 1
        self.step.numbers.copy_(self.state.unread_step(self.step.batches, self.step.keys.unbind(0)))


class _Event:
    """The end of a step on the device, and who waited for it."""

    made: ClassVar[list[_Event]] = []

    def record(self) -> None:
        self.made.append(self)
        self.waited_for_by: int | None = None

    def synchronize(self) -> None:
        self.waited_for_by = len(self.made)


@pytest.fixture(autouse=True)
def events(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> list[_Event]:
    """The ends of steps, but where there is a GPU to tell them."""
    monkeypatch.setattr(_Event, "made", [])
    if request.node.get_closest_marker("cuda") is None:
        monkeypatch.setattr(torch.cuda, "Event", _Event)
    return _Event.made


def build(fused: bool, **sections: Any) -> TrainState:
    """A state as on a GPU, on the CPU: its steps are read later, and made by the fused loss where that is asked for."""
    state = TrainState.build(run_config(**sections), parts())
    optim = state.config.optim
    rate = torch.tensor(optim.learning_rate)  # where what is recorded reads it
    state.optimizer = torch.optim.AdamW(state.model.parameters(), rate, optim.betas, fused=True)
    state.reads_later = True
    if fused:
        state.fused = FusedLoss(state.model, torch.float32, seed=5)
    return state


@pytest.mark.parametrize("fused", [False, True], ids=["textbook", "fused"])
@pytest.mark.parametrize("sections", SECTIONS.values(), ids=SECTIONS)
def test_batches_of_the_usual_shape_go_the_recorded_way_with_their_own_masks(
    monkeypatch: pytest.MonkeyPatch, sections: dict, fused: bool
) -> None:
    one_by_one, state = build(fused, **sections), build(fused, **sections)
    graph = _Graph(state)
    monkeypatch.setattr("gptlab.training.record_step", lambda state: setattr(state, "recorded", graph.step))
    events = told(state)
    monkeypatch.setattr("gptlab.training.record_step", lambda _: None)
    assert numbers(events) == numbers(told(one_by_one))
    steps = sum(isinstance(event, Stepped) for event in events)
    short = "data" in sections  # there each epoch ends with a step of fewer or smaller batches
    assert steps / 2 <= graph.played < steps if short else graph.played == steps
    assert state.recorded is None  # nor the memory that it keeps


def test_what_a_step_told_stays_and_no_more_than_a_few_are_started_ahead(events: list[_Event]) -> None:
    state = build(False)
    graph, batches = _Graph(state), next(iter(state.groups()))
    first = graph.step(batches, graph.step.keys)
    told = first.clone()
    for _ in range(AHEAD + 2):
        graph.step(batches, graph.step.keys)
    assert torch.equal(first, told)
    assert not torch.equal(first, graph.step.numbers)
    # the step after AHEAD others waits for the first of them
    assert [event.waited_for_by for event in events] == [AHEAD, AHEAD + 1, AHEAD + 2] + [None] * AHEAD


def test_only_batches_of_the_recorded_shapes_fit() -> None:
    state = build(False, optim={"grad_accumulation": 2})
    step, (batch, other) = _Graph(state).step, next(iter(state.groups()))
    assert step.fits([batch, other])
    assert not step.fits([batch])
    assert not step.fits([batch, (other[0][:1], other[1][:1])])


def test_a_step_follows_the_rate_and_the_keys_that_it_is_given() -> None:
    state = build(True, model={"drop_rate": 0.5})
    batches = next(iter(state.groups()))
    state.optimise_unread(batches, 1e-2)
    before = [p.detach().clone() for p in state.model.parameters()]
    state.optimise_unread(batches, 0.0)
    assert all(torch.equal(a, b) for a, b in zip(before, state.model.parameters(), strict=True))
    fused, told = state.fused, []
    assert fused is not None
    state._set(0.0)
    for step in (1, 1, 2):
        torch.manual_seed(0)  # of the attention weights' masks
        told.append(state.unread_step(batches, [fused.keys(step, 0)]))
    assert torch.equal(told[0], told[1])
    assert not torch.equal(told[0], told[2])


def test_keys_made_beforehand_are_those_made_on_the_way() -> None:
    state = build(True, model={"drop_rate": 0.5})
    fused, batch = state.fused, next(iter(state.groups()))[0]
    assert fused is not None
    torch.manual_seed(0)
    right = fused(*batch, 3, 1).item()
    torch.manual_seed(0)  # of the attention weights' masks
    assert fused.with_keys(*batch, fused.keys(3, 1)).item() == right
    torch.manual_seed(0)
    assert fused.with_keys(*batch, fused.keys(3, 2)).item() != right


def test_a_step_that_cannot_be_recorded_is_warned_of_and_made(monkeypatch: pytest.MonkeyPatch) -> None:
    right = numbers(told(build(False)))
    monkeypatch.setattr("gptlab.training.record_step", lambda _: "RuntimeError: not here")
    events = told(build(False))
    warnings = [event.message for event in events if isinstance(event, Warned)]
    assert warnings[-1] == "The step could not be recorded, so its parts are started one by one: RuntimeError: not here"
    assert numbers(events) == right


def test_on_a_cpu_nothing_is_recorded() -> None:
    state = build(False)
    assert record_step(state) is None
    assert state.recorded is None


def on_gpu(compiled: bool = False, **sections: Any) -> TrainState:
    train = {"device": "cuda", "compile": "on" if compiled else "off"}
    return TrainState.build(run_config(**sections, train=train), parts())


@pytest.mark.cuda
@pytest.mark.parametrize("sections", SECTIONS.values(), ids=SECTIONS)
def test_recorded_steps_are_those_made_one_by_one(monkeypatch: pytest.MonkeyPatch, sections: dict) -> None:
    calls: list[int] = []
    play = RecordedStep.__call__
    monkeypatch.setattr(RecordedStep, "__call__", lambda *a: calls.append(1) or play(*a))
    events = told(on_gpu(**sections))
    assert len(calls) >= sum(isinstance(event, Stepped) for event in events) / 2
    assert not [event for event in events if isinstance(event, Warned) and "recorded" in event.message]
    monkeypatch.setattr("gptlab.training.record_step", lambda _: None)
    assert numbers(events) == numbers(told(on_gpu(**sections)))


@pytest.mark.cuda
def test_a_compiled_step_is_recorded_with_masks_of_each_step(monkeypatch: pytest.MonkeyPatch) -> None:
    sections = SECTIONS["dropout"]
    quick = told(on_gpu(compiled=True, **sections))
    monkeypatch.setattr("gptlab.training.record_step", lambda _: None)
    assert numbers(quick) == [pytest.approx(row, rel=1e-4) for row in numbers(told(on_gpu(compiled=True, **sections)))]


@pytest.mark.cuda
def test_a_recorded_step_whose_loss_is_no_number_is_not_applied() -> None:
    state = on_gpu()
    with torch.no_grad():
        state.model.pos_emb.weight[0, 0] = math.nan
    before = [p.detach().clone() for p in state.model.parameters()]
    last = told(state)[-1]
    assert isinstance(last, Ended)
    assert "loss of step 0 is not a finite number" in last.message
    for ours, was in zip(state.model.parameters(), before, strict=True):
        assert torch.equal(ours.nan_to_num(-1), was.nan_to_num(-1))


@pytest.mark.cuda
def test_recording_alone_changes_nothing_and_is_left_out_where_memory_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    state = on_gpu(model={"drop_rate": 0.3})
    before, streams = [p.detach().clone() for p in state.model.parameters()], state.streams.read()
    assert record_step(state) is None
    assert state.recorded is not None
    assert all(torch.equal(a, b) for a, b in zip(before, state.model.parameters(), strict=True))
    assert all(torch.equal(a, b) for a, b in zip(streams.values(), state.streams.read().values(), strict=True))
    assert all(float(facts["step"]) == 0 for facts in state.optimizer.state.values())
    monkeypatch.setattr(module, "SHARE", 0.0)
    assert record_step(state) is None
    assert state.recorded is None


@pytest.mark.cuda
def test_what_asks_the_gpu_for_a_number_cannot_be_recorded_and_trains_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    right = numbers(told(on_gpu()))
    plain = TrainState.batch_loss

    def asking(self: TrainState, inputs: Tensor, targets: Tensor, number: int = 0) -> Tensor:
        loss = plain(self, inputs, targets, number)
        assert math.isfinite(loss.item())
        return loss

    monkeypatch.setattr(TrainState, "batch_loss", asking)
    events = told(on_gpu())
    assert "could not be recorded" in next(event.message for event in events if isinstance(event, Warned))
    assert numbers(events) == right
