"""What bf16 does to a run is measured with the right arithmetic, and told beside the published log."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from bench.agreement import Agreement, beginnings, compare
from bench.calibrate import LOG, table
from bench.emulated_bf16 import emulated_bf16
from gptlab.events import Evaluated, Stepped, encode
from gptlab.fast import head, pieces
from gptlab.fast.engine import Engine
from gptlab.log import RunLog
from gptlab.published import EVALUATIONS
from tests.small_models import small_model, some_ids


def bf16_gradients(engine: Engine) -> tuple[float, list[torch.Tensor]]:
    ids = some_ids(2 * 17).view(2, 17)
    loss = engine.loss_and_gradients([(ids[:, :-1], ids[:, 1:])], step=0)
    return loss, [gradient.float().clone() for _, gradient in engine.gradients()]


def test_emulated_products_are_bf16_products() -> None:
    a, b = torch.randn(33, 40).bfloat16(), torch.randn(40, 29).bfloat16()
    right = (a.double() @ b.double()).bfloat16()
    with emulated_bf16():
        product, batched = pieces.torch.mm(a, b), pieces.torch.bmm(a[None], b[None])[0]
        room = torch.zeros(33, 29, dtype=torch.bfloat16)
        assert head.torch.mm(a, b, out=room) is room
    for made in (product, batched, room):
        assert made.dtype == torch.bfloat16
        wrong = (made != right).float().mean()
        assert float(wrong) < 0.02  # sums in another order round another way now and then
        torch.testing.assert_close(made, right, rtol=2**-7, atol=1e-5)


def test_a_step_with_emulated_products_is_the_step_with_this_processors_own() -> None:
    own_loss, own = bf16_gradients(Engine(small_model(drop_rate=0.1).train(), torch.bfloat16, seed=1))
    with emulated_bf16():
        assert pieces.torch is not torch
        loss, gradients = bf16_gradients(Engine(small_model(drop_rate=0.1).train(), torch.bfloat16, seed=1))
    assert pieces.torch is torch
    assert head.torch is torch
    assert loss == pytest.approx(own_loss, rel=1e-3)
    for ours, its in zip(gradients, own, strict=True):
        assert float((ours - its).norm()) < 0.01 * (float(its.norm()) + 1e-3)


def test_the_table_says_how_far_each_run_went_from_the_published_log(tmp_path: Path) -> None:
    path = tmp_path / "bf16-7" / LOG
    path.parent.mkdir()
    rows = [
        Evaluated(
            step=row.step,
            epoch=row.epoch,
            tokens_seen=0,
            train_loss=row.train * (1.5 if row.step == 60 else 1.1 if row.step == 25 else 1.0),
            val_loss=row.val * (0.98 if row.step == 40 else 1.0),
        )
        for row in EVALUATIONS
    ]
    steps = [Stepped(step=step, epoch=1, tokens_seen=0, loss=16.0 if step == 24 else 5.0) for step in range(30)]
    path.write_text("".join(encode(event) + "\n" for event in [*steps, *rows]), encoding="utf-8")
    told = table({"bf16-7": RunLog(path)})
    assert "| bf16-7 | -2.0% at 40 | +10.0% at 25 | +50.0% at 60 | 0.569 | 6.007, 41, 5 | [24] |" in told


def test_agreement_counts_positions_until_the_first_near_tie() -> None:
    model, prompts = small_model(context_length=64), [some_ids(5).tolist(), some_ids(4, seed=1).tolist()]
    with torch.no_grad():
        model.out_head.weight.mul_(4)  # clearer choices
    told = compare(model, prompts, 12, "bf16", near_tie=0.0)
    assert told.until_tie == told.read == 24
    assert told.equal_read > 20
    assert told.widest_overruled < 0.1
    assert compare(model, prompts, 12, "bf16", near_tie=100.0).until_tie == 0
    assert "none" in str(Agreement())


def test_what_other_weights_choose_differently_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    model, other = small_model(context_length=64), small_model(seed=3, context_length=64)
    true = compare.__globals__["Reader"]
    fakes = {"fp32": lambda *rest: true(model, *rest[1:]), "bf16": lambda *rest: true(other, "fp32", *rest[2:])}
    monkeypatch.setitem(compare.__globals__, "Reader", lambda *rest: fakes[rest[1]](*rest))
    its = {"fp32": model, "bf16": other}
    written = compare.__globals__["generate"]
    monkeypatch.setitem(compare.__globals__, "generate", lambda _, *rest, weights: written(its[weights], *rest))
    told = compare(model, [some_ids(5).tolist()], 20, "bf16", near_tie=0.0)
    assert told.until_tie == 20
    assert told.equal_until_tie < 10
    assert told.same_texts == 0
    assert told.equal_read < 10
    assert told.widest_overruled > 0.0


def test_prompts_are_beginnings_of_sentences_from_all_over_the_text() -> None:
    story = " ".join(f"Sentence number {i} has a good many words, that is sure. Short." for i in range(40))
    prompts = beginnings(story, 4)
    assert len({tuple(prompt) for prompt in prompts}) == 4
    assert {len(prompt) for prompt in prompts} == {8}
