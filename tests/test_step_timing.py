"""Steps are timed in a process of their own, and what was found is remembered for just what it holds for."""

from __future__ import annotations

import json
import subprocess
import time
from contextlib import nullcontext
from dataclasses import asdict

import pytest
import torch

from gptlab import step_timing
from gptlab.config import RunConfig
from gptlab.fast import precision
from gptlab.home import cache_folder
from gptlab.state import TrainState
from gptlab.step_timing import Timing, cached_timing, measure_step_seconds
from tests.small_models import run_config

TIMING = Timing(batch=2.0, optimizer=0.5, evaluation=1.0, token=0.01, start=3.0, save_per_byte=1e-9)


def keep(config: RunConfig, timing: Timing) -> None:
    file = cache_folder() / "timings.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({step_timing._key(config): asdict(timing)}))


def test_a_timing_holds_for_what_it_depends_on_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "multiplies_bf16", lambda: False)
    keep(RunConfig(), TIMING)
    for section, changes in (
        ("train", {"seed": 5, "num_epochs": 3}),
        ("optim", {"learning_rate": 1e-3}),
        ("data", {"corpus": "x"}),
    ):
        assert cached_timing(RunConfig().with_fields(**{section: changes})) == TIMING
    for section, changes in (
        ("model", {"n_layers": 3}),
        ("data", {"batch_size": 3}),
        ("train", {"precision": "bf16"}),
        ("train", {"device": "cpu"}),
    ):
        assert cached_timing(RunConfig().with_fields(**{section: changes})) is None


@pytest.mark.parametrize("text", ["", "[1]", '{"x": {"batch": 1}}', '{"x": 3}'])
def test_a_damaged_cache_counts_as_empty(text: str) -> None:
    keep(RunConfig(), TIMING)
    (cache_folder() / "timings.json").write_text(text)
    assert cached_timing(RunConfig()) is None


def test_a_model_larger_than_the_memory_is_not_even_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step_timing, "free_memory", lambda: 10**9)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("started a process"))
    with pytest.raises(ValueError, match=r"needs about 4\.\d GB of memory, and 1\.0 GB are free: lower batch_size"):
        measure_step_seconds(RunConfig())


def test_a_step_that_cannot_be_timed_says_why() -> None:
    with pytest.raises(ValueError, match=r"could not be timed: There is no device 'cuda:77'"):
        measure_step_seconds(run_config(train={"device": "cuda:77"}))


def test_evaluations_are_timed_the_way_they_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []

    def quick(*_: object) -> float:
        asked.append(torch.is_grad_enabled())
        return 1.0

    monkeypatch.setattr(TrainState, "evaluation_loss", lambda _: nullcontext(quick))
    assert step_timing._time_steps(run_config(), time.time()).evaluation > 0
    assert asked
    assert not any(asked)


def test_a_step_that_takes_too_long_is_given_up() -> None:
    with pytest.raises(ValueError, match=r"more than 0\.01 seconds"):
        measure_step_seconds(run_config(), timeout=0.01)
