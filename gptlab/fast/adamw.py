"""AdamW (Loshchilov and Hutter 2019) in one pass over memory, on the state that ``torch.optim.AdamW`` keeps.

The formula is PyTorch's. A pass reads parameter, both moments and the gradient (bf16 or fp32) and writes the first
three back together with the bf16 copy that the next step multiplies with. Because the state is the optimiser's own, a
run can be saved by one implementation and resumed by the other.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Update = Callable[[Tensor, Tensor, Tensor, Tensor | None, Tensor | None, Tensor], None]


def update_in_place(
    parameter: Tensor, mean: Tensor, square: Tensor, gradient: Tensor | None, copy: Tensor | None, numbers: Tensor
) -> None:
    """One step for flat tensors. ``gradient`` None: zero everywhere. ``copy``: gets the new parameter, in its type.

    ``numbers``: see ``step_numbers``.
    """
    decay, beta1, rest1, beta2, rest2, size, root, eps, shrink = numbers.unbind(0)
    new_mean, new_square = mean * beta1, square * beta2
    if gradient is not None:
        g = gradient.float() * shrink
        new_mean = new_mean + g * rest1
        new_square = new_square + g * g * rest2
    new = parameter * decay - size * new_mean / (new_square.sqrt() * root + eps)
    mean.copy_(new_mean)
    square.copy_(new_square)
    parameter.copy_(new)
    if copy is not None:
        copy.copy_(new)


def step_numbers(group: dict, step: int, shrink: float) -> Tensor:
    """What an update needs to know, fp32 [9]. ``step`` counts from 1; gradients are multiplied by ``shrink``."""
    (beta1, beta2), rate = group["betas"], group["lr"]
    return torch.tensor(
        [
            1 - rate * group["weight_decay"],
            beta1,
            1 - beta1,
            beta2,
            1 - beta2,
            rate / (1 - beta1**step),
            (1 - beta2**step) ** -0.5,
            group["eps"],
            shrink,
        ]
    )


def square_sums(x: Tensor) -> Tensor:
    """Sum of squares of each row, [K, C] -> fp32 [K]; one long compiled sum would be slower, and round more."""
    wide = x.float()
    return (wide * wide).sum(1)


@dataclass(frozen=True)
class Rows:
    """A gradient that is zero but in some rows: of an embedding, those of the tokens in the batch."""

    index: Tensor  # int64 [U], each once
    values: Tensor  # fp32 [U, C]


def gather_rows(ids: Tensor, gradient: Tensor) -> Rows:
    """Gradients [B, T, C] of the embeddings of ``ids`` [B, T], summed for each token."""
    index, place = ids.flatten().unique(return_inverse=True)
    values = torch.zeros(len(index), gradient.shape[-1])
    return Rows(index, values.index_add_(0, place, gradient.reshape(-1, gradient.shape[-1])))


def rows_with_moments(mean: Tensor, square: Tensor) -> Tensor:
    """int64 [U]: the rows [C] of the moments [V, C] that are not all zero, in order."""
    return (mean.any(1) | square.any(1)).nonzero()[:, 0]


def update_rows(
    parameter: Tensor,
    mean: Tensor,
    square: Tensor,
    rows: Rows,
    moving: Tensor,
    numbers: Tensor,
    update: Update = update_in_place,
) -> Tensor:
    """One step for a matrix [V, C] whose gradient is ``rows``. Returns ``moving`` for the next step.

    ``moving`` (int64, in order): at least the rows that have moments. The others decay, and nothing else: where they
    are the most, as in a vocabulary that the text uses a small part of, their moments are not even read.
    """
    moving = torch.cat([moving, rows.index]).unique()
    few = 2 * len(moving) < len(parameter)
    where = moving if few else rows.index
    touched = [whole[where] for whole in (parameter, mean, square)]
    if few:
        gradient = torch.zeros_like(touched[0])
        gradient[torch.searchsorted(moving, rows.index)] = rows.values
        parameter.mul_(numbers[0])
    else:
        gradient = rows.values
        update(parameter.view(-1), mean.view(-1), square.view(-1), None, None, numbers)
    update(*(part.view(-1) for part in touched), gradient.view(-1), None, numbers)  # type: ignore[call-arg]
    for whole, part in zip((parameter, mean, square), touched, strict=True):
        whole[where] = part
    return moving
