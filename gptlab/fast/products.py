"""A matrix of weights as decoding reads it, and its product with a few rows: fp32, bf16 or 8-bit.

8-bit weights are rounded to 255 steps a row (symmetric, one scale each); products and sums stay bf16 and fp32. Which
library multiplies depends on the number of rows: each has a number of them for which it does not read a matrix as fast
as memory gives it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from gptlab.fast.head import padded
from gptlab.fast.precision import onednn_is_exact, onednn_products, without_onednn

Weights = Literal["fp32", "bf16", "int8"]
FEW = 8  # rows up to which products of few rows are made another way than those of many
_AT_A_TIME = 512  # rows of a matrix that are rounded together: they stay in the cache

Product = Callable[[Tensor], Tensor]  # [N, C] -> [N, K], in the weights' type


def product(kind: Weights, *matrices: Tensor, bias: Tensor | None = None) -> Product:
    """What multiplies rows with ``matrices`` [K, C], laid below one another, and adds ``bias`` [K]."""
    dtype = torch.float32 if kind == "fp32" else torch.bfloat16
    joined = matrices[0] if len(matrices) == 1 else torch.cat(matrices)
    added = None if bias is None else bias.to(dtype)
    if kind == "int8":
        return _int8_product(joined, added)
    if kind == "fp32":
        return lambda x: _fp32_product(x, joined, added)
    matrix = joined.to(dtype)
    return lambda x: F.linear(x, matrix, added)


@contextmanager
def library_for(kind: Weights, n_rows: int) -> Iterator[None]:
    """Inside the block products of ``n_rows`` rows go to the library that reads a matrix fastest for so many."""
    many = n_rows > _few() and onednn_is_exact()
    with onednn_products(kind == "fp32" and many), without_onednn(kind == "bf16" and n_rows == 1):
        yield


def _few() -> int:
    return 4 if onednn_is_exact() else FEW


def _fp32_product(x: Tensor, matrix: Tensor, bias: Tensor | None) -> Tensor:
    """``F.linear``, the way that reads ``matrix`` fastest for so many rows.

    Of a few rows the matrix is the left factor: the other way round the library copies it into an order of its own
    first, which takes two to three times as long as the product.
    """
    if len(x) == 1:
        return _divided(x, matrix, bias)
    if len(x) <= _few():
        y = (matrix @ x.t()).t().contiguous()
        return y if bias is None else y.add_(bias)
    return F.linear(x, matrix, bias)


def _divided(x: Tensor, matrix: Tensor, bias: Tensor | None) -> Tensor:
    """``F.linear`` of a single row, where each thread does its share of the outputs, as one product of a batch.

    Both libraries multiply a matrix with one vector on one core, on some processors, and one core cannot read memory as
    fast as two.
    """
    n, parts = len(matrix), torch.get_num_threads()
    even = n - n % parts
    if parts == 1 or not even:
        return F.linear(x, matrix, bias)
    shares = matrix[:even].view(parts, even // parts, -1)
    y = torch.empty(1, n)
    torch.bmm(x.expand(parts, 1, -1), shares.transpose(1, 2), out=y[:, :even].view(parts, 1, -1))
    if even < n:
        y[:, even:] = F.linear(x, matrix[even:])
    return y if bias is None else y.add_(bias)


def _int8_product(matrix: Tensor, bias: Tensor | None) -> Product:
    n_rows = len(matrix)
    whole = torch.zeros(padded(n_rows), matrix.shape[1], dtype=torch.int8)
    scales = torch.ones(len(whole), dtype=torch.bfloat16)
    parts = (tensor[:n_rows].split(_AT_A_TIME) for tensor in (matrix, whole, scales))
    for rows, rounded, scale in zip(*parts, strict=True):
        scale.copy_(rows.abs().amax(1).clamp_min_(1e-12).div_(127))
        # the scale is rounded to bf16, so the weights are rounded against the scale that will be used
        rounded.copy_((rows / scale[:, None].float()).round_().clamp_(-127, 127))

    def times(x: Tensor) -> Tensor:
        if len(x) <= FEW:  # of more, the weights are made bf16 first
            y = torch._weight_int8pack_mm(x, whole, scales)[:, :n_rows]
        else:
            y = F.linear(x, whole[:n_rows].to(torch.bfloat16)) * scales[:n_rows]
        return y if bias is None else y + bias

    return times
