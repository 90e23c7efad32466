from __future__ import annotations

import json
import subprocess
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from gptlab import estimate as module
from gptlab.checkpoint import save_checkpoint
from gptlab.config import PRESETS, ModelConfig, RunConfig
from gptlab.estimate import (
    BESIDE_PRODUCTS,
    Timing,
    cached_timing,
    estimate,
    measure_step_seconds,
    n_parameters,
    predicted_seconds,
    rough_seconds,
    settled,
)
from gptlab.fast import precision
from gptlab.home import cache_folder
from gptlab.model import GPTModel
from gptlab.state import TrainState
from tests.small_models import parts, run_config

VERDICT = 4_612, 534  # tokens of the two parts of the reference's story
TIMING = Timing(batch=2.0, optimizer=0.5, evaluation=1.0, token=0.01, start=3.0, save_per_byte=1e-9)


@pytest.mark.parametrize(
    "config",
    [
        *(preset.model for preset in PRESETS.values()),
        ModelConfig(tie_weights=True),
        ModelConfig(qkv_bias=True, emb_dim=60, n_heads=5, n_layers=3, vocab_size=77, context_length=9),
    ],
)
def test_the_parameters_are_those_of_the_model(config: ModelConfig) -> None:
    with torch.device("meta"):
        assert n_parameters(config) == GPTModel(config).n_parameters


@pytest.mark.parametrize("shape", [{}, {"tie_weights": True, "qkv_bias": True, "n_layers": 4}, {"vocab_size": 5000}])
def test_a_checkpoint_takes_the_bytes_that_were_told(tmp_path: Path, shape: dict[str, object]) -> None:
    config = run_config(model={"emb_dim": 64, "vocab_size": 2000, **shape})
    state = TrainState.build(config, parts())
    state.optimise([next(iter(state.train_loader))], 1e-3)
    place = save_checkpoint(tmp_path, state.model, 1, state.resume_facts())
    expected = estimate(config, 1000, 1000)
    assert (place / "weights.safetensors").stat().st_size == pytest.approx(expected.checkpoint_bytes, rel=0.01)
    assert (place / "resume.pt").stat().st_size == pytest.approx(expected.resume_bytes, rel=0.01)


def test_the_reference_run_takes_what_was_measured() -> None:
    expected = estimate(RunConfig(), *VERDICT)
    assert (expected.steps_per_epoch, expected.total_steps) == (9, 90)
    assert expected.n_parameters == 162_419_712
    assert expected.checkpoint_bytes == pytest.approx(0.65e9, rel=0.01)
    assert expected.checkpoint_bytes + expected.resume_bytes == pytest.approx(1.95e9, rel=0.01)
    assert expected.flops_per_step == pytest.approx(379e9 + 14.5e9, rel=0.002)  # weights, and attention scores
    assert expected.memory_bytes == pytest.approx(4.3e9, rel=0.1)


def disk(**train: object) -> int:
    expected = estimate(RunConfig().with_fields(train=train), *VERDICT)
    return round((expected.disk_bytes - 2 * expected.resume_bytes) / expected.checkpoint_bytes)


def test_disk_counts_the_epochs_kept_the_best_and_the_two_newest_for_a_moment() -> None:
    assert disk() == 11
    assert disk(num_epochs=3) == 4
    assert disk(keep_checkpoints=2) == 4  # two, the one being written, the best
    assert disk(keep_checkpoints=0) == 3
    assert disk(max_steps=10) == 3  # two epochs are begun


def test_without_validation_there_is_no_best_on_disk() -> None:
    with_best, without = (estimate(RunConfig(), 4612, n) for n in (534, 10))
    assert with_best.disk_bytes - without.disk_bytes == with_best.checkpoint_bytes


@pytest.mark.parametrize(
    ("sections", "steps"),
    [
        ({"optim": {"grad_accumulation": 2}}, 5 * 10),
        ({"data": {"batch_size": 4}}, 4 * 10),
        ({"data": {"batch_size": 4, "drop_last": False}}, 5 * 10),
        ({"train": {"max_steps": 7}}, 7),
        ({"data": {"stride": 128}}, 17 * 10),
    ],
)
def test_the_steps_are_those_of_the_training(sections: dict[str, dict[str, object]], steps: int) -> None:
    config = RunConfig().with_fields(**sections)
    assert estimate(config, *VERDICT).total_steps == steps
    ids = torch.zeros(VERDICT[0], dtype=torch.long), torch.zeros(VERDICT[1], dtype=torch.long)
    small = config.with_fields(model={"emb_dim": 2, "n_heads": 1, "n_layers": 1, "vocab_size": 2})
    assert TrainState.build(small, ids).total_steps == steps


def test_larger_settings_take_more_memory() -> None:
    plain = estimate(RunConfig(), *VERDICT).memory_bytes
    for section, changes in (
        ("data", {"batch_size": 4}),
        ("model", {"context_length": 512}),
        ("model", {"emb_dim": 1536}),
        ("model", {"n_layers": 13}),
    ):
        assert estimate(RunConfig().with_fields(**{section: changes}), *VERDICT).memory_bytes > plain


def test_what_was_not_measured_is_not_predicted() -> None:
    assert predicted_seconds(RunConfig(), *VERDICT) is None


def keep(config: RunConfig, timing: Timing) -> None:
    file = cache_folder() / "timings.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({module._key(config): asdict(timing)}))


def test_the_prediction_adds_up_what_a_run_does() -> None:
    config = RunConfig().with_fields(train={"compile": "off"})
    keep(config, TIMING)
    expected = estimate(config, *VERDICT)
    saved = 10 * (expected.checkpoint_bytes + expected.resume_bytes) + 9 * expected.checkpoint_bytes
    by_hand = 3.0 + 90 * 2.5 + 18 * (5 + 1) * 1.0 + 11 * 50 * 0.01 + saved * 1e-9
    assert predicted_seconds(config, *VERDICT) == pytest.approx(by_hand)
    accumulated = config.with_fields(optim={"grad_accumulation": 3}, train={"eval_freq": 10**6, "num_epochs": 1})
    longer = predicted_seconds(accumulated, *VERDICT)
    assert longer == pytest.approx(3 + 3 * 6.5 + 6 + 1 + 2.274e9 * 1e-9, rel=0.01)


@pytest.mark.parametrize("native", [True, False])
def test_what_is_automatic_is_timed_as_what_it_comes_to(monkeypatch: pytest.MonkeyPatch, native: bool) -> None:
    monkeypatch.setattr(precision, "multiplies_bf16", lambda: native)
    long = RunConfig().with_fields(train={"precision": "bf16"})
    short = long.with_fields(train={"max_steps": 2})
    plain = RunConfig().with_fields(data={"order": "published"})
    assert [settled(config, VERDICT[0]).train.compile for config in (long, short, plain)] == ["on", "off", "off"]
    automatic = settled(RunConfig(), VERDICT[0]).train
    assert (automatic.precision, automatic.compile) == (("bf16", "on") if native else ("fp32", "off"))
    assert settled(plain, VERDICT[0]).train.precision == "fp32"
    elsewhere = RunConfig().with_fields(train={"device": "cuda:7"})
    assert settled(elsewhere, VERDICT[0]) == elsewhere
    assert settled(settled(long, VERDICT[0]), 10**6) == settled(long, VERDICT[0])
    keep(long.with_fields(train={"compile": "on"}), TIMING)
    assert predicted_seconds(long, *VERDICT) is not None
    assert predicted_seconds(short, *VERDICT) is None


def test_a_timing_holds_for_what_it_depends_on_and_nothing_else() -> None:
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


def test_a_measured_step_is_kept_and_predicts() -> None:
    config = run_config()
    seconds = measure_step_seconds(config)
    assert 0 < seconds < 60
    predicted = predicted_seconds(config, 81, 33)
    assert predicted is not None
    assert predicted > 10 * seconds
    assert [path.name for path in cache_folder().iterdir()] == ["timings.json"]


def test_a_model_larger_than_the_memory_is_not_even_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_free_memory", lambda: 10**9)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("started a process"))
    with pytest.raises(ValueError, match=r"needs about 4\.\d GB of memory, and 1\.0 GB are free: lower batch_size"):
        measure_step_seconds(RunConfig())


def test_a_step_that_cannot_be_timed_says_why() -> None:
    with pytest.raises(ValueError, match=r"could not be timed: There is no device 'cuda:77'"):
        measure_step_seconds(run_config(train={"device": "cuda:77"}))


def test_a_step_that_takes_too_long_is_given_up() -> None:
    with pytest.raises(ValueError, match=r"more than 0\.01 seconds"):
        measure_step_seconds(run_config(), timeout=0.01)


def test_a_model_that_was_not_timed_is_guessed_by_its_arithmetic_and_only_for_the_cpu(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_products_per_second", lambda: 1e11)
    monkeypatch.setattr(precision, "multiplies_bf16", lambda: False)
    config = RunConfig().with_fields(train={"device": "cpu"})
    expected = estimate(config, 4_612, 534)
    whole = rough_seconds(config, 4_612, 534)
    assert whole is not None
    # 90 steps, and 18 evaluations of 5 + 1 batches, each a third of a step
    assert whole == pytest.approx(BESIDE_PRODUCTS * (90 + 18 * 6 / 3) * expected.flops_per_step / 1e11)
    assert rough_seconds(config.with_fields(train={"num_epochs": 20}), 4_612, 534) == pytest.approx(2 * whole)
    assert rough_seconds(config.with_fields(train={"device": "cuda"}), 4_612, 534) is None
    slow = rough_seconds(config.with_fields(train={"precision": "bf16"}), 4_612, 534)
    monkeypatch.setattr(precision, "multiplies_bf16", lambda: True)
    assert slow == whole == pytest.approx(4 * (rough_seconds(config, 4_612, 534) or 0))  # bf16, and compiled
    few = config.with_fields(train={"num_epochs": 1, "max_steps": 1})
    fp32 = rough_seconds(few.with_fields(train={"precision": "fp32"}), 4_612, 534)
    assert fp32 == pytest.approx(1.5 * (rough_seconds(few, 4_612, 534) or 0))  # bf16, too short to compile
