"""Steps whose numbers are read together are the same steps. A CPU stands in for the GPU that nobody waits for."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch

from gptlab import readback
from gptlab.events import Ended, Evaluated, Event, Phase, Sampled, Stepped
from gptlab.loss import loss_of
from gptlab.readback import Made, ReadBack
from gptlab.state import TrainState
from gptlab.training import train
from tests.small_models import parts, run_config


@pytest.fixture(autouse=True)
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is read because time has passed."""
    monkeypatch.setattr(readback, "READ_BACK_SECONDS", math.inf)


def build(*, later: bool, **sections: dict[str, Any]) -> TrainState:
    """A state as on a GPU: with the fused optimiser, read later or at once."""
    state = TrainState.build(run_config(**sections), parts())
    optim = state.config.optim
    state.optimizer = torch.optim.AdamW(
        state.model.parameters(), optim.learning_rate, optim.betas, weight_decay=optim.weight_decay, fused=True
    )
    state.reads_later = later
    return state


def run(*, later: bool, wishes: Iterable[str | None] = (), **sections: dict[str, Any]) -> list[Event]:
    state, asked = build(later=later, **sections), iter(wishes)
    return list(train(state.config, state=state, requests=lambda: next(asked, None)))


def facts(events: list[Event]) -> list[tuple]:
    """All that was told, but for times."""
    every = [(type(event), vars(event)) for event in events]
    timed = ("time", "tokens_per_second", "seconds")
    return [(kind, *(str(value) for name, value in told.items() if name not in timed)) for kind, told in every]


@pytest.mark.parametrize(
    "sections",
    [
        {},
        {"model": {"drop_rate": 0.3}, "train": {"eval_freq": 100}},
        {"optim": {"grad_accumulation": 3, "grad_clip": 0.05}, "data": {"drop_last": False}},
    ],
    ids=["plain", "dropout", "accumulated-clipped"],
)
def test_steps_read_together_are_those_read_one_by_one(sections: dict) -> None:
    together, one_by_one = run(later=True, **sections), run(later=False, **sections)
    rare = [fact for fact in facts(together) if fact[0] is not Stepped]
    assert rare == [fact for fact in facts(one_by_one) if fact[0] is not Stepped]
    steps = [event for event in together if isinstance(event, Stepped)]
    assert facts(steps) == facts([event for event in one_by_one if isinstance(event, Stepped)])
    assert [event.time for event in steps] == sorted(event.time for event in steps)


@pytest.mark.cuda
def test_on_a_gpu_it_is_so_by_itself() -> None:
    told = []
    for later in (True, False):
        state = TrainState.build(run_config(train={"device": "cuda"}), parts())
        assert state.reads_later
        state.reads_later = later
        told.append(facts(list(train(state.config, state=state))))
    assert told[0] == told[1]


def test_nothing_is_read_but_before_an_evaluation_and_at_the_end_of_an_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[list[int]] = []
    monkeypatch.setattr(ReadBack, "read", spying(ReadBack.read, read))
    run(later=True, train={"eval_freq": 3})
    assert read == [[0], [1, 2, 3], [4], [5, 6], [7, 8, 9]]  # evaluated after 0, 3, 6, 9; epochs end with 4 and 9


def test_a_step_alone_asks_the_device_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    state = build(later=True, optim={"grad_clip": 0.1, "grad_accumulation": 2})
    batches = next(iter(state.groups()))

    def refuse(*_: object) -> None:
        raise AssertionError("The step was read back.")

    state.optimise_unread(batches, 1e-3)  # the first one makes the optimiser's state
    for name in ("item", "tolist", "__float__", "__bool__", "numpy"):
        monkeypatch.setattr(torch.Tensor, name, refuse)
    state.optimise_unread(batches, 1e-3)
    with pytest.raises(AssertionError, match="read back"):
        state.optimise(batches, 1e-3)


def spying(read: Any, seen: list[list[int]]) -> Any:
    def spied(self: ReadBack) -> Any:
        if self.waiting:
            seen.append([made.step for made in self.waiting])
        return read(self)

    return spied


class _Spoilt:
    """A loss that is NaN at one step alone."""

    def __init__(self, state: TrainState, at: int) -> None:
        self.state, self.left = state, at

    def __call__(self, inputs: torch.Tensor, targets: torch.Tensor, number: int = 0) -> torch.Tensor:
        self.left -= 1
        return loss_of(self.state.model, inputs, targets) * (math.nan if self.left == -1 else 1.0)


def test_after_a_loss_that_is_no_number_no_later_step_is_applied_or_told(tmp_path: Path) -> None:
    states, told = [], []
    for later in (True, False):
        state = build(later=later, train={"eval_freq": 5})
        state.batch_loss = _Spoilt(state, 7)  # type: ignore[method-assign]
        events = list(train(state.config, state=state, checkpoints=tmp_path / str(later)))
        states.append(state)
        told.append(facts([e for e in events if isinstance(e, Stepped | Ended | Evaluated)]))
    assert states[0].batch_loss.left == -3  # type: ignore[attr-defined]  # steps 8 and 9 were made before 7 was read
    assert told[0] == told[1]
    assert "loss of step 7 is not a finite number" in told[0][-1][-1]
    assert states[0].step == states[1].step == 7
    assert states[0].tokens_seen == states[1].tokens_seen
    for ours, theirs in zip(states[0].model.parameters(), states[1].model.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_a_gradient_that_is_no_number_is_not_applied_either() -> None:
    state = build(later=True)
    state.model.pos_emb.weight.register_hook(lambda gradient: gradient * math.inf)
    before = [p.detach().clone() for p in state.model.parameters()]
    events = list(train(state.config, state=state))
    assert "gradient of step 0 is not a finite number" in str(events[-1])
    assert all(torch.equal(a, b) for a, b in zip(before, state.model.parameters(), strict=True))


def test_what_was_made_is_told_before_a_wish_is_served() -> None:
    events = run(later=True, wishes=[None, None, None, "pause", "step", "resume"], train={"eval_freq": 100})
    kinds = [
        event.phase if isinstance(event, Phase) else event.step
        for event in events
        if isinstance(event, Phase | Stepped) and not (isinstance(event, Phase) and event.phase == "sampling")
    ]
    assert kinds[kinds.index(1) :][:7] == [1, 2, "paused", "training", 3, "paused", "training"]


def test_a_last_step_is_told_before_its_sample() -> None:
    events = run(later=True, train={"eval_freq": 100, "num_epochs": 1})
    told = [type(event) for event in events if isinstance(event, Stepped | Sampled)]
    assert told.index(Sampled) == 0  # before training
    assert told[1:] == [Stepped] * 5 + [Sampled]


def test_steps_read_together_share_the_time_they_took(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readback.time, "perf_counter", iter([10.0, 16.0]).__next__)
    monkeypatch.setattr(readback.time, "time", lambda: 100.0)
    unread = ReadBack()
    for step in range(3):
        unread.begin()
        unread.add(Made(step, 1, 8, 8 * step, 1e-3, torch.tensor([1.0, 2.0, float(step)])))
    told = [(read.made.step, read.loss, read.norm, read.seconds, read.time) for read in unread.read()]
    assert told == [(0, 3.0, 0.0, 2.0, 96.0), (1, 3.0, 1.0, 2.0, 98.0), (2, 3.0, 2.0, 2.0, 100.0)]
    assert list(unread.read()) == []


def test_it_is_time_to_read_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readback, "READ_BACK_SECONDS", 0.25)
    now = iter([1.0, 1.1, 1.3])
    monkeypatch.setattr(readback.time, "perf_counter", lambda: next(now))
    unread = ReadBack()
    unread.begin()
    unread.add(Made(0, 1, 8, 0, 1e-3, torch.tensor([1.0, 2.0])))
    assert [unread.is_due(), unread.is_due()] == [False, True]
