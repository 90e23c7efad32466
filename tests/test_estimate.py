from __future__ import annotations

from pathlib import Path

import pytest
import torch

from gptlab.checkpoint import save_checkpoint
from gptlab.config import PRESETS, ModelConfig, RunConfig
from gptlab.estimate import estimate, n_parameters
from gptlab.model import GPTModel
from gptlab.state import TrainState
from tests.small_models import parts, run_config

VERDICT = 4_612, 534  # tokens of the two parts of the reference's story


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
