"""How long a run will take: added up from timed steps, else guessed by its arithmetic."""

from __future__ import annotations

import pytest
import torch

from gptlab import prediction
from gptlab.config import RunConfig
from gptlab.estimate import estimate
from gptlab.fast import precision
from gptlab.home import cache_folder
from gptlab.prediction import BESIDE_PRODUCTS, predicted_seconds, rough_seconds, settled
from gptlab.step_timing import measure_step_seconds
from tests.small_models import run_config
from tests.test_estimate import VERDICT
from tests.test_step_timing import TIMING, keep


def test_what_was_not_measured_is_not_predicted() -> None:
    assert predicted_seconds(RunConfig(), *VERDICT) is None


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


@pytest.mark.parametrize(
    ("kind", "steps", "compiled"), [("cuda", 90, "off"), ("cuda", 9_000, "on"), ("mps", 9_000, "off")]
)
def test_elsewhere_than_on_a_cpu_only_a_long_run_on_an_nvidia_gpu_is_compiled(
    monkeypatch: pytest.MonkeyPatch, kind: str, steps: int, compiled: str
) -> None:
    monkeypatch.setattr(prediction, "pick_device", lambda _: torch.device(kind))
    config = RunConfig().with_fields(train={"precision": "bf16", "max_steps": steps, "num_epochs": 10_000})
    assert settled(config, VERDICT[0]).train.compile == compiled


def test_a_measured_step_is_kept_and_predicts() -> None:
    config = run_config()
    seconds = measure_step_seconds(config)
    assert 0 < seconds < 60
    predicted = predicted_seconds(config, 81, 33)
    assert predicted is not None
    assert predicted > 10 * seconds
    assert [path.name for path in cache_folder().iterdir()] == ["timings.json"]


def test_a_model_that_was_not_timed_is_guessed_by_its_arithmetic_and_only_for_the_cpu(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(prediction, "_products_per_second", lambda: 1e11)
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
