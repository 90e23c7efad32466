"""One transformer block, and the two ends of the stack, as functions of tensors.

These are the regions that are compiled: the weights are arguments, so one compilation serves every layer.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from gptlab.fast.pieces import Attention, Bias, BiasGelu, Dropout, Linear, Norm, Residual


class BlockWeights(NamedTuple):
    """A block's parameters in the order in which they are used: matrices in the products' type, vectors in fp32."""

    norm1_scale: Tensor
    norm1_shift: Tensor
    qkv: Tensor  # [3C, C]: query, key and value below one another
    qkv_bias: tuple[Tensor, Tensor, Tensor] | None
    out: Tensor  # [C, C]
    out_bias: Tensor
    norm2_scale: Tensor
    norm2_shift: Tensor
    wide: Tensor  # [4C, C]
    wide_bias: Tensor
    narrow: Tensor  # [C, 4C]
    narrow_bias: Tensor


def block_forward(x: Tensor, weights: BlockWeights, keys: Tensor, n_heads: int, rate: float) -> Tensor:
    """[B, T, C] fp32 -> the same. ``keys``: those of this layer's dropouts; ``rate`` 0 switches them off."""
    B, T, C = x.shape
    w = weights
    dtype = w.qkv.dtype
    qkv = Linear.apply(Norm.apply(x, w.norm1_scale, w.norm1_shift, dtype), w.qkv)  # [N, 3C]
    if w.qkv_bias is not None:
        qkv = Bias.apply(qkv, torch.cat(w.qkv_bias))
    heads = qkv.view(B, T, 3, n_heads, C // n_heads).permute(2, 0, 3, 1, 4)  # [3, B, H, T, D]
    q, k, v = heads.reshape(3, B * n_heads, T, C // n_heads).unbind(0)
    gathered = Attention.apply(q, k, v, keys[0], rate)
    gathered = gathered.view(B, n_heads, T, C // n_heads).transpose(1, 2).reshape(B * T, C)
    x = Residual.apply(x, Linear.apply(gathered, w.out), w.out_bias, keys[1], rate)
    wide = BiasGelu.apply(Linear.apply(Norm.apply(x, w.norm2_scale, w.norm2_shift, dtype), w.wide), w.wide_bias)
    return Residual.apply(x, Linear.apply(wide, w.narrow), w.narrow_bias, keys[2], rate)


def embed(rows: Tensor, positions: Tensor, key: Tensor, rate: float) -> Tensor:
    """Token embeddings [B, T, C] and the position table -> what the first block reads."""
    return Dropout.apply(rows + positions[: rows.shape[1]], key, rate)


def last_norm(x: Tensor, scale: Tensor, shift: Tensor, dtype: torch.dtype) -> Tensor:
    """[B, T, C] -> what the head reads, rows [N, C]."""
    return Norm.apply(x, scale, shift, dtype)
