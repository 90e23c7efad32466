"""Parity: the figures of an independent implementation, and the counts of the published exercise.

The figures were made in fp32 on one processor. Another one adds up in another order, and training multiplies such a
difference until, after some 40 steps, it reaches the fourth digit: the independent implementation itself then gives
other digits (docs/measurements.md). So the figures are held where rounding cannot reach them, and wherever it does not;
and everywhere the straightforward way of ``bench/plain.py``, run here, is held to the last digits.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from bench import plain
from gptlab.config import ModelConfig, RunConfig, SamplingConfig
from gptlab.dataset import create_dataloader, split_text
from gptlab.estimate import estimate
from gptlab.events import Stepped
from gptlab.interop import load_reference_state_dict, to_reference_state_dict
from gptlab.loss import calc_loss_loader
from gptlab.model import GPTModel
from gptlab.sampling import generate
from gptlab.state import TrainState
from gptlab.tokenizer import get_tokenizer, text_to_token_ids
from gptlab.training import train
from tests.small_models import straightforward_twin

FIGURES = json.loads((Path(__file__).parent / "reference" / "small_reference.json").read_text())
RUN = json.loads((Path(__file__).parent / "reference" / "verdict_run_cpu.json").read_text())
PROMPT = "Every effort moves you"


def close(expected: object) -> object:
    return pytest.approx(expected, rel=1e-4)


def fill_by_formula(model: GPTModel) -> None:
    """The weights that the figures were made with, under the reference names."""
    state = {}
    for name, place in to_reference_state_dict(model).items():
        i = torch.arange(place.numel(), dtype=torch.float64)
        value = 0.05 * torch.sin(0.7311 * i + (zlib.crc32(name.encode()) % 1000)) + name.endswith(".scale")
        state[name] = value.reshape(place.shape).float()
    load_reference_state_dict(model, state)


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """As the figures were made."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def config() -> RunConfig:
    """The small model's training: 3 epochs of 18 batches in order, no dropout."""
    plain = {"device": "cpu", "precision": "fp32", "compile": "off"}
    return RunConfig.model_validate(
        {
            "model": FIGURES["config"],
            "data": {"batch_size": FIGURES["batch_size"], "shuffle": False},
            "optim": {"learning_rate": 1e-3},
            "train": {"num_epochs": 3, "eval_freq": 1000, "sample_tokens": 1, **plain},
        }
    )


@pytest.fixture(scope="module")
def untrained(verdict: str, config: RunConfig) -> TrainState:
    state = TrainState.build(config, verdict)
    fill_by_formula(state.model)
    return state


@pytest.fixture(scope="module")
def trained(verdict: str, config: RunConfig) -> tuple[TrainState, list[Stepped]]:
    """The state after three epochs by the product's own loop, and its steps."""
    state = TrainState.build(config, verdict)
    fill_by_formula(state.model)
    return state, [event for event in train(config, state=state) if isinstance(event, Stepped)]


@dataclass(frozen=True)
class Straightforward:
    """The same training by the exercise's own way, on this processor."""

    losses: list[float]
    norms: list[float]
    model: plain.PlainGPT

    @property
    def rounds_as_the_figures(self) -> bool:
        return self.losses == close(FIGURES["training"]["loss"])


@pytest.fixture(scope="module")
def here(verdict: str, config: RunConfig) -> Straightforward:
    state = TrainState.build(config, verdict)
    fill_by_formula(state.model)
    model = straightforward_twin(state.model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.1)
    losses, norms = [], []
    for inputs, targets in list(state.train_loader) * 3:
        optimizer.zero_grad()
        loss = plain.loss_of(model, inputs, targets)
        loss.backward()
        lengths = [p.grad.norm() for p in model.parameters() if p.grad is not None]
        norms.append(torch.linalg.vector_norm(torch.stack(lengths)).item())
        optimizer.step()
        losses.append(loss.item())
    return Straightforward(losses, norms, model)


def test_the_story_has_the_published_size(verdict: str) -> None:
    assert len(verdict) == len(verdict.encode()) == 20_479
    ids = text_to_token_ids(verdict)
    assert ids.shape == (1, FIGURES["tokens"]["all"]) == (1, 5_145)
    assert ids[0, :20].tolist() == FIGURES["first_20_ids"]
    first, second = split_text(verdict, 0.9)
    assert text_to_token_ids(first).shape[1] == FIGURES["tokens"]["train"]
    assert text_to_token_ids(second).shape[1] == FIGURES["tokens"]["val"]


def test_the_default_run_has_the_published_batches_and_steps(verdict: str) -> None:
    first, second = split_text(verdict, 0.9)
    training = create_dataloader(first, batch_size=2, context_length=256)
    validation = create_dataloader(second, batch_size=2, context_length=256, shuffle=False, drop_last=False)
    assert [(list(x.shape), list(y.shape)) for x, y in training] == [([2, 256], [2, 256])] * 9
    assert [(list(x.shape), list(y.shape)) for x, y in validation] == [([2, 256], [2, 256])]
    expected = estimate(RunConfig(), FIGURES["tokens"]["train"], FIGURES["tokens"]["val"])
    assert (expected.steps_per_epoch, expected.total_steps) == (9, 90)
    evaluated = range(0, expected.total_steps, RunConfig().train.eval_freq)
    assert list(evaluated) == [row["step"] for row in RUN["evaluations"]]


def test_the_models_have_the_published_numbers_of_parameters() -> None:
    with torch.device("meta"):
        assert GPTModel(ModelConfig()).n_parameters == 162_419_712
        assert GPTModel(ModelConfig(tie_weights=True)).n_parameters == 123_822_336
        small = GPTModel(ModelConfig(**FIGURES["config"]))
    assert small.n_parameters == FIGURES["n_parameters"]
    assert list(to_reference_state_dict(small)) == FIGURES["parameters"]


def test_logits_equal_the_reference(untrained: TrainState) -> None:
    expected = FIGURES["logits_first_batch"]
    inputs, _ = next(iter(untrained.train_loader))
    with torch.no_grad():
        logits = untrained.model(inputs)
    assert list(logits.shape) == [4, 64, 50257]
    assert logits.double().sum().item() == close(expected["sum"])
    assert logits.double().abs().mean().item() == close(expected["abs_mean"])
    assert logits[0, -1, :8].tolist() == close(expected["row0_last_position_first8"])
    # Every logit is a sum of sines: the largest ones are equal to the fifth digit, and which is first is rounding's.
    theirs = logits[0, range(16), expected["argmax_row0_first16"]]
    assert theirs.tolist() == close(logits[0, :16].amax(-1).tolist())


def test_the_loss_of_each_training_batch_equals_the_reference(untrained: TrainState) -> None:
    assert len(untrained.train_loader) == FIGURES["n_train_batches"]
    losses = [calc_loss_loader([batch], untrained.model, "cpu") for batch in untrained.train_loader]
    assert losses == close(FIGURES["loss_each_train_batch"])


def test_54_training_losses_and_gradient_norms_equal_the_reference(
    trained: tuple[TrainState, list[Stepped]], here: Straightforward
) -> None:
    losses, norms = [event.loss for event in trained[1]], [event.grad_norm for event in trained[1]]
    assert len(losses) == 54
    assert losses == pytest.approx(here.losses, rel=1e-6)
    assert norms == pytest.approx(here.norms, rel=1e-5)
    expected = FIGURES["training"]
    assert losses[:36] == close(expected["loss"][:36])
    assert losses == pytest.approx(expected["loss"], rel=1e-3)
    assert norms[:10] == close(expected["grad_norm"][:10])
    assert norms[:16] == pytest.approx(expected["grad_norm"][:16], rel=5e-4)
    assert norms[:36] == pytest.approx(expected["grad_norm"][:36], rel=5e-3)
    if here.rounds_as_the_figures:
        assert norms == close(expected["grad_norm"])


def test_the_trained_model_has_the_references_losses(
    trained: tuple[TrainState, list[Stepped]], here: Straightforward
) -> None:
    state = trained[0]
    windows = [state.val_loader.dataset[i] for i in range(len(state.val_loader.dataset))]  # type: ignore[arg-type]
    validation = tuple(torch.stack(rows) for rows in zip(*windows, strict=True))
    first = next(iter(state.train_loader))
    for batch, figure in ((first, "loss_after_first_batch"), (validation, "val_loss_after")):
        loss = calc_loss_loader([batch], state.model, "cpu")
        assert loss == pytest.approx(plain.mean_loss(here.model, [batch], 1), rel=1e-6)
        assert loss == pytest.approx(FIGURES[figure], rel=1e-4 if here.rounds_as_the_figures else 1e-3)


def test_the_trained_model_writes_what_the_reference_writes(
    trained: tuple[TrainState, list[Stepped]], here: Straightforward
) -> None:
    prompt = get_tokenizer().encode(PROMPT)
    assert prompt == FIGURES["prompt_ids"]
    new = list(generate(trained[0].model, prompt, SamplingConfig(max_new_tokens=50)))
    assert prompt + new == plain.greedy(here.model, torch.tensor([prompt]), 50)[0].tolist()
    if here.rounds_as_the_figures:
        assert prompt + new == FIGURES["greedy_after_training_50"]


def test_a_seed_gives_the_references_weights() -> None:
    """The published 124M model itself is checked by hand; here the same draws in a small shape, layer by layer."""
    shape = ModelConfig(vocab_size=50, context_length=6, emb_dim=8, n_heads=2, n_layers=2)
    torch.manual_seed(123)
    ours = to_reference_state_dict(GPTModel(shape))
    torch.manual_seed(123)
    drawn = {"tok_emb.weight": torch.nn.Embedding(50, 8).weight, "pos_emb.weight": torch.nn.Embedding(6, 8).weight}
    for block in range(2):
        for name in ("W_query", "W_key", "W_value"):
            drawn[f"trf_blocks.{block}.att.{name}.weight"] = torch.nn.Linear(8, 8, bias=False).weight
        for name, layer in (("att.out_proj", (8, 8)), ("ff.layers.0", (8, 32)), ("ff.layers.2", (32, 8))):
            linear = torch.nn.Linear(*layer)
            drawn |= {f"trf_blocks.{block}.{name}.{part}": getattr(linear, part) for part in ("weight", "bias")}
    drawn["out_head.weight"] = torch.nn.Linear(8, 50, bias=False).weight
    assert all(torch.equal(ours[name], value) for name, value in drawn.items())
    assert {name.rsplit(".", 1)[1] for name in ours.keys() - drawn.keys()} == {"scale", "shift"}
