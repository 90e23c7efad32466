"""What a run will take, before it starts: parameters, memory, disk, arithmetic, time.

The arithmetic needs no torch. Time is not guessed: ``measure_step_seconds`` makes a few real steps in a process of its
own (``python -m gptlab.estimate``, a configuration as JSON on stdin) and keeps what it finds in the cache.
"""

from __future__ import annotations

import hashlib
import json
import math
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path

from gptlab.config import ModelConfig, RunConfig
from gptlab.dataset import n_batches, window_starts
from gptlab.device import available_cores, describe_machine, multiplies_bf16, pick_device, precision_for
from gptlab.fast.compiling import pays
from gptlab.home import cache_folder, write_atomically
from gptlab.launcher import worker_environment

FLOAT = 4  # bytes of an fp32 number
PROCESS_BYTES = 300_000_000  # Python, PyTorch and the tokenizer before there is a model (measured)
BESIDE_PRODUCTS = 1.6  # a whole run against its matrix products alone, fp32, not compiled (measured: 1.3 to 2)
BF16_GAIN = {"on": 4.0, "off": 1.5}  # how many times as fast bf16 is, compiled or not (measured: 4 to 5.6, 1.3 to 3)
PASSES = 3  # a backward pass costs twice a forward pass


@dataclass(frozen=True)
class Estimate:
    """Sizes in bytes. ``memory_bytes`` and ``disk_bytes`` are peaks.

    Each checkpoint takes ``checkpoint_bytes``, the newest ``resume_bytes`` more.
    """

    n_parameters: int
    steps_per_epoch: int
    total_steps: int
    memory_bytes: int
    checkpoint_bytes: int
    resume_bytes: int
    disk_bytes: int
    flops_per_step: int


@dataclass(frozen=True)
class Timing:
    """Seconds that the parts of a run take on this machine, as measured."""

    batch: float  # forward and backward of one batch
    optimizer: float  # one update of all weights
    evaluation: float  # forward of one batch, no gradients
    token: float  # one token of a sample
    start: float  # from the start of the process to the first step
    save_per_byte: float


def n_parameters(model: ModelConfig) -> int:
    """Trainable numbers of a model: what ``GPTModel(model).n_parameters`` counts."""
    C, V = model.emb_dim, model.vocab_size
    attention = 3 * C * C + 3 * C * model.qkv_bias + C * C + C
    feed_forward = 4 * C * C + 4 * C + 4 * C * C + C
    norms = 4 * C
    head = 0 if model.tie_weights else V * C
    return V * C + model.context_length * C + model.n_layers * (attention + feed_forward + norms) + 2 * C + head


def estimate(config: RunConfig, n_train_tokens: int, n_val_tokens: int) -> Estimate:
    """What ``config`` takes on a text of that many training and validation tokens."""
    steps_per_epoch, total_steps = _steps(config, n_train_tokens)
    checkpoint, resume = _checkpoint_bytes(config.model)
    keep, epochs = config.train.keep_checkpoints, math.ceil(total_steps / max(1, steps_per_epoch))
    kept = epochs if keep is None else min(epochs, max(1, keep))
    best = 1 if len(window_starts(n_val_tokens, config.model.context_length, config.stride)) else 0
    while_saving = resume + (checkpoint if kept < epochs else 0)  # the old one goes once the new one is in place
    return Estimate(
        n_parameters=n_parameters(config.model),
        steps_per_epoch=steps_per_epoch,
        total_steps=total_steps,
        memory_bytes=_memory_bytes(config),
        checkpoint_bytes=checkpoint,
        resume_bytes=resume,
        disk_bytes=(kept + best) * checkpoint + resume + while_saving,
        flops_per_step=_flops_per_batch(config) * config.optim.grad_accumulation,
    )


def settled(config: RunConfig, n_train_tokens: int) -> RunConfig:
    """``config`` with precision and ``compile`` as they will be where they are automatic: what steps are timed with."""
    precision, compiled = _precision(config), config.train.compile
    if precision is None:
        return config  # nothing trains there
    if compiled == "auto":
        asked = precision == "bf16" and pick_device(config.train.device).type == "cpu"
        worth = asked and pays(config, _steps(config, n_train_tokens)[1], precision, available_cores())
        compiled = "on" if worth else "off"
    return config.with_fields(train={"precision": precision, "compile": compiled})


def _precision(config: RunConfig) -> str | None:
    """fp32 or bf16; None where the device, or its bf16, is not there."""
    try:
        return precision_for(config, pick_device(config.train.device))
    except ValueError:
        return None


def _steps(config: RunConfig, n_train_tokens: int) -> tuple[int, int]:
    windows = len(window_starts(n_train_tokens, config.model.context_length, config.stride))
    batches = n_batches(windows, config.data.batch_size, config.data.drop_last)
    per_epoch = math.ceil(batches / config.optim.grad_accumulation)
    steps = per_epoch * config.train.num_epochs
    return per_epoch, steps if config.train.max_steps is None else min(steps, config.train.max_steps)


def _checkpoint_bytes(model: ModelConfig) -> tuple[int, int]:
    """Bytes of the weights, and of what a resume needs more: AdamW's two averages of every weight."""
    tensors = 5 + model.n_layers * (13 + 3 * model.qkv_bias)
    weights = FLOAT * n_parameters(model)
    return weights + 600 + 95 * tensors, 2 * weights + 15_000 + 780 * tensors


def _memory_bytes(config: RunConfig) -> int:
    """Peak of a training step: weights, gradients, AdamW's two averages, what backward needs, logits; calibrated."""
    model, tokens = config.model, config.data.batch_size * config.model.context_length
    attention = (4 if model.drop_rate else 2) * model.n_heads * model.context_length
    per_layer = tokens * (48 * model.emb_dim + attention)
    logits = 3 * tokens * model.vocab_size
    numbers = 4 * n_parameters(model) + model.n_layers * per_layer + logits
    return PROCESS_BYTES + FLOAT * numbers


def _flops_per_batch(config: RunConfig) -> int:
    """Floating-point operations of forward and backward: matrix products only (Kaplan et al. 2020, section 2.1)."""
    model, tokens = config.model, config.data.batch_size * config.model.context_length
    weights = 12 * model.n_layers * model.emb_dim**2 + model.vocab_size * model.emb_dim
    scores = 2 * model.n_layers * model.context_length * model.emb_dim
    return 2 * PASSES * tokens * (weights + scores)


def flops_per_token(config: RunConfig) -> float:
    """Operations that training on one token takes: about 6 for each weight that is used in a product, and attention."""
    return _flops_per_batch(config) / (config.data.batch_size * config.model.context_length)


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
        + expected.total_steps * _step_seconds(timing, config)
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
    forward = _flops_per_batch(config) / PASSES
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


def _step_seconds(timing: Timing, config: RunConfig) -> float:
    return config.optim.grad_accumulation * timing.batch + timing.optimizer


def cached_timing(config: RunConfig) -> Timing | None:
    """What was measured on this machine for such steps, if it was."""
    return _read_timings().get(_key(config))


def measure_step_seconds(config: RunConfig, timeout: float = 600) -> float:
    """Make a few steps of ``config`` in another process, keep their timing, and return the seconds of one step.

    ValueError where that is not possible: too little memory, no such device, or longer than ``timeout`` seconds.
    """
    needed, free = _memory_bytes(config), _free_memory()
    if config.train.device in ("auto", "cpu") and free is not None and needed > free:
        raise ValueError(
            f"A step needs about {needed / 1e9:.1f} GB of memory, and {free / 1e9:.1f} GB are free: "
            "lower batch_size, context_length, emb_dim or n_layers."
        )
    try:
        done = subprocess.run(
            [sys.executable, "-m", "gptlab.estimate"],
            input=config.model_dump_json(),
            env=worker_environment(),
            capture_output=True,
            text=True,
            timeout=timeout,
        )
    except subprocess.TimeoutExpired:
        raise ValueError(f"A few steps took more than {timeout:g} seconds: choose a smaller model.") from None
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["the process was ended"])[-1]
        raise ValueError(f"The step could not be timed: {reason}")
    timing = Timing(**json.loads(done.stdout.strip().splitlines()[-1]))
    timings = {**_read_timings(), _key(config): timing}
    rows = {key: asdict(value) for key, value in timings.items()}
    write_atomically(_timings_file(), json.dumps(rows, indent=1) + "\n")
    return _step_seconds(timing, config)


def _timings_file() -> Path:
    return cache_folder() / "timings.json"


def _read_timings() -> dict[str, Timing]:
    """Every timing kept; a missing or torn file counts as none."""
    try:
        return {key: Timing(**row) for key, row in json.loads(_timings_file().read_text()).items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def _key(config: RunConfig) -> str:
    """Everything that the timing of a step depends on."""
    facts = [
        describe_machine(),
        version("torch"),
        config.model.model_dump(exclude={"init"}),
        config.data.batch_size,
        config.train.model_dump(include={"device", "compile"}) | {"precision": _precision(config)},
        {name: value for name, value in worker_environment().items() if name.startswith(("OMP_", "MKL_", "MALLOC_"))},
    ]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]


def _free_memory() -> int | None:
    """Main memory that could be had now, in bytes. None: not known (not Linux)."""
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError):
        pass
    return None


def _time_steps(config: RunConfig, began: float) -> Timing:
    """Time the parts of a run, here and now. Random token ids: what they are does not matter."""
    import torch

    from gptlab.checkpoint import save_weights
    from gptlab.config import SamplingConfig
    from gptlab.loss import calc_loss_loader
    from gptlab.sampling import generate
    from gptlab.state import TrainState

    length, size = config.model.context_length, config.data.batch_size
    ids = torch.randint(config.model.vocab_size, (length * size + 1,))
    config = config.with_fields(
        data={"stride": None, "num_workers": 0}, optim={"grad_accumulation": 1, "warmup_steps": 0}
    )
    state = TrainState.build(config, (ids, ids[:0]))
    if state.wants_to_compile():
        state.compile()
    (batch,) = next(state.groups())

    def timed(work: object, seconds: float = 1.5, most: int = 10) -> float:
        """The median of ``work``'s durations, at least two and for ``seconds`` at most."""
        durations: list[float] = []
        while len(durations) < 2 or (sum(durations) < seconds and len(durations) < most):
            start = time.perf_counter()
            work()  # type: ignore[operator]
            if state.device.type == "cuda":
                torch.cuda.synchronize()
            durations.append(time.perf_counter() - start)
        return sorted(durations)[len(durations) // 2]

    state.optimise([batch], config.optim.learning_rate)
    start = time.time() - began
    step = timed(lambda: state.optimise([batch], config.optim.learning_rate), seconds=4)
    optimizer = timed(state.optimizer.step)
    state.optimizer.zero_grad(set_to_none=True)
    faster = state.engine.loss if state.engine is not None else None
    evaluation = timed(lambda: calc_loss_loader([batch], state.model, state.device, batch_loss=faster))
    few = SamplingConfig(max_new_tokens=min(8, length), stop_at_end=False)
    token = timed(lambda: list(generate(state.model, [0], few))) / few.max_new_tokens
    file = cache_folder() / ".timing.safetensors"
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        saving = timed(lambda: save_weights(state.model, file), seconds=0.5)
    finally:
        file.unlink(missing_ok=True)
    per_byte = saving / (FLOAT * state.model.n_parameters)
    return Timing(max(step - optimizer, 0.0), optimizer, evaluation, token, start, per_byte)


def main() -> int:
    """Read a configuration on stdin, print its timing as JSON."""
    began = time.time()
    try:
        print(json.dumps(asdict(_time_steps(RunConfig.model_validate_json(sys.stdin.read()), began))))
    except ValueError as error:
        print(str(error).replace("\n", " "), file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
