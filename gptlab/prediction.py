"""How long a run will take: by the timing of its steps, or roughly by its arithmetic."""

from __future__ import annotations

import math
import sys
import time
from functools import cache
from pathlib import Path

from gptlab.config import RunConfig
from gptlab.dataset import n_batches, window_starts
from gptlab.device import available_cores, multiplies_bf16, pick_device
from gptlab.estimate import PASSES, count_steps, estimate, flops_per_batch
from gptlab.fast.compiling import automatic
from gptlab.step_timing import automatic_precision, cached_timing, step_seconds

BESIDE_PRODUCTS = 1.6  # a whole run against its matrix products alone, fp32, not compiled (measured: 1.3 to 2)
BF16_GAIN = {"on": 4.0, "off": 1.5}  # how many times as fast bf16 is, compiled or not (measured: 4 to 5.6, 1.3 to 3)


def settled(config: RunConfig, n_train_tokens: int) -> RunConfig:
    """``config`` with precision and ``compile`` as they will be where they are automatic: what steps are timed with."""
    precision, compiled = automatic_precision(config), config.train.compile
    if precision is None:
        return config  # nothing trains there
    if compiled == "auto":
        kind, total_steps = pick_device(config.train.device).type, count_steps(config, n_train_tokens)[1]
        compiled = "on" if automatic(config, total_steps, precision, kind, available_cores()) else "off"
    return config.with_fields(train={"precision": precision, "compile": compiled})


def predicted_seconds(config: RunConfig, n_train_tokens: int, n_val_tokens: int) -> float | None:
    """Seconds that the run will take: steps, evaluations, samples and saving. None: not measured here yet."""
    config = settled(config, n_train_tokens)
    timing = cached_timing(config)
    if timing is None:
        return None
    expected = estimate(config, n_train_tokens, n_val_tokens)
    train = config.train
    epochs = math.ceil(expected.total_steps / max(1, expected.steps_per_epoch))
    evaluations = math.ceil(expected.total_steps / train.eval_freq)
    evaluated = _evaluated_batches(config, n_train_tokens, n_val_tokens)
    saved = epochs * (expected.checkpoint_bytes + expected.resume_bytes) + evaluations * expected.checkpoint_bytes / 2
    return (
        timing.start
        + expected.total_steps * step_seconds(timing, config)
        + evaluations * evaluated * timing.evaluation
        + (epochs + 1) * len(train.prompts) * train.sample_tokens * timing.token
        + saved * timing.save_per_byte
    )


def _evaluated_batches(config: RunConfig, n_train_tokens: int, n_val_tokens: int) -> int:
    """Batches that one evaluation reads, of both parts together."""
    length, stride, data = config.model.context_length, config.stride, config.data
    return sum(
        min(config.train.eval_iter, n_batches(len(window_starts(n, length, stride)), data.batch_size, False))
        for n in (n_train_tokens, n_val_tokens)
    )


def rough_seconds(config: RunConfig, n_train_tokens: int, n_val_tokens: int) -> float | None:
    """Seconds that the run will take on this CPU by the speed of a matrix product: right within a factor of two or so.

    For models whose steps have not been timed. None where it would train on something else than the CPU.
    """
    device = config.train.device
    if device != "cpu" and (device != "auto" or sys.platform != "linux" or Path("/dev/nvidia0").exists()):
        return None
    expected = estimate(config, n_train_tokens, n_val_tokens)
    train = settled(config, n_train_tokens).train
    gain = BF16_GAIN[train.compile] if train.precision == "bf16" and multiplies_bf16(pick_device("cpu")) else 1.0
    evaluations = math.ceil(expected.total_steps / config.train.eval_freq)
    forward = flops_per_batch(config) / PASSES
    training = expected.total_steps * expected.flops_per_step
    evaluating = evaluations * _evaluated_batches(config, n_train_tokens, n_val_tokens) * forward
    return BESIDE_PRODUCTS * (training + evaluating) / gain / _products_per_second()


@cache
def _products_per_second() -> float:
    """fp32 multiplications and additions a second in a product of the size that GPT-2's layers have."""
    import numpy as np

    a, b = np.ones((512, 768), np.float32), np.ones((768, 3072), np.float32)
    best = math.inf
    for _ in range(4):
        began = time.perf_counter()
        a @ b
        best = min(best, time.perf_counter() - began)
    return 2 * 512 * 768 * 3072 / best
