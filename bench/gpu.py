"""Training on a GPU: 124M weights, context 1,024, bf16, the best batch, beside Hugging Face and the GPU's own rate."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence

import torch

from bench import plain
from bench.contestants import HuggingFace, model_config
from bench.report import Row
from bench.timing import Times, interleaved, ratio
from gptlab.acceleration import compile_step, record_step
from gptlab.config import RunConfig
from gptlab.estimate import flops_per_batch
from gptlab.state import TrainState

SHAPE = plain.Shape(context_length=1024)
SIZES = (8, 16, 32, 64)
PRODUCT = 8192  # rows, columns and sums of the product that the GPU's own rate is taken from
STEPS = 5  # between two looks at the clock

Step = Callable[[], object]


def training_on_gpu(
    short: bool, device: str = "cuda", shape: plain.Shape = SHAPE, sizes: Sequence[int] = SIZES, product: int = PRODUCT
) -> list[Row]:
    """The step's share of the rate of bf16 products, and how many times as fast it is as Hugging Face's."""
    rounds = 3 if short else 8
    speeds = {size: size / _tried(shape, size, device) for size in sizes}
    best = max(speeds, key=lambda size: speeds[size])
    a, b = (torch.randn(product, product, device=device, dtype=torch.bfloat16) for _ in range(2))
    other = HuggingFace(shape, best, device)
    contestants = {"ours": ours(shape, best, device), "other": other.step, "products": lambda: torch.mm(a, b)}
    times = interleaved({name: _waited(step, device) for name, step in contestants.items()}, rounds, warm_up=2)
    rate = 2 * product**3 * STEPS / times["products"].median
    reached = flops_per_batch(configuration(shape, best, device)) * STEPS / times["ours"].median
    task, a_step = (
        f"training step on a GPU, context {shape.context_length:,}, batch {best}, bf16",
        _a_step(times["ours"]),
    )
    share = Row(f"{task}, of the matrix rate", reached / rate, 0.45, a_step, f"{rate / 1e12:.3g} TFLOP/s", unit="of it")
    against = f"Hugging Face compiled, autocast, fused AdamW: {_a_step(times['other'])}"
    return [share, Row(task, ratio(times["other"], times["ours"]), 1.5, a_step, against)]


def configuration(shape: plain.Shape, size: int, device: str) -> RunConfig:
    train = {"device": device, "precision": "bf16", "compile": "on"}
    return RunConfig(model=model_config(shape)).with_fields(data={"batch_size": size}, train=train)


def ours(shape: plain.Shape, size: int, device: str) -> Step:
    """A step as training makes it: compiled, not read back."""
    config = configuration(shape, size, device)
    n_tokens = size * shape.context_length + 1
    ids = torch.randint(shape.vocab_size, (n_tokens,), generator=torch.Generator().manual_seed(1))
    state = TrainState.build(config, (ids, ids))
    if reason := compile_step(state) or record_step(state):
        raise RuntimeError(reason)
    (batches,) = state.groups()
    return lambda: state.optimise_unread(batches, 4e-4)


def _waited(step: Step, device: str) -> Step:
    def steps() -> None:
        for _ in range(STEPS):
            step()
        if device == "cuda":
            torch.cuda.synchronize()

    return steps


def _tried(shape: plain.Shape, size: int, device: str) -> float:
    """Seconds of some steps; infinite where the batch does not fit."""
    try:
        return interleaved({"": _waited(ours(shape, size, device), device)}, 1)[""].median
    except torch.OutOfMemoryError:
        return float("inf")
    finally:
        gc.collect()
        torch._dynamo.reset()
        torch.cuda.empty_cache()


def _a_step(times: Times) -> str:
    return str(Times(tuple(seconds / STEPS for seconds in times.seconds)))
