"""The published order of random numbers, held against the exercise's own loop, written down plainly."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError
from torch.utils.data import DataLoader

from gptlab.config import PRESETS, RunConfig
from gptlab.dataset import GPTDataset
from gptlab.events import Ended, Evaluated, Event, Sampled, Stepped
from gptlab.loss import calc_loss_loader
from gptlab.model import GPTModel
from gptlab.parsing import explain_validation_error
from gptlab.state import TrainState
from gptlab.training import train
from tests.small_models import parts, run_config

TRACE = json.loads((Path(__file__).parent / "reference" / "verdict_run_cpu.json").read_text())


@pytest.fixture(autouse=True)
def _one_thread(request: pytest.FixtureRequest) -> Iterator[None]:
    threads = torch.get_num_threads()
    if "verdict" not in request.fixturenames:
        torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def small(**sections: dict[str, object]) -> RunConfig:
    """A run with dropout, 5 batches an epoch, evaluated every second step over fewer batches than there are."""
    plain = run_config(data={"order": "published"}, model={"drop_rate": 0.2}, train={"num_epochs": 3, "eval_iter": 3})
    return plain.with_fields(**sections)


def as_the_exercise_does(config: RunConfig, data: tuple[Any, Any]) -> list[tuple[float, ...]]:
    """Losses of each step and of each evaluation, in the exercise's order: everything from torch's global stream."""
    length, found = config.model.context_length, []
    loaders = [
        DataLoader(
            GPTDataset(part, length),  # type: ignore[arg-type]
            batch_size=config.data.batch_size,
            shuffle=training,
            drop_last=training,
        )
        for part, training in zip(data, (True, False), strict=True)
    ]

    def loss_of(inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(model(inputs).flatten(0, 1), targets.flatten())

    def mean_over(loader: DataLoader) -> float:
        total, most = 0.0, min(config.train.eval_iter, len(loader))
        for place, (inputs, targets) in enumerate(loader):
            if place == most:
                break
            total += loss_of(inputs, targets).item()
        return total / most

    with torch.random.fork_rng():
        torch.manual_seed(config.train.seed)
        model = GPTModel(config.model)
        optimizer = torch.optim.AdamW(model.parameters(), lr=config.optim.learning_rate, weight_decay=0.1)
        step = -1
        for _ in range(config.train.num_epochs):
            model.train()
            for inputs, targets in loaders[0]:
                optimizer.zero_grad()
                loss = loss_of(inputs, targets)
                loss.backward()
                optimizer.step()
                step += 1
                found.append((step, loss.item()))
                if step % config.train.eval_freq == 0:
                    model.eval()
                    with torch.no_grad():
                        found.append((step, mean_over(loaders[0]), mean_over(loaders[1])))
                    model.train()
    return found


def told(events: list[Event]) -> list[tuple[float, ...]]:
    return [
        (event.step, event.loss) if isinstance(event, Stepped) else (event.step, event.train_loss, event.val_loss)
        for event in events
        if isinstance(event, Stepped | Evaluated)
    ]


def test_every_loss_is_bit_for_bit_that_of_the_exercises_loop() -> None:
    config = small()
    ours = told(list(train(config, parts())))
    assert len(ours) == 15 + 8
    assert ours == as_the_exercise_does(config, parts())


def test_the_own_order_gives_other_losses_with_the_same_first_weights() -> None:
    published, own = (told(list(train(small(data={"order": order}), parts()))) for order in ("published", "own"))
    assert published[0] != own[0]
    weights = [TrainState.build(small(data={"order": order}), parts()).model for order in ("published", "own")]
    assert all(torch.equal(a, b) for a, b in zip(*(model.parameters() for model in weights), strict=True))


def test_the_callers_random_numbers_are_left_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    list(train(small(), parts()))
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("stopped_after", [1, 3, 5, 8, 13])
def test_a_stopped_and_resumed_run_gives_the_losses_of_an_unbroken_one(tmp_path: Path, stopped_after: int) -> None:
    asked = iter(range(100))
    first = list(
        train(small(), parts(), checkpoints=tmp_path, requests=lambda: "stop" if next(asked) == stopped_after else None)
    )
    assert [event.reason for event in first if isinstance(event, Ended)] == ["stopped"]
    second = list(train(small(), parts(), checkpoints=tmp_path, resume_from=tmp_path))
    assert told(first) + told(second) == told(list(train(small(), parts())))


def test_samples_change_nothing() -> None:
    few, many = (list(train(small(train={"sample_tokens": n}), parts())) for n in (1, 6))
    assert told(few) == told(many)
    assert [event for event in many if isinstance(event, Sampled)]


def test_an_unshuffled_part_is_read_in_the_order_of_the_text() -> None:
    state = TrainState.build(small(data={"shuffle": False}), parts())
    starts = [int(start) for batch, _ in state.train_loader for start in batch[:, 0]]
    assert starts == [int(parts()[0][8 * window]) for window in range(10)]


def test_without_a_validation_window_its_loss_is_no_number() -> None:
    first = parts()[0]
    losses = [event.val_loss for event in train(small(), (first, first[:3])) if isinstance(event, Evaluated)]
    assert losses
    assert all(loss != loss for loss in losses)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"train": {"precision": "bf16"}}, "use fp32"),
        ({"train": {"compile": "on"}}, "switch it off"),
        ({"data": {"num_workers": 2}}, "set it to 0"),
    ],
)
def test_what_would_not_be_the_exercises_order_is_refused_with_the_remedy(
    changes: dict[str, dict[str, object]], told: str
) -> None:
    with pytest.raises(ValidationError) as fault:
        small(**changes)
    assert told in explain_validation_error(fault.value)


def test_the_exercise_on_a_cpu_begins_with_the_published_figures(verdict: str) -> None:
    """The losses before training and the first evaluation of the real model: some twenty seconds."""
    config = PRESETS["gpt2-124m"].with_fields(
        data={"order": "published"}, train={"device": "cpu", "max_steps": 1, "sample_tokens": 1}
    )
    state = TrainState.build(config, verdict)
    initial = [calc_loss_loader(loader, state.model.eval(), "cpu") for loader in (state.train_loader, state.val_loader)]
    state.model.train()
    expected = TRACE["initial_loss"]
    assert initial == pytest.approx([expected["train"], expected["val"]], rel=1e-5)
    (first,) = [event for event in train(config, state=state) if isinstance(event, Evaluated)]
    expected = TRACE["evaluations"][0]
    assert replace(first, time=0.0) == Evaluated(
        step=0,
        time=0.0,
        epoch=1,
        tokens_seen=512,
        train_loss=pytest.approx(expected["train_loss"], rel=1e-5),  # type: ignore[arg-type]
        val_loss=pytest.approx(expected["val_loss"], rel=1e-5),  # type: ignore[arg-type]
    )
