"""What a run takes, before it starts: parameters, memory, disk, arithmetic. Needs no torch."""

from __future__ import annotations

import math
from dataclasses import dataclass

from gptlab.config import ModelConfig, RunConfig
from gptlab.dataset import n_batches, window_starts

FLOAT = 4  # bytes of an fp32 number
PROCESS_BYTES = 300_000_000  # Python, PyTorch and the tokenizer before there is a model (measured)
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
    steps_per_epoch, total_steps = count_steps(config, n_train_tokens)
    checkpoint, resume = _checkpoint_bytes(config.model)
    keep, epochs = config.train.keep_checkpoints, math.ceil(total_steps / max(1, steps_per_epoch))
    kept = epochs if keep is None else min(epochs, max(1, keep))
    best = 1 if len(window_starts(n_val_tokens, config.model.context_length, config.stride)) else 0
    while_saving = resume + (checkpoint if kept < epochs else 0)  # the old one goes once the new one is in place
    return Estimate(
        n_parameters=n_parameters(config.model),
        steps_per_epoch=steps_per_epoch,
        total_steps=total_steps,
        memory_bytes=memory_bytes(config),
        checkpoint_bytes=checkpoint,
        resume_bytes=resume,
        disk_bytes=(kept + best) * checkpoint + resume + while_saving,
        flops_per_step=flops_per_batch(config) * config.optim.grad_accumulation,
    )


def count_steps(config: RunConfig, n_train_tokens: int) -> tuple[int, int]:
    """Optimiser steps of an epoch, and of the whole run."""
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


def memory_bytes(config: RunConfig) -> int:
    """Peak of a training step: weights, gradients, AdamW's two averages, what backward needs, logits; calibrated."""
    model, tokens = config.model, config.data.batch_size * config.model.context_length
    attention = (4 if model.drop_rate else 2) * model.n_heads * model.context_length
    per_layer = tokens * (48 * model.emb_dim + attention)
    logits = 3 * tokens * model.vocab_size
    numbers = 4 * n_parameters(model) + model.n_layers * per_layer + logits
    return PROCESS_BYTES + FLOAT * numbers


def flops_per_batch(config: RunConfig) -> int:
    """Floating-point operations of forward and backward: matrix products only (Kaplan et al. 2020, section 2.1)."""
    model, tokens = config.model, config.data.batch_size * config.model.context_length
    weights = 12 * model.n_layers * model.emb_dim**2 + model.vocab_size * model.emb_dim
    scores = 2 * model.n_layers * model.context_length * model.emb_dim
    return 2 * PASSES * tokens * (weights + scores)


def flops_per_token(config: RunConfig) -> float:
    """Operations that training on one token takes: about 6 for each weight that is used in a product, and attention."""
    return flops_per_batch(config) / (config.data.batch_size * config.model.context_length)
