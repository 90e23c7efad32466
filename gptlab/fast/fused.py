"""``GPTModel``'s loss by the fused kernels that PyTorch has for GPUs, for the compiler to fuse the rest of.

The textbook writes scores [B, H, T, T] into memory; flash attention (Dao et al. 2022) never does, which at a context of
1,024 tokens is most of the time. The vocabulary is padded: a GPU multiplies matrices of 50,257 rows, an odd number,
several times as slowly as those of 50,304, and reads such rows one number at a time instead of eight. The logits exist
once, in the products' type, and are replaced by their own gradient.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch._functorch.config as functorch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function

from gptlab.fast import dropout
from gptlab.fast.compiling import compiler
from gptlab.fast.head import LANES, padded
from gptlab.fast.pieces import GELU_CUBE, GELU_SLOPE
from gptlab.model import GPTModel, LayerNorm, evaluating


class Norm(NamedTuple):
    """A layer norm's parameters, and the type that what it reads is turned into."""

    scale: Tensor
    shift: Tensor
    dtype: torch.dtype


class BlockParameters(NamedTuple):
    """A block's own parameters, but for its first norm, in the order in which they are used."""

    n_heads: int
    qkv: tuple[Tensor, Tensor, Tensor]  # [C, C] each
    qkv_bias: tuple[Tensor, Tensor, Tensor] | None
    out: Tensor  # [C, C]
    out_bias: Tensor
    norm2: Norm
    wide: Tensor  # [4C, C]
    wide_bias: Tensor
    narrow: Tensor  # [C, 4C]
    narrow_bias: Tensor


def block_forward(
    x: Tensor, rows: Tensor, p: BlockParameters, then: Norm, keys: Tensor, rate: float
) -> tuple[Tensor, Tensor]:
    """One block on ``x`` [B, T, C], of which ``rows`` [B, T, C] is the first norm; returns those of the next.

    ``then``: the norm that reads what this block writes, fused to where that is made. ``keys``: of this layer's
    dropouts, but for that of the attention weights.
    """
    B, T, C = x.shape
    bias = None if p.qkv_bias is None else torch.cat(p.qkv_bias)
    qkv = F.linear(rows, torch.cat(p.qkv), bias)
    q, k, v = qkv.view(B, T, 3, p.n_heads, C // p.n_heads).permute(2, 0, 3, 1, 4)  # [B, H, T, D]
    gathered = F.scaled_dot_product_attention(q, k, v, is_causal=True, dropout_p=rate)
    gathered = gathered.transpose(1, 2).reshape(B, T, C)
    x = x + dropout.dropped(F.linear(gathered, p.out, p.out_bias), keys[1], rate)
    wide = gelu(F.linear(normed(x, p.norm2), p.wide, p.wide_bias))
    x = x + dropout.dropped(F.linear(wide, p.narrow, p.narrow_bias), keys[2], rate)
    return x, normed(x, then)


def embed(
    ids: Tensor, tokens: Tensor, positions: Tensor, then: Norm, key: Tensor, rate: float
) -> tuple[Tensor, Tensor]:
    """Token ids [B, T] -> what the first block reads, [B, T, C], and its norm."""
    x = dropout.dropped(F.embedding(ids, tokens) + positions[: ids.shape[1]], key, rate)
    return x, normed(x, then)


def normed(x: Tensor, norm: Norm) -> Tensor:
    """In the products' type."""
    return F.layer_norm(x, x.shape[-1:], norm.scale, norm.shift, LayerNorm.eps).to(norm.dtype)


def gelu(x: Tensor) -> Tensor:
    """The tanh form, as x sigmoid(2z): a GPU has an instruction for exponentials, and none for this tanh."""
    wide = x.float()
    return (wide * torch.sigmoid(wide * (GELU_SLOPE + GELU_CUBE * wide * wide))).to(x.dtype)


def padded_head(weight: Tensor, dtype: torch.dtype) -> Tensor:
    """[V, C] -> [V padded, C] in the products' type."""
    return F.pad(weight.to(dtype), (0, 0, 0, padded(len(weight)) - len(weight)))


def softmax_gradient(logits: Tensor, vocab_size: int, share: float) -> Tensor:
    """``logits`` [N, V padded] become softmax times ``share``, 0 beyond the vocabulary; returns ``row_totals``."""
    totals = row_totals(logits, vocab_size)
    logits.copy_(torch.exp(_scores(logits, vocab_size) - totals[:, None]) * share)
    return totals


def row_totals(logits: Tensor, vocab_size: int) -> Tensor:
    """Each row's log of summed exponentials: [N, V padded] -> fp32 [N].

    Group by group, each held by the threads that read it, and then of the groups': a row as a whole would be read
    twice, or each maximum's exponentials be corrected by the next one's.
    """
    groups = _scores(logits, vocab_size).view(len(logits), -1, _GROUP if logits.shape[1] % _GROUP == 0 else LANES)
    return torch.logsumexp(torch.logsumexp(groups, -1), -1)


def _scores(logits: Tensor, vocab_size: int) -> Tensor:
    """In fp32, none where there is no token. int32: less for a kernel to do."""
    columns = torch.arange(logits.shape[1], dtype=torch.int32, device=logits.device)
    return torch.where(columns < vocab_size, logits.float(), float("-inf"))


_GROUP = 128  # numbers of a row whose exponentials are summed together; GPT-2's vocabulary, padded, is 393 times that


@dataclass
class _Functions:
    """The regions, compiled or as they are."""

    embed: Callable[..., tuple[Tensor, Tensor]] = embed
    block: Callable[..., tuple[Tensor, Tensor]] = block_forward
    padded_head: Callable[..., Tensor] = padded_head
    softmax_gradient: Callable[..., Tensor] = softmax_gradient
    row_totals: Callable[..., Tensor] = row_totals

    def compiled(self) -> _Functions:
        return _Functions(*(torch.compile(part, dynamic=False, fullgraph=True) for part in vars(self).values()))


def _in_pieces(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A function of rows, called with a thousand at a time: what is not compiled writes down every step on its way."""

    def called(logits: Tensor, *rest: Any) -> Tensor:
        return torch.cat([function(piece, *rest) for piece in logits.split(_ROWS)])

    return called


_ROWS = 1024
_PLAIN = _Functions(softmax_gradient=_in_pieces(softmax_gradient), row_totals=_in_pieces(row_totals))


class _HeadLoss(Function):
    """Rows [N, C] and the head's weights [V, C] to the mean cross-entropy, both gradients made on the way there."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, weight: Tensor, targets: Tensor, functions: _Functions) -> Tensor:
        head = functions.padded_head(weight, rows.dtype)
        logits = torch.mm(rows, head.t())
        share, every = 1 / len(rows), torch.arange(len(rows), device=rows.device)
        right = logits[every, targets].float()
        losses = functions.softmax_gradient(logits, len(weight), share) - right
        logits[every, targets] = ((torch.exp(-losses) - 1) * share).to(logits.dtype)
        ctx.save_for_backward(torch.mm(logits, head), torch.mm(logits.t(), rows)[: len(weight)])
        ctx.dtype = weight.dtype
        return losses.mean()

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, Tensor, None, None]:
        drows, dhead = ctx.saved_tensors
        return drows * slope, dhead.to(ctx.dtype).mul_(slope), None, None


class FusedLoss:
    """The mean cross-entropy of a batch, its gradients by autograd; the parameters are ``model``'s own.

    ``dtype``: of the products. The dropout masks follow from seed, step and number of the batch, but for those of the
    attention weights, which the kernel draws from the device's random stream.
    """

    def __init__(self, model: GPTModel, dtype: torch.dtype = torch.bfloat16, seed: int = 0) -> None:
        self.model, self.dtype, self.seed = model, dtype, seed
        self.functions = _PLAIN
        self.shape: tuple[int, int] | None = None  # the batch shape that is compiled for
        self._blocks = [self._parameters(block) for block in model.trf_blocks]
        first, *others = [self._norm(block.norm1) for block in model.trf_blocks] + [self._norm(model.final_norm)]
        self._first_norm, self._next_norms = first, others

    def __call__(self, ids: Tensor, targets: Tensor, step: int = 0, number: int = 0) -> Tensor:
        """Token ids [B, T] and the tokens after each -> a scalar. Dropout follows the model's mode."""
        soon = ids.device.type == "cuda"  # which puts them aside at once; others would read them when they are gone
        return self.with_keys(ids, targets, self.keys(step, number).to(ids.device, non_blocking=soon))

    def keys(self, step: int, number: int) -> Tensor:
        """Of the masks of the ``number``-th batch of a step: int32 [n_layers + 1, SITES, 2], the embedding's last."""
        layers, first = dropout.keys(self.seed, step, number, self.model.config.n_layers)
        return torch.cat([layers, first.expand(1, *layers.shape[1:])])

    def with_keys(self, ids: Tensor, targets: Tensor, keys: Tensor) -> Tensor:
        """The loss, its masks made from ``keys``, on the device. Nothing waits for the device, nothing is read back."""
        model = self.model
        f = self.functions if self.shape == tuple(ids.shape) else _PLAIN
        rate = model.config.drop_rate if model.training else 0.0
        layers, first = keys[:-1], keys[-1, 0]
        with torch.autocast(ids.device.type, dtype=torch.bfloat16, enabled=self.dtype == torch.bfloat16):
            x, rows = f.embed(ids, model.tok_emb.weight, model.pos_emb.weight, self._first_norm, first, rate)
            for parameters, then, own in zip(self._blocks, self._next_norms, layers.unbind(0), strict=True):
                x, rows = f.block(x, rows, parameters, then, own, rate)
            rows = rows.view(-1, rows.shape[-1])  # [N, C]
            weight, wanted = model.out_head.weight, targets.flatten()
            if torch.is_grad_enabled():
                return _HeadLoss.apply(rows, weight, wanted, f)
            logits = torch.mm(rows, f.padded_head(weight, self.dtype).t())
            right = logits.gather(1, wanted[:, None])[:, 0].float()
            return (f.row_totals(logits, len(weight)) - right).mean()

    def compile(self, batch_size: int, n_tokens: int) -> None:
        """Compile for batches of that shape, by making a loss with gradients and one without.

        Whatever the compiler raises is the caller's to catch; the loss then works as before.
        """
        device = self.model.tok_emb.weight.device
        ids = torch.zeros(batch_size, n_tokens, dtype=torch.long, device=device)
        self.functions, self.shape = _Functions().compiled(), (batch_size, n_tokens)
        try:
            with compiler(), functorch.patch(ban_recompute_used_far_apart=False):  # masks are made again, not kept
                self(ids, ids).backward()
                with evaluating(self.model), torch.no_grad():
                    self(ids, ids)
        except BaseException:
            self.functions, self.shape = _PLAIN, None
            raise
        finally:
            self.model.zero_grad(set_to_none=True)

    def _norm(self, norm: Any) -> Norm:
        return Norm(norm.scale, norm.shift, self.dtype)

    def _parameters(self, block: Any) -> BlockParameters:
        att, wide, narrow = block.att, block.ff.layers[0], block.ff.layers[2]
        query, key, value = att.W_query, att.W_key, att.W_value
        return BlockParameters(
            n_heads=att.n_heads,
            qkv=(query.weight, key.weight, value.weight),
            qkv_bias=None if query.bias is None else (query.bias, key.bias, value.bias),
            out=att.out_proj.weight,
            out_bias=att.out_proj.bias,
            norm2=self._norm(block.norm2),
            wide=wide.weight,
            wide_bias=wide.bias,
            narrow=narrow.weight,
            narrow_bias=narrow.bias,
        )
