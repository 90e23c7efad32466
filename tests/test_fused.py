"""The loss for GPUs is the textbook's, and so are its gradients. It is tried on the CPU, where the same code runs."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from gptlab.acceleration import compile_step
from gptlab.events import Ended, Evaluated, Event, Stepped, Warned
from gptlab.fast import fused as module
from gptlab.fast.fused import FusedLoss, row_totals, softmax_gradient
from gptlab.loss import loss_of
from gptlab.model import GPTModel, evaluating
from gptlab.state import TrainState
from gptlab.training import train
from tests.small_models import parts, run_config, small_model, some_ids

SHAPES = [{}, {"tie_weights": True, "init": "gpt2"}, {"qkv_bias": True}, {"n_heads": 1, "n_layers": 1}]


def batch() -> tuple[Tensor, Tensor]:
    ids = some_ids(3 * 13).view(3, 13)
    return ids[:, :-1].contiguous(), ids[:, 1:].contiguous()


def gradients(model: GPTModel, loss: Callable[[Tensor, Tensor], Tensor]) -> tuple[float, list[Tensor]]:
    model.zero_grad()
    value = loss(*batch())
    (value * 0.3).backward()
    return value.item(), [p.grad.clone() for p in model.parameters() if p.grad is not None]


@pytest.mark.parametrize("shape", SHAPES, ids=["plain", "tied", "biased", "one"])
@pytest.mark.parametrize(("dtype", "near"), [(torch.float32, 1e-4), (torch.bfloat16, 3e-2)], ids=["fp32", "bf16"])
def test_loss_and_every_gradient_are_the_textbooks(
    monkeypatch: pytest.MonkeyPatch, shape: dict, dtype: torch.dtype, near: float
) -> None:
    monkeypatch.setattr(module, "_ROWS", 10)  # of the batch's 36: in pieces where it is not compiled
    model = small_model(drop_rate=0.0, **shape).train()
    loss, right = gradients(model, lambda *ids: loss_of(model, *ids))
    fused, ours = gradients(model, FusedLoss(model, dtype))
    assert fused == pytest.approx(loss, rel=near / 3)
    assert len(ours) == len(right) == len(list(model.parameters()))
    for mine, its in zip(ours, right, strict=True):
        assert float((mine - its).norm()) < near * (float(its.norm()) + 1e-3)  # of a bias of the keys it is zero


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_without_gradients_it_is_the_same_loss(dtype: torch.dtype) -> None:
    model = small_model()
    fused = FusedLoss(model, dtype)
    with torch.no_grad():
        near = 1e-5 if dtype == torch.float32 else 1e-2
        assert fused(*batch()).item() == pytest.approx(loss_of(model, *batch()).item(), rel=near)
        alone = fused(*batch())
    assert not alone.requires_grad
    assert fused(*batch()).item() == pytest.approx(alone.item(), rel=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_head_multiplies_in_the_type_that_was_asked_for(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype
) -> None:
    seen: list[torch.dtype] = []
    head = module._PLAIN.padded_head
    monkeypatch.setattr(module._PLAIN, "padded_head", lambda weight, dtype: seen.append(dtype) or head(weight, dtype))
    FusedLoss(small_model(), dtype)(*batch())
    assert seen == [dtype]


def test_after_the_compiler_failed_the_loss_is_made_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    fused = FusedLoss(small_model(), torch.float32)
    right = fused(*batch()).item()

    def fail(*_: object) -> None:
        raise RuntimeError("no compiler here")

    monkeypatch.setattr(torch, "compile", lambda *_, **__: fail)
    with pytest.raises(RuntimeError, match="no compiler here"):
        fused.compile(*batch()[0].shape)
    assert fused(*batch()).item() == right
    assert all(p.grad is None for p in fused.model.parameters())


@pytest.mark.parametrize("columns", [128, 192])
def test_logits_become_the_softmax_and_padding_has_no_share(columns: int) -> None:
    logits = torch.randn(5, columns, generator=torch.Generator().manual_seed(3)) * 4
    vocab_size = columns - 28
    logits[:, vocab_size:] = 50.0  # beyond the vocabulary
    known = logits[:, :vocab_size].clone()
    totals = torch.logsumexp(known, -1)
    torch.testing.assert_close(row_totals(logits, vocab_size), totals)
    torch.testing.assert_close(softmax_gradient(logits, vocab_size, 1 / 5), totals)
    torch.testing.assert_close(logits[:, :vocab_size], known.softmax(-1) / 5)
    assert not logits[:, vocab_size:].any()


def leave_attention_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """No dropout on them: it follows the device's stream, not step and batch."""
    whole = F.scaled_dot_product_attention
    monkeypatch.setattr(F, "scaled_dot_product_attention", lambda *a, dropout_p, **k: whole(*a, **k))


def test_dropout_follows_from_step_and_batch_and_is_off_in_evaluation(monkeypatch: pytest.MonkeyPatch) -> None:
    leave_attention_weights(monkeypatch)
    model = small_model(drop_rate=0.5)
    fused = FusedLoss(model, torch.float32, seed=5)
    assert fused(*batch(), 1, 0) == fused(*batch(), 2, 1)
    model.train()
    once = {step: fused(*batch(), *step).item() for step in [(1, 0), (1, 1), (2, 0)]}
    assert len(set(once.values())) == 3
    assert once == {step: fused(*batch(), *step).item() for step in once}
    assert FusedLoss(model, torch.float32, seed=6)(*batch(), 1, 0).item() != once[1, 0]


def test_layers_and_places_have_masks_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    masks: list[Tensor] = []
    dropped = module.dropout.dropped

    def seen(x: Tensor, key: Tensor, rate: float) -> Tensor:
        masks.append(dropped(torch.ones(200, 500), key, rate))
        return dropped(x, key, rate)

    monkeypatch.setattr(module.dropout, "dropped", seen)
    model = small_model(drop_rate=0.2, n_layers=2).train()
    FusedLoss(model)(*batch())
    assert len(masks) == 5  # after the embedding, and twice a block
    for mask in masks:
        assert float((mask == 0).float().mean()) == pytest.approx(0.2, abs=0.01)
        assert float(mask.max()) == pytest.approx(1.25)
    assert not any(torch.equal(one, other) for i, one in enumerate(masks) for other in masks[:i])


def run(state: TrainState) -> list[Event]:
    return list(train(state.config, state=state))


def numbers(events: list[Event]) -> list[tuple]:
    steps = [(e.step, e.loss, e.grad_norm) for e in events if isinstance(e, Stepped)]
    return steps + [(e.step, e.train_loss, e.val_loss) for e in events if isinstance(e, Evaluated)]


def test_a_run_with_it_follows_the_textbook_run(monkeypatch: pytest.MonkeyPatch) -> None:
    sections: dict[str, Any] = {
        "model": {"drop_rate": 0.0},
        "data": {"drop_last": False, "batch_size": 3},
        "optim": {"grad_accumulation": 2},
    }
    slow = run(TrainState.build(run_config(**sections), parts()))
    state = TrainState.build(run_config(**sections), parts())
    asked: list[tuple[int, int, bool]] = []

    class Seen(FusedLoss):
        def __call__(self, ids: Tensor, targets: Tensor, step: int = 0, number: int = 0) -> Tensor:
            asked.append((step, number, self.model.training))
            return super().__call__(ids, targets, step, number)

    state.fused = Seen(state.model, torch.float32)
    assert state.is_compiled
    quick = run(state)
    steps = [event.step for event in quick if isinstance(event, Stepped)]
    evaluations = sum(isinstance(event, Evaluated) for event in quick)
    made = [(step, number) for step, number, training in asked if training]
    assert sorted({step for step, _ in made}) == steps
    assert {number for _, number in made} == {0, 1}
    assert len(asked) - len(made) == evaluations * 4  # two batches of each part: evaluations go this way too
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


def test_one_compilation_serves_every_layer_and_the_usual_shape_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))  # a minute less
    leave_attention_weights(monkeypatch)
    model = small_model(drop_rate=0.1, n_layers=3)
    fused = FusedLoss(model, torch.float32)
    ids, targets = batch()
    right = fused(ids, targets).item()
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    model.train()
    fused.compile(*ids.shape)
    built = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    compiled = gradients(model, partial(fused, step=1))
    uncompiled = gradients(model, partial(FusedLoss(model, torch.float32), step=1))
    assert compiled[0] == pytest.approx(uncompiled[0], rel=1e-5)
    for mine, its in zip(compiled[1], uncompiled[1], strict=True):
        torch.testing.assert_close(mine, its, rtol=1e-4, atol=1e-6)
    assert built == 4 + 3  # four regions in training, and without gradients all but the head's weights again
    with evaluating(model), torch.no_grad():
        assert fused(ids, targets).item() == pytest.approx(right, rel=1e-5)
        assert fused(ids[:2], targets[:2]).item() > 0
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == built


def test_where_it_cannot_be_compiled_the_textbook_trains(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("unheard-of operation")

    state = TrainState.build(run_config(train={"compile": "on"}), parts())
    monkeypatch.setattr(state, "device", torch.device("meta"))  # any that is no CPU
    monkeypatch.setattr(torch, "compile", lambda *_, **__: fail)
    reason = compile_step(state)
    monkeypatch.setattr(state, "device", torch.device("cpu"))
    assert reason is not None
    assert not state.is_compiled
    monkeypatch.setattr("gptlab.training.compile_step", lambda _: reason)
    events = run(state)
    assert "unheard-of operation" in next(
        e.message for e in events if isinstance(e, Warned) and "compiled" in e.message
    )
    assert isinstance(events[-1], Ended)
    assert events[-1].reason == "finished"
