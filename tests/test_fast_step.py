"""The fast step against the textbook model: same weights, same losses, same gradients, same updates."""

from __future__ import annotations

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from gptlab.config import OptimConfig
from gptlab.fast import adamw, dropout
from gptlab.fast.engine import Engine
from gptlab.model import GPTModel
from gptlab.state import make_optimizer
from tests.small_models import small_model, some_ids

VOCABULARY = 211
WIDER = {"vocab_size": VOCABULARY, "context_length": 32, "emb_dim": 64, "n_heads": 4}
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 1e-2}
Batches = list[tuple[Tensor, Tensor]]


def model(**changes: object) -> GPTModel:
    return small_model(seed=1, **{**WIDER, "drop_rate": 0.0, **changes}).train()


def batch(size: int, length: int = 32, seed: int = 0) -> tuple[Tensor, Tensor]:
    ids = some_ids(size * (length + 1), seed, VOCABULARY).view(size, length + 1)
    return ids[:, :-1], ids[:, 1:]


def textbook(model: GPTModel, batches: Batches) -> tuple[float, dict[str, Tensor]]:
    """Loss over all tokens, and every gradient, by the model as it is written."""
    model.zero_grad()
    n_tokens = sum(inputs.numel() for inputs, _ in batches)
    loss = torch.zeros(())
    for inputs, targets in batches:
        loss = loss + F.cross_entropy(model(inputs).flatten(0, 1), targets.flatten(), reduction="sum") / n_tokens
    loss.backward()
    return loss.item(), {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def differences(engine: Engine, right: dict[str, Tensor]) -> dict[str, float]:
    """Length of the difference of each gradient, relative to the right one.

    A key's bias moves every score of a row alike: its gradient is zero but for rounding, and told as such.
    """
    found = {}
    names = [name for name, _ in engine.model.named_parameters()]
    for name, (_, gradient) in zip(names, engine.gradients(), strict=True):
        against = (
            right[name.replace("W_key.bias", "W_value.bias")].norm() if "W_key.bias" in name else right[name].norm()
        )
        found[name] = float((gradient.float() - right[name]).norm() / against)
    return found


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize(
    ("changes", "size"),
    [
        ({}, 2),
        ({"tie_weights": True, "init": "gpt2"}, 3),
        ({"qkv_bias": True}, 1),
        ({"tie_weights": True, "init": "gpt2", "qkv_bias": True, "n_layers": 1}, 5),
        ({"n_heads": 1, "n_layers": 3}, 2),
    ],
    ids=["plain", "tied", "qkv-bias", "tied-qkv-bias", "one-head"],
)
def test_losses_and_gradients_are_those_of_the_textbook(dtype: torch.dtype, changes: dict, size: int) -> None:
    here = model(**changes)
    loss, gradients = textbook(here, [batch(size)])
    engine = Engine(here, dtype)

    fast = engine.loss_and_gradients([batch(size)], step=0)

    assert fast == pytest.approx(loss, rel=TOLERANCE[dtype] / 10)
    assert {n: d for n, d in differences(engine, gradients).items() if not d < TOLERANCE[dtype]} == {}
    assert engine.norm() == pytest.approx(math.sqrt(sum(float(g.square().sum()) for g in gradients.values())), rel=2e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("tied", [False, True])
def test_accumulated_batches_of_different_sizes_weigh_by_their_tokens(dtype: torch.dtype, tied: bool) -> None:
    here = model(tie_weights=tied, init="gpt2")
    batches = [batch(3, seed=1), batch(3, seed=2), batch(1, seed=3)]
    loss, gradients = textbook(here, batches)
    engine = Engine(here, dtype)

    assert engine.loss_and_gradients(batches, step=0) == pytest.approx(loss, rel=TOLERANCE[dtype] / 10)
    assert {n: d for n, d in differences(engine, gradients).items() if not d < TOLERANCE[dtype]} == {}


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("shrink", [1.0, 0.3])
def test_three_updates_end_at_the_textbook_weights(tied: bool, shrink: float) -> None:
    slow, quick = model(tie_weights=tied), model(tie_weights=tied)
    optim = OptimConfig(learning_rate=1e-3)
    slow_optimizer, quick_optimizer = make_optimizer(slow, optim), make_optimizer(quick, optim)
    engine = Engine(quick, torch.float32)
    for step in range(3):
        textbook(slow, [batch(2, seed=step)])
        for parameter in slow.parameters():
            parameter.grad.mul_(shrink)  # type: ignore[union-attr]
        slow_optimizer.step()
        engine.loss_and_gradients([batch(2, seed=step)], step)
        engine.update(quick_optimizer, shrink)

    for (name, a), b in zip(slow.named_parameters(), quick.parameters(), strict=True):
        assert float((a - b).detach().norm() / a.detach().norm()) < 1e-4, name
    left, right = slow_optimizer.state_dict()["state"], quick_optimizer.state_dict()["state"]
    assert left.keys() == right.keys()
    for number, facts in left.items():
        assert facts["step"] == right[number]["step"] == 3
        for name in ("exp_avg", "exp_avg_sq"):
            assert float((facts[name] - right[number][name]).norm()) <= 1e-4 * float(facts[name].norm())


def test_bf16_copies_follow_the_weights() -> None:
    here = model()
    engine = Engine(here)
    optimizer = make_optimizer(here, OptimConfig(learning_rate=1e-2))
    engine.loss_and_gradients([batch(2)], step=0)
    engine.update(optimizer)
    after_update = engine.loss(*batch(2))
    assert after_update == Engine(here).loss(*batch(2))

    with torch.no_grad():
        here.out_head.weight.mul_(1.5)
    engine.refresh()
    assert engine.loss(*batch(2)) != after_update
    assert engine.loss(*batch(2)) == Engine(here).loss(*batch(2))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.bfloat16, 1e-3)], ids=["fp32", "bf16"])
def test_evaluation_is_that_of_the_textbook_and_without_dropout(dtype: torch.dtype, tolerance: float) -> None:
    here = model(drop_rate=0.5)
    engine = Engine(here, dtype)
    for size in (1, 2, 3):
        inputs, targets = batch(size)
        with torch.no_grad():
            right = F.cross_entropy(here.eval()(inputs).flatten(0, 1), targets.flatten()).item()
        assert engine.loss(inputs, targets) == pytest.approx(right, rel=tolerance)


def test_after_a_loss_that_is_no_number_there_is_nothing_to_apply() -> None:
    here = model()
    with torch.no_grad():
        here.trf_blocks[0].norm1.scale.fill_(math.nan)
    engine = Engine(here)

    assert math.isnan(engine.loss_and_gradients([batch(2)], step=0))
    with pytest.raises(KeyError):
        list(engine.gradients())


@pytest.mark.parametrize("n_rows", [5, 50])  # the rows that move are the most of them, or a few
def test_an_embedding_is_updated_as_with_a_gradient_of_zeros(n_rows: int) -> None:
    p, m, v = torch.randn(n_rows, 3), torch.randn(n_rows, 3), torch.rand(n_rows, 3)
    m[4:], v[4:] = 0, 0
    m[0, 1:], v[0] = 0, 0  # a row may have one moment, in one place, only
    whole, sparse = [x.clone() for x in (p, m, v)], [x.clone() for x in (p, m, v)]
    moving = adamw.rows_with_moments(m, v)
    assert moving.tolist() == [0, 1, 2, 3]
    for step, ids in enumerate([[3, 1, 3], [4, 1, 1], [0, 4, 3]], start=1):
        rows = adamw.gather_rows(torch.tensor([ids]), torch.arange(9.0).view(1, 3, 3))
        dense = torch.zeros(n_rows, 3).index_copy_(0, rows.index, rows.values)
        numbers = adamw.step_numbers({"betas": (0.9, 0.99), "lr": 0.1, "weight_decay": 0.2, "eps": 1e-8}, step, 1.0)
        adamw.update_in_place(*whole, dense, None, numbers)
        moving = adamw.update_rows(*sparse, rows, moving, numbers)
        assert all(torch.equal(a, b) for a, b in zip(whole, sparse, strict=True))
    assert moving.tolist() == [0, 1, 2, 3, 4]
    untouched = 5 if n_rows > 5 else 2
    assert not torch.equal(whole[0][untouched - 1], p[untouched - 1])  # a row that nobody read still decays


def test_gradients_of_a_token_seen_twice_are_summed() -> None:
    rows = adamw.gather_rows(torch.tensor([[3, 1, 3]]), torch.arange(9.0).view(1, 3, 3))
    assert rows.index.tolist() == [1, 3]
    assert rows.values.tolist() == [[3, 4, 5], [6, 8, 10]]


def test_moments_that_came_with_a_checkpoint_move_too() -> None:
    here = model()
    optimizer, engine = make_optimizer(here, OptimConfig()), Engine(here, torch.float32)
    table, read = here.tok_emb.weight, torch.tensor([[1, 2, 3]])
    engine.loss_and_gradients([(read, read)], 0)
    engine.update(optimizer)
    loaded = copy.deepcopy(optimizer.state_dict())
    for state in loaded["state"].values():
        state["exp_avg"] += 0.01  # as of tokens that this engine never read
    optimizer.load_state_dict(loaded)
    before = optimizer.state[table]["exp_avg"].clone()

    engine.loss_and_gradients([(read, read)], 1)
    engine.update(optimizer)

    assert (optimizer.state[table]["exp_avg"] != before).any(1).all()


def test_dropout_drops_the_right_share_and_scales_the_rest() -> None:
    layers, first = dropout.keys(seed=7, step=3, batch=0, n_layers=2)
    for key in (*layers.flatten(0, 1), first):
        for rate in (0.1, 0.5, 0.9):
            drawn = dropout.multiplier(500, 400, key, rate)
            assert float((drawn == 0).float().mean()) == pytest.approx(rate, abs=0.005)
            assert drawn.unique().tolist() == pytest.approx([0, 1 / (1 - rate)])
            rows, columns = (drawn == 0).float().mean(1), (drawn == 0).float().mean(0)
            assert float((rows - rate).abs().max()) < 0.15
            assert float((columns - rate).abs().max()) < 0.15


def test_masks_differ_between_layers_places_steps_batches_and_seeds_and_repeat_with_all_of_them() -> None:
    def masks(seed: int, step: int, number: int) -> list[Tensor]:
        layers, first = dropout.keys(seed, step, number, n_layers=3)
        return [dropout.multiplier(64, 64, key, 0.5) for key in (*layers.flatten(0, 1), first)]

    every = [mask for place in [(1, 0, 0), (1, 1, 0), (1, 0, 1), (2, 0, 0)] for mask in masks(*place)]
    for i, mask in enumerate(every):
        for other in every[:i]:
            assert 0.4 < float((mask == other).float().mean()) < 0.6  # what two independent masks share
    assert all(torch.equal(a, b) for a, b in zip(masks(1, 0, 0), masks(1, 0, 0), strict=True))


def test_gradients_with_dropout_are_those_of_the_loss_with_the_same_masks() -> None:
    here = model(drop_rate=0.3)
    engine = Engine(here, torch.float32, seed=5)
    engine.loss_and_gradients([batch(2)], step=4)
    gradients = {id(p): g.clone() for p, g in engine.gradients()}

    for parameter in (here.trf_blocks[0].att.W_query.weight, here.trf_blocks[1].ff.layers[0].bias, here.pos_emb.weight):
        gradient = gradients[id(parameter)]
        ahead, size = gradient / gradient.norm(), 0.02
        losses = []
        for sign in (1, -1):
            with torch.no_grad():
                parameter.add_(ahead, alpha=sign * size)
                engine.refresh()
            losses.append(engine.loss_and_gradients([batch(2)], step=4))
            with torch.no_grad():
                parameter.sub_(ahead, alpha=sign * size)
        engine.refresh()
        slope = (losses[0] - losses[1]) / (2 * size)
        assert slope == pytest.approx(float(gradient.norm()), rel=0.02)
    assert engine.loss_and_gradients([batch(2)], step=4) != engine.loss_and_gradients([batch(2)], step=5)


def test_the_compiled_step_is_the_step() -> None:
    slow, quick = model(drop_rate=0.2), model(drop_rate=0.2)
    engines = [Engine(slow, seed=3), Engine(quick, seed=3)]
    engines[1].compile(2, 32)
    optimizers = [make_optimizer(e.model, OptimConfig(learning_rate=1e-3)) for e in engines]
    for step, size in enumerate([2, 2, 1]):  # the last batch is short
        losses, norms, gradients = [], [], []
        for engine, optimizer in zip(engines, optimizers, strict=True):
            losses.append(engine.loss_and_gradients([batch(size, seed=step)], step))
            norms.append(engine.norm())
            gradients.append([g.float().clone() for _, g in engine.gradients()])
            engine.update(optimizer)
        assert losses[1] == pytest.approx(losses[0], rel=1e-3)
        assert norms[1] == pytest.approx(norms[0], rel=1e-3)
        for a, b in zip(*gradients, strict=True):
            assert float((a - b).norm() / a.norm()) < 1e-2
    assert engines[1].loss(*batch(2)) == pytest.approx(engines[0].loss(*batch(2)), rel=1e-3)
    for a, b in zip(slow.parameters(), quick.parameters(), strict=True):
        assert float((a - b).detach().norm() / a.detach().norm()) < 2e-3


def test_nothing_is_compiled_again_after_the_first_step() -> None:
    from gptlab.acceleration import compile_step
    from gptlab.state import TrainState
    from tests.small_models import parts, run_config

    state = TrainState.build(run_config(train={"compile": "on", "precision": "bf16"}), parts())
    assert compile_step(state) is None
    with torch.compiler.set_stance("fail_on_recompile"):
        for batches in state.groups():
            state.optimise(batches, 1e-3)
        state.evaluate()
