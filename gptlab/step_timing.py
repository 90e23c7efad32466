"""How fast a step is here. It is not guessed: a few real steps are made, in a process of their own.

That process is ``python -m gptlab.step_timing``, a configuration as JSON on stdin. What it finds is kept in the cache.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

from gptlab.config import RunConfig
from gptlab.device import describe_machine, free_memory, pick_device, precision_for
from gptlab.estimate import FLOAT, memory_bytes
from gptlab.home import cache_folder, write_atomically
from gptlab.launcher import worker_environment

COUNTED = ("OMP_", "GOMP_", "KMP_", "MKL_", "MALLOC_")  # beginnings of variables that change how fast a step is


@dataclass(frozen=True)
class Timing:
    """Seconds that the parts of a run take on this machine, as measured."""

    batch: float  # forward and backward of one batch
    optimizer: float  # one update of all weights
    evaluation: float  # forward of one batch, no gradients
    token: float  # one token of a sample
    start: float  # from the start of the process to the first step
    save_per_byte: float


def step_seconds(timing: Timing, config: RunConfig) -> float:
    return config.optim.grad_accumulation * timing.batch + timing.optimizer


def cached_timing(config: RunConfig) -> Timing | None:
    """What was measured on this machine for such steps, if it was."""
    return _read_timings().get(_key(config))


def measure_step_seconds(config: RunConfig, timeout: float = 600) -> float:
    """Make a few steps of ``config`` in another process, keep their timing, and return the seconds of one step.

    ValueError where that is not possible: too little memory, no such device, or longer than ``timeout`` seconds.
    """
    needed, free = memory_bytes(config), free_memory()
    if config.train.device in ("auto", "cpu") and needed > free:
        raise ValueError(
            f"A step needs about {needed / 1e9:.1f} GB of memory, and {free / 1e9:.1f} GB are free: "
            "lower batch_size, context_length, emb_dim or n_layers."
        )
    try:
        done = subprocess.run(
            [sys.executable, "-m", "gptlab.step_timing"],
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
    return step_seconds(timing, config)


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
        config.train.model_dump(include={"device", "compile"}) | {"precision": automatic_precision(config)},
        {name: value for name, value in worker_environment().items() if name.startswith(COUNTED)},
    ]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]


def automatic_precision(config: RunConfig) -> str | None:
    """fp32 or bf16; None where the device, or its bf16, is not there."""
    try:
        return precision_for(config, pick_device(config.train.device))
    except ValueError:
        return None


def _time_steps(config: RunConfig, began: float) -> Timing:
    """Time the parts of a run, here and now. Random token ids: what they are does not matter."""
    import torch

    from gptlab.acceleration import compile_step, record_step, wants_to_compile
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
    if wants_to_compile(state):
        compile_step(state)
    record_step(state)
    (batch,) = next(state.groups())
    optimise = state.optimise_unread if state.reads_later else state.optimise

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

    optimise([batch], config.optim.learning_rate)
    start = time.time() - began
    step = timed(lambda: optimise([batch], config.optim.learning_rate), seconds=4)
    optimizer = timed(state.optimizer.step)
    state.optimizer.zero_grad(set_to_none=True)
    with state.evaluation_loss() as way:
        evaluation = timed(lambda: calc_loss_loader([batch], state.model, state.device, batch_loss=way))
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
