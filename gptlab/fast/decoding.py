"""One token at a time, from fp32, bf16 or 8-bit weights: reading the weights is all the work there is.

For one token every matrix is read once and multiplied with a single vector, so that half the bytes are half the time.
The sum of the residual stream is always fp32. A prompt, or a window that moved, is read in one go.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from gptlab.fast.precision import multiplies_bf16
from gptlab.fast.products import Weights, library_for, product
from gptlab.model import GPTModel

WEIGHTS: tuple[Weights, ...] = ("fp32", "bf16", "int8")


class _Layer:
    def __init__(self, block: Any, kind: Weights) -> None:
        att, wide, narrow = block.att, block.ff.layers[0], block.ff.layers[2]
        parts = (att.W_query, att.W_key, att.W_value)
        biases = None if parts[0].bias is None else torch.cat([part.bias for part in parts])
        self.norm1 = (block.norm1.scale, block.norm1.shift)
        self.norm2 = (block.norm2.scale, block.norm2.shift)
        self.qkv = product(kind, *(part.weight for part in parts), bias=biases)
        self.out = product(kind, att.out_proj.weight, bias=att.out_proj.bias)
        self.wide = product(kind, wide.weight, bias=wide.bias)
        self.narrow = product(kind, narrow.weight, bias=narrow.bias)


class DecodingWeights:
    """A model's weights as decoding reads them. Made from the parameters as they are now."""

    def __init__(self, model: GPTModel, kind: Weights) -> None:
        self.config, self.kind = model.config, kind
        self.dtype = torch.float32 if kind == "fp32" else torch.bfloat16
        with torch.inference_mode():
            self.tokens, self.positions = model.tok_emb.weight.detach(), model.pos_emb.weight.detach()
            self.layers = [_Layer(block, kind) for block in model.trf_blocks]
            self.last_norm = (model.final_norm.scale, model.final_norm.shift)
            self.head = product(kind, model.out_head.weight)


_made: weakref.WeakKeyDictionary[GPTModel, dict[str, tuple[tuple, DecodingWeights]]] = weakref.WeakKeyDictionary()


def weights_of(model: GPTModel, kind: Weights) -> DecodingWeights:
    """``DecodingWeights`` of ``model``, kept until its parameters are written to or replaced."""
    stamp = tuple((id(p), p._version) for p in model.parameters())
    known = _made.setdefault(model, {})
    if kind not in known or known[kind][0] != stamp:
        known.pop(kind, None)
        known[kind] = (stamp, DecodingWeights(model, kind))
    return known[kind][1]


def forget_weights(model: GPTModel) -> None:
    """Let go of what was prepared of ``model``: its weights are about to change."""
    _made.pop(model, None)


def check_weights(name: str, model: GPTModel) -> Weights:
    """``name`` as one of the kinds of weights; ValueError where there is no such kind, or not for this device."""
    for kind in WEIGHTS:
        if name == kind:
            if kind != "fp32" and model.tok_emb.weight.device.type != "cpu":
                raise ValueError(f"Weights {name} are for the CPU: use fp32 on {model.tok_emb.weight.device}.")
            return kind
    raise ValueError(f"There are no weights {name!r}: use {', '.join(WEIGHTS)}.")


class Reader:
    """Reads tokens of B texts side by side and keeps their keys and values.

    Texts of different lengths end together: ``start`` [B] is the place where each begins, what stands before it is
    never looked at. ``store``: the keys and values of another reader of the same texts, to be used as one's own.
    """

    def __init__(
        self, model: GPTModel, kind: Weights, batch_size: int, length: int, store: Tensor | None = None
    ) -> None:
        self.weights = weights_of(model, kind)
        config = model.config
        shape = (config.n_layers, 2, batch_size, config.n_heads, length, config.head_dim)
        kept = self.weights.dtype if multiplies_bf16() else torch.float32  # elsewhere attention in bf16 is slow
        self.store = torch.zeros(shape, dtype=kept) if store is None else store
        self.length = 0

    def reorder(self, parents: Sequence[int]) -> None:
        """Text i becomes a copy of what was text ``parents[i]``; there may be more of them, or fewer."""
        if list(parents) != list(range(self.store.shape[2])):
            self.store = self.store[:, :, torch.tensor(parents)]

    def read(self, ids: Tensor, start: Tensor | None = None) -> Tensor:
        """Token ids [B, T] that follow what was read -> logits [B, V] (fp32) of the token after the last."""
        return self.read_each(ids, 1, start)[:, 0]

    def read_each(self, ids: Tensor, n: int, start: Tensor | None = None) -> Tensor:
        """As ``read`` -> logits [B, n, V] (fp32) of the token after each of the last ``n`` of ``ids``."""
        with library_for(self.weights.kind, ids.numel()):
            last = self._read(ids, start)[:, -n:]  # [B, n, C]
            logits = self.weights.head(last.reshape(-1, last.shape[-1]))
            return logits.float().view(*last.shape[:2], -1)

    def forget(self, length: int) -> None:
        """All but the first ``length`` tokens: what is read next follows those."""
        self.length = min(self.length, length)

    def _read(self, ids: Tensor, start: Tensor | None) -> Tensor:
        """[B, T, C] as the head reads it."""
        w, config = self.weights, self.weights.config
        B, T = ids.shape
        H, D, begin, end = config.n_heads, config.head_dim, self.length, self.length + T
        places = torch.arange(begin, end)
        mask = None
        if start is not None:
            positions = (places - start[:, None]).clamp_min(0)  # [B, T]
            seen = torch.arange(end)
            mask = (seen <= places[:, None]) & (seen >= start[:, None, None])  # [B, T, S]
            mask = (mask | (seen == places[:, None]))[:, None]  # a place before the start sees itself, not nothing
            x = w.tokens[ids] + w.positions[positions]
        else:
            x = w.tokens[ids] + w.positions[begin:end]
            if begin and T > 1:
                mask = torch.arange(end) <= places[:, None]
        x = x.view(B * T, -1)  # [N, C], fp32
        for number, layer in enumerate(w.layers):
            qkv = layer.qkv(_normed(x, layer.norm1, w.dtype)).view(B, T, 3, H, D)
            q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # [B, H, T, D]
            keys, values = self.store[number]
            keys[:, :, begin:end], values[:, :, begin:end] = k, v
            gathered = F.scaled_dot_product_attention(
                q.to(keys.dtype), keys[:, :, :end], values[:, :, :end], attn_mask=mask, is_causal=mask is None and T > 1
            )
            x = x + layer.out(gathered.transpose(1, 2).reshape(B * T, H * D).to(w.dtype))
            x = x + layer.narrow(F.gelu(layer.wide(_normed(x, layer.norm2, w.dtype)), approximate="tanh"))
        self.length = end
        return _normed(x.view(B, T, -1), w.last_norm, w.dtype)


def _normed(x: Tensor, norm: tuple[Tensor, Tensor], dtype: torch.dtype) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], norm[0], norm[1], 1e-5).to(dtype)
