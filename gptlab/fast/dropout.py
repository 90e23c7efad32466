"""Dropout masks that are a function of a counter, not of a random stream.

A stream must be drawn in order, one number after the other; on a CPU that takes longer than the products around it.
Here every element hashes its own index together with a key made of (seed, step, batch, layer, place): any part of a
mask can be computed at any time, in the backward pass again instead of being kept, and a resumed run repeats it bit for
bit.
"""

from __future__ import annotations

import torch
from torch import Tensor

SITES = 3  # places with dropout in a block: attention weights, after attention, after the feed-forward layers
_EMBEDDING = 2**20  # the layer number of the embedding's dropout
_BITS64 = (1 << 64) - 1


def keys(seed: int, step: int, batch: int, n_layers: int) -> tuple[Tensor, Tensor]:
    """Keys of one pass over one batch: int32 [n_layers, SITES, 2] for the blocks, int32 [2] for the embedding."""
    state = 0
    for number in (seed, step, batch):
        state = _mix(state ^ number)
    layers = [[_key(state, layer, site) for site in range(SITES)] for layer in range(n_layers)]
    return torch.tensor(layers, dtype=torch.int32), torch.tensor(_key(state, _EMBEDDING, 0), dtype=torch.int32)


def _mix(z: int) -> int:
    """One step of SplitMix64 (Steele, Lea and Flood 2014): every bit of ``z`` reaches every bit of the result."""
    z = (z + 0x9E3779B97F4A7C15) & _BITS64
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _BITS64
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _BITS64
    return z ^ (z >> 31)


def _key(state: int, layer: int, site: int) -> list[int]:
    drawn = _mix(state ^ (layer * SITES + site))
    return [(drawn >> shift & 0xFFFFFFFF) - 2**31 for shift in (0, 32)]


def multiplier(rows: int, columns: int, key: Tensor, rate: float) -> Tensor:
    """[rows, columns] fp32: 0 where dropped, 1 / (1 - rate) where kept.

    The hash is a 32-bit finaliser (two multiplications between three shifts), its shifts made unsigned by masks. It
    ends in arithmetic instead of a comparison: compiled kernels store comparisons slowly.
    """
    row, column = (torch.arange(n, dtype=torch.int32, device=key.device) for n in (rows, columns))
    index = row[:, None] * columns + column
    x = index ^ key[0]
    x = (x ^ ((x >> 16) & 0xFFFF)) * 0x7FEB352D + key[1]
    x = (x ^ ((x >> 15) & 0x1FFFF)) * (0x846CA68B - (1 << 32))
    x = (x ^ ((x >> 16) & 0xFFFF)) & 0x7FFFFFFF
    dropped = (x - round(rate * 2**31)) >> 31  # -1 where below the threshold, else 0
    return (1 + dropped).float() * (1 / (1 - rate))


def dropped(x: Tensor, key: Tensor, rate: float) -> Tensor:
    """``x`` [..., C], each element dropped with probability ``rate``; fp32 where that is not 0."""
    rows = x.reshape(-1, x.shape[-1])
    return (rows * multiplier(rows.shape[0], rows.shape[1], key, rate)).view(x.shape) if rate else x
