"""Which numbers this processor multiplies fast, found by asking and by trying, never by its name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cache
from threading import Lock
from typing import Any

import torch

EXACT = 5e-6  # largest error, relative to the largest result, of a product that still counts as fp32


def multiplies_bf16() -> bool:
    """Whether this CPU has instructions for bf16 products; without them they are slower than fp32 ones."""
    if not torch.backends.mkldnn.is_available():
        return False
    probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported", "_is_arm_bf16_supported")
    return any(probe() for name in probes if (probe := getattr(torch.cpu, name, None)) is not None)


class _Setting:
    """A setting of the whole process: the first block sets it, the last one resets it.

    Blocks of several threads may overlap: two people may be answered at once.
    """

    def __init__(self, get: Callable[[], Any], put: Callable[[Any], None], inside: Any) -> None:
        self.get, self.put, self.inside = get, put, inside
        self.guard, self.blocks, self.before = Lock(), 0, None

    @contextmanager
    def block(self, wanted: bool) -> Iterator[None]:
        if not wanted:
            yield
            return
        with self.guard:
            if self.blocks == 0:
                self.before = self.get()
                self.put(self.inside)
            self.blocks += 1
        try:
            yield
        finally:
            with self.guard:
                self.blocks -= 1
                if self.blocks == 0:
                    self.put(self.before)


_settings: Any = torch.backends.mkldnn
_fp32_route = _Setting(
    lambda: _settings.matmul.fp32_precision, lambda value: setattr(_settings.matmul, "fp32_precision", value), "bf16"
)
_all_routes = _Setting(lambda: _settings.enabled, lambda value: setattr(_settings, "enabled", value), False)


def onednn_products(wanted: bool = True) -> AbstractContextManager[None]:
    """Send fp32 products on the CPU to oneDNN inside the block, where that is exact; see ``onednn_is_exact``."""
    return _fp32_route.block(wanted)


def without_onednn(wanted: bool = True) -> AbstractContextManager[None]:
    """Leave oneDNN out inside the block, so that PyTorch multiplies bf16 by kernels of its own.

    Those of a matrix and one vector read the matrix as fast as memory gives it, which oneDNN's do not; of more rows
    they are slow. That holds for all threads while the block lasts: a long bf16 prompt that another one reads in that
    time takes up to fifteen times as long.
    """
    return _all_routes.block(wanted)


@cache
def onednn_is_exact() -> bool:
    """Whether oneDNN's fp32 products, allowed to be bf16, are fp32 here all the same.

    Where the processor's bf16 units serve fp32 products, allowing bf16 makes them rough; where they do not, oneDNN
    picks its own fp32 kernels, which some processors run twice as fast as the default library's. So: try.
    """
    if not torch.backends.mkldnn.is_available() or not hasattr(torch.backends.mkldnn, "matmul"):
        return False
    stream = torch.Generator().manual_seed(0)
    for rows, inner, columns in ((512, 768, 768), (256, 128, 1024), (64, 64, 64)):
        a, b = torch.randn(rows, inner, generator=stream), torch.randn(inner, columns, generator=stream)
        right = a.double() @ b.double()
        with onednn_products():
            for product in (a @ b, (b.t() @ a.t()).t(), torch.bmm(a[None], b[None])[0]):
                if float((product.double() - right).abs().max() / right.abs().max()) > EXACT:
                    return False
    return True
