"""bf16 products on a processor that has no instructions for them, to see what bf16 does to a training run.

A product of two bf16 numbers fits into fp32 exactly, and the instructions sum in fp32: multiplying the same bf16
numbers in fp32 and rounding the result to bf16 differs from them only in the order of the sums. It takes as long as
fp32, where this processor's own way of multiplying bf16 takes six times as long. It says nothing about speed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

import torch
from torch import Tensor

from gptlab.fast import head, pieces


@torch.library.custom_op("gptlab_bench::mm", mutates_args=())
def _mm(a: Tensor, b: Tensor) -> Tensor:  # an operation of its own, or the compiler would fuse the rounding away
    return torch.mm(a.float(), b.float()).to(a.dtype)


@torch.library.custom_op("gptlab_bench::bmm", mutates_args=())
def _bmm(a: Tensor, b: Tensor) -> Tensor:
    return torch.bmm(a.float(), b.float()).to(a.dtype)


@_mm.register_fake
def _(a: Tensor, b: Tensor) -> Tensor:
    return a.new_empty(a.shape[0], b.shape[1])


@_bmm.register_fake
def _(a: Tensor, b: Tensor) -> Tensor:
    return a.new_empty(a.shape[0], a.shape[1], b.shape[2])


def _mm_out(a: Tensor, b: Tensor, *, out: Tensor | None = None) -> Tensor:
    product: Tensor = _mm(a, b)
    return product if out is None else out.copy_(product)


@contextmanager
def emulated_bf16() -> Iterator[None]:
    """Inside the block the fast step's products, which it asks ``torch`` for by name, are the ones above."""
    blocks, ends = ModuleType("torch"), ModuleType("torch")
    blocks.__dict__.update(torch.__dict__, mm=_mm, bmm=_bmm)
    ends.__dict__.update(torch.__dict__, mm=_mm_out)
    pieces.torch, head.torch = blocks, ends
    try:
        yield
    finally:
        pieces.torch, head.torch = torch, torch
