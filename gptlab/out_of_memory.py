"""Too little memory, told as something that people can act on."""

from __future__ import annotations

import torch

from gptlab.config import RunConfig


def is_out_of_memory(error: Exception) -> bool:
    told = str(error).lower()
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or any(
        sign in told for sign in ("out of memory", "can't allocate memory", "not enough memory", "cannot allocate")
    )


def lower_this(config: RunConfig) -> str:
    return (
        f"There is not enough memory: lower batch_size (now {config.data.batch_size}), "
        f"context_length (now {config.model.context_length}), emb_dim (now {config.model.emb_dim}) or "
        f"n_layers (now {config.model.n_layers}); grad_accumulation makes up for a smaller batch."
    )
