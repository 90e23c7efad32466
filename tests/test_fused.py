"""The forward pass for GPUs is the textbook's. It is tried on the CPU, where the same code runs."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor

from gptlab.events import Ended, Evaluated, Event, Stepped, Warned
from gptlab.fast.fused import FusedForward
from gptlab.loss import loss_of
from gptlab.model import GPTModel
from gptlab.state import TrainState
from gptlab.training import train
from tests.small_models import parts, run_config, small_model, some_ids

SHAPES = [{}, {"tie_weights": True, "init": "gpt2"}, {"qkv_bias": True}, {"n_heads": 1, "n_layers": 1}]


def gradients(model: GPTModel, forward: Any, dtype: torch.dtype) -> tuple[float, list[Tensor]]:
    model.zero_grad()
    ids = some_ids(3 * 13).view(3, 13)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
        loss = loss_of(forward, ids[:, :-1], ids[:, 1:])
    loss.backward()
    return loss.item(), [p.grad.clone() for p in model.parameters() if p.grad is not None]


@pytest.mark.parametrize("shape", SHAPES, ids=["plain", "tied", "biased", "one"])
@pytest.mark.parametrize(("dtype", "near"), [(torch.float32, 1e-4), (torch.bfloat16, 3e-2)], ids=["fp32", "bf16"])
def test_loss_and_every_gradient_are_the_textbooks(shape: dict, dtype: torch.dtype, near: float) -> None:
    model = small_model(drop_rate=0.0, **shape).train()
    loss, right = gradients(model, model, torch.float32)
    fused, ours = gradients(model, FusedForward(model), dtype)
    assert fused == pytest.approx(loss, rel=near / 3)
    assert len(ours) == len(right) == len(list(model.parameters()))
    for mine, its in zip(ours, right, strict=True):
        assert float((mine - its).norm()) < near * (float(its.norm()) + 1e-3)  # of a bias of the keys it is zero


def test_logits_have_no_padding_and_need_no_gradient() -> None:
    model = small_model()
    with torch.no_grad():
        logits = FusedForward(model)(some_ids(16).view(1, 16))
        torch.testing.assert_close(logits, model(some_ids(16).view(1, 16)), rtol=1e-5, atol=1e-5)
    assert logits.shape == (1, 16, model.config.vocab_size)


def test_dropout_is_on_in_training_and_off_in_evaluation() -> None:
    model = small_model(drop_rate=0.5)
    fused, ids = FusedForward(model), some_ids(16).view(1, 16)
    assert torch.equal(fused(ids), fused(ids))
    model.train()
    assert not torch.equal(fused(ids), fused(ids))


def test_dropout_keeps_the_scale_of_what_it_drops() -> None:
    model = small_model(drop_rate=0.2, n_layers=1).train()
    fused, ids = FusedForward(model), some_ids(16).view(1, 16)
    kept = fused._dropped(torch.ones(100_000))
    assert float((kept == 0).float().mean()) == pytest.approx(0.2, abs=0.01)
    assert float(kept.max()) == pytest.approx(1.25)
    before = [torch.random.get_rng_state(), fused(ids)]
    torch.random.set_rng_state(before[0])
    assert torch.equal(fused(ids), before[1])


def run(state: TrainState) -> list[Event]:
    return list(train(state.config, state=state))


def numbers(events: list[Event]) -> list[tuple]:
    steps = [(e.step, e.loss, e.grad_norm) for e in events if isinstance(e, Stepped)]
    return steps + [(e.step, e.train_loss, e.val_loss) for e in events if isinstance(e, Evaluated)]


def test_a_run_with_it_follows_the_textbook_run(monkeypatch: pytest.MonkeyPatch) -> None:
    sections: dict[str, Any] = {"model": {"drop_rate": 0.0}, "data": {"drop_last": False, "batch_size": 3}}
    slow = run(TrainState.build(run_config(**sections), parts()))
    state = TrainState.build(run_config(**sections), parts())
    compiled: list[Any] = []
    evaluated: list[bool] = []

    def called(*batch: Any) -> Tensor:
        evaluated.append(not torch.is_grad_enabled())
        return loss_of(*batch)

    monkeypatch.setattr(torch, "compile", lambda function: compiled.append(function) or called)
    state._compile_fused(torch.zeros(3, 8, dtype=torch.long))
    evaluated.clear()
    assert state.is_compiled
    state.model.zero_grad()
    quick = run(state)
    assert compiled == [loss_of]
    steps, evaluations = (sum(isinstance(e, kind) for e in quick) for kind in (Stepped, Evaluated))
    assert evaluated.count(False) == steps
    assert evaluated.count(True) == evaluations * 4  # two batches of each part: evaluations go the compiled way too
    assert isinstance(quick[-1], Ended)
    assert numbers(quick) == [pytest.approx(row, rel=2e-4) for row in numbers(slow)]
    assert numbers(quick) != numbers(slow)  # it was another way there


@pytest.mark.cuda
def test_on_a_gpu_a_compiled_run_follows_the_textbook_run() -> None:
    sections: dict[str, Any] = {"model": {"drop_rate": 0.0}}
    runs = []
    for compiled in ("on", "off"):
        train = {"device": "cuda", "compile": compiled}
        runs.append(numbers(run(TrainState.build(run_config(**sections, train=train), parts()))))
    assert runs[0] == [pytest.approx(row, rel=1e-3) for row in runs[1]]


def test_it_compiles_and_the_compiled_loss_is_the_same() -> None:
    state = TrainState.build(run_config(model={"drop_rate": 0.0}), parts())
    inputs, targets = next(iter(state.train_loader))
    right = state.batch_loss(inputs, targets).item()
    state._compile_fused(torch.zeros_like(inputs))
    assert state.batch_loss(inputs, targets).item() == pytest.approx(right, rel=1e-5)


def test_where_it_cannot_be_compiled_the_textbook_trains(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("unheard-of operation")

    state = TrainState.build(run_config(train={"compile": "on"}), parts())
    monkeypatch.setattr(state, "device", torch.device("meta"))  # any that is no CPU
    monkeypatch.setattr(state, "autocast", nullcontext)
    monkeypatch.setattr(torch, "compile", lambda _: fail)
    reason = state.compile()
    monkeypatch.setattr(state, "device", torch.device("cpu"))
    assert reason is not None
    assert not state.is_compiled
    monkeypatch.setattr(TrainState, "compile", lambda _: reason)
    events = run(state)
    assert "unheard-of operation" in next(
        e.message for e in events if isinstance(e, Warned) and "compiled" in e.message
    )
    assert isinstance(events[-1], Ended)
    assert events[-1].reason == "finished"
