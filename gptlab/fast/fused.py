"""``GPTModel``'s forward pass by the fused kernels that PyTorch has for GPUs, for the compiler to fuse the rest of.

The textbook writes scores [B, H, T, T] into memory; flash attention (Dao et al. 2022) never does, which at a context of
1,024 tokens is most of the time. The head is padded: a GPU multiplies matrices of 50,257 rows, an odd number, several
times as slowly as those of 50,304.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gptlab.fast.head import padded
from gptlab.model import GPTModel


class FusedForward(nn.Module):
    """The same logits from the same parameters, which stay ``model``'s; dropout follows the model's mode."""

    def __init__(self, model: GPTModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: Tensor) -> Tensor:
        """Token ids [B, T], T at most ``context_length`` -> logits [B, T, V]."""
        model, T = self.model, ids.shape[1]
        x = F.embedding(ids, model.tok_emb.weight) + model.pos_emb.weight[:T]  # [B, T, C]
        x = self._dropped(x)
        for block in model.trf_blocks:
            x = self._block(block, x)
        head = model.out_head.weight
        more = padded(len(head)) - len(head)
        return F.linear(_normed(x, model.final_norm), F.pad(head, (0, 0, 0, more)))[..., : len(head)]

    def _block(self, block: Any, x: Tensor) -> Tensor:
        x = x + self._dropped(self._attention(block.att, _normed(x, block.norm1)))
        wide, _, narrow = block.ff.layers
        return x + self._dropped(narrow(F.gelu(wide(_normed(x, block.norm2)), approximate="tanh")))

    def _attention(self, att: Any, x: Tensor) -> Tensor:
        B, T, C = x.shape
        parts = (att.W_query, att.W_key, att.W_value)
        bias = None if parts[0].bias is None else torch.cat([part.bias for part in parts])
        joined = F.linear(x, torch.cat([part.weight for part in parts]), bias)
        q, k, v = joined.view(B, T, 3, att.n_heads, C // att.n_heads).permute(2, 0, 3, 1, 4)  # [B, H, T, D]
        gathered = F.scaled_dot_product_attention(q, k, v, is_causal=True, dropout_p=self._rate())
        return att.out_proj(gathered.transpose(1, 2).reshape(B, T, C))

    def _rate(self) -> float:
        return self.model.config.drop_rate if self.model.training else 0.0

    def _dropped(self, x: Tensor) -> Tensor:
        return F.dropout(x, self._rate())


def _normed(x: Tensor, norm: Any) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], norm.scale, norm.shift, norm.eps)
