"""Output layer and cross-entropy together: [N, C] rows and the head's weights to a loss and both gradients.

The logits are the largest thing in a small model's step. Here they exist once, in the products' type: each row is
replaced by its own gradient in place, and both gradients are multiplied out at once.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

LANES = 64  # the vocabulary is padded to a multiple of this, so that rows of logits begin on cache lines

Softmax = Callable[[Tensor, Tensor], Tensor]


def padded(n_tokens: int) -> int:
    return -(-n_tokens // LANES) * LANES


def softmax_gradient(logits: Tensor, scale: Tensor) -> Tensor:
    """Replace ``logits`` [N, V] by softmax times ``scale``; returns each row's log of summed exponentials, fp32 [N]."""
    wide = logits.float()
    total = torch.logsumexp(wide, -1)
    logits.copy_(torch.exp(wide - total[:, None]) * scale)
    return total


def row_totals(logits: Tensor) -> Tensor:
    """Each row's log of summed exponentials: [N, V] -> fp32 [N]."""
    return torch.logsumexp(logits.float(), -1)


def loss_and_gradients(
    rows: Tensor,
    head: Tensor,
    targets: Tensor,
    share: float,
    vocab_size: int,
    buffer: Tensor,
    softmax: Callable[[Tensor, Tensor], Tensor] = softmax_gradient,
) -> tuple[Tensor, Tensor, Tensor]:
    """Loss, gradient of ``rows`` [N, C] and gradient of ``head`` [V padded, C].

    The loss is ``share`` times the mean over the N ``targets`` (int64 [N]). ``buffer`` [at least N, V padded] is room
    for the logits. Rows of zeros pad the head; what is added to their gradient means nothing.
    """
    n = rows.shape[0]
    logits = torch.mm(rows, head.t(), out=buffer[:n])
    known = logits[:, :vocab_size]
    every = torch.arange(n)
    right = known[every, targets].float()
    scale = share / n
    total = softmax(known, torch.tensor(scale))
    known[every, targets] = (((right - total).exp() - 1) * scale).to(known.dtype)
    return (total - right).sum() * scale, torch.mm(logits, head), torch.mm(logits.t(), rows)


def loss_only(
    rows: Tensor,
    head: Tensor,
    targets: Tensor,
    vocab_size: int,
    buffer: Tensor,
    totals: Callable[[Tensor], Tensor] = row_totals,
) -> Tensor:
    """Mean cross-entropy over the N targets."""
    known = torch.mm(rows, head.t(), out=buffer[: rows.shape[0]])[:, :vocab_size]
    return (totals(known) - known.gather(1, targets[:, None])[:, 0].float()).mean()
