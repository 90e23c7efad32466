"""Makes a state's optimiser step fast before training begins: compiled, and on a GPU recorded to be started as a whole.

Whatever does not work out leaves the state as it was, which trains all the same; the reason is returned, not raised.
"""

from __future__ import annotations

import torch

from gptlab.device import available_cores
from gptlab.fast.compiling import automatic, missing
from gptlab.fast.engine import Engine
from gptlab.fast.fused import FusedLoss
from gptlab.fast.recorded import record
from gptlab.state import TrainState


def wants_to_compile(state: TrainState) -> bool:
    """Whether the step is to be compiled; ``auto`` as the resumed run began, else with bf16 where it pays."""
    wish = state.config.train.compile
    if state.config.data.order == "published":
        return False
    if wish != "auto":
        return wish == "on"
    if state.compiled_before is not None:
        return state.compiled_before
    return automatic(state.config, state.total_steps, state.precision, state.device.type, available_cores())


def compile_step(state: TrainState) -> str | None:
    """Compile the training step for batches of the usual shape. Returns why not: it then stays as it was."""
    shape = (state.config.data.batch_size, state.config.model.context_length)
    inside = state.streams.read()
    try:
        dtype = torch.bfloat16 if state.precision == "bf16" else torch.float32
        if state.device.type != "cpu":
            fused = FusedLoss(state.model, dtype, state.config.train.seed)
            fused.compile(*shape)
            state.fused = fused
        elif reason := missing():
            return reason
        else:
            engine = Engine(state.model, dtype, state.config.train.seed)
            engine.compile(*shape)
            state.engine = engine
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # whatever the compiler does not like, the plain model still trains
        return _one_line(error)
    finally:
        state.model.zero_grad(set_to_none=True)
        state.streams.write(inside)
    return None


def record_step(state: TrainState) -> str | None:
    """Record the step on a GPU, for batches of the usual shape, to be started as a whole. Returns why not.

    To be called when the model, the optimiser and what is compiled are those of the training that follows. None,
    too, where there is nothing to record, or too little memory for it.
    """
    if not state.reads_later or state.device.type != "cuda":
        return None
    inside = state.streams.read()
    shape = (state.config.data.batch_size, state.config.model.context_length)
    n_batches = state.config.optim.grad_accumulation
    rooms = torch.zeros(n_batches, 2, *shape, dtype=torch.long, device=state.device)
    state.spoilt = torch.ones((), device=state.device)  # so that the first try is not applied
    try:
        with torch.cuda.device(state.device):
            batches = [(inputs, targets) for inputs, targets in rooms]
            state.recorded = record(state.unread_step, batches, state.mask_keys(n_batches).to(state.device))
    except Exception as error:  # whatever cannot be recorded can be started part by part
        return _one_line(error)
    finally:
        state.spoilt.zero_()
        state.model.zero_grad(set_to_none=True)
        state.streams.write(inside)
    return None


def _one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).strip() or 'no reason given').splitlines()[0]}"
