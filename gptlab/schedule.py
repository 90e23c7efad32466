"""The learning rate of every step: constant, or a linear warm-up and then a cosine (Loshchilov & Hutter 2016)."""

from __future__ import annotations

import math

from gptlab.config import OptimConfig


def learning_rate_at(step: int, total_steps: int, optim: OptimConfig) -> float:
    """The learning rate that optimiser step ``step`` (from 0) of ``total_steps`` uses.

    Warm-up: step w of ``warmup_steps`` uses (w + 1) / warmup_steps of ``learning_rate``, whatever the schedule. Then
    ``constant`` stays there; ``cosine`` starts there and reaches ``min_learning_rate`` at the last step.
    """
    highest, lowest, warmup = optim.learning_rate, optim.min_learning_rate, optim.warmup_steps
    if step < warmup:
        return highest * (step + 1) / warmup
    if optim.schedule == "constant":
        return highest
    length = total_steps - 1 - warmup
    progress = min(1.0, (step - warmup) / length) if length > 0 else 0.0
    return lowest + (highest - lowest) * (1 + math.cos(math.pi * progress)) / 2
