"""The parts of a block with backward passes of their own, written so that a compiler can fuse what is between products.

Each does what the part of the same name in ``gptlab.model`` does. What is special is what they keep and in which order
they read it: on a CPU a block's time beyond its matrix products is memory traffic. Products run in the type of the
weight matrices (bf16 or fp32), everything else in fp32. Vectors (norms, biases) are always fp32.

Shapes: N = B * T rows of tokens, M = B * H attention heads, T tokens, C embedding, D head size.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from gptlab.fast.dropout import dropped, multiplier

_EPS = 1e-5
# gelu(x) = x sigmoid(x (slope + cube x^2))
GELU_SLOPE, GELU_CUBE = 2 * math.sqrt(2 / math.pi), 2 * math.sqrt(2 / math.pi) * 0.044715


def column_sums(x: Tensor) -> Tensor:
    """[N, C] -> [C], fp32: as a product with ones, because compiled sums along columns read memory across its grain."""
    return torch.mm(torch.ones(1, x.shape[0], dtype=x.dtype), x)[0].float()


class Linear(Function):
    """x [N, C] times w [K, C] transposed, no bias -> [N, K]."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor) -> Tensor:
        ctx.save_for_backward(x, w)
        return torch.mm(x, w.t())

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, Tensor]:
        x, w = ctx.saved_tensors
        return torch.mm(dy, w), torch.mm(dy.t(), x)


class Norm(Function):
    """LayerNorm of x [B, T, C] (fp32), the result in the products' type as rows [N, C]."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, shift: Tensor, dtype: torch.dtype) -> Tensor:
        mean = x.mean(-1, keepdim=True)
        centred = x - mean
        deviation = torch.rsqrt((centred * centred).mean(-1, keepdim=True) + _EPS)
        ctx.save_for_backward(x, scale, mean, deviation)
        return (centred * deviation * scale + shift).to(dtype).view(-1, x.shape[-1])

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        x, scale, mean, deviation = ctx.saved_tensors
        C = x.shape[-1]
        dy = dy.view(x.shape).float()
        normal = (x - mean) * deviation
        g = dy * scale
        dx = deviation * (g - g.mean(-1, keepdim=True) - normal * (g * normal).mean(-1, keepdim=True))
        return dx, column_sums((dy * normal).view(-1, C)), column_sums(dy.view(-1, C)), None


class BiasGelu(Function):
    """GELU (tanh form) of u + bias, u [N, 4C]. x (1 + tanh z) / 2 is x sigmoid(2z), one exponential less."""

    @staticmethod
    def forward(ctx: Any, u: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(u, bias)
        x = u + bias
        return (x * torch.sigmoid(x * (GELU_SLOPE + GELU_CUBE * x * x))).to(u.dtype)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, Tensor]:
        u, bias = ctx.saved_tensors
        x = u + bias
        cube = GELU_CUBE * x * x
        s = torch.sigmoid(x * (GELU_SLOPE + cube))
        du = (dy * s * (1 + x * (1 - s) * (GELU_SLOPE + 3 * cube))).to(u.dtype)
        return du, column_sums(du)


class Bias(Function):
    """y [N, K] + bias, back in y's type."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, bias: Tensor) -> Tensor:
        return (y + bias).to(y.dtype)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, Tensor]:
        return dy, column_sums(dy)


class Dropout(Function):
    """Dropout of x [B, T, C] (fp32)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, key: Tensor, rate: float) -> Tensor:
        ctx.save_for_backward(key)
        ctx.rate = rate
        return dropped(x, key, rate)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, None, None]:
        return dropped(dy, ctx.saved_tensors[0], ctx.rate), None, None


class Residual(Function):
    """x [B, T, C] (fp32) + dropout(y + bias), y [N, C] in the products' type."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, bias: Tensor, key: Tensor, rate: float) -> Tensor:
        ctx.save_for_backward(key)
        ctx.rate, ctx.dtype = rate, y.dtype
        return x + dropped(y + bias, key, rate).view(x.shape)

    @staticmethod
    def backward(ctx: Any, dx: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        dy = dropped(dx.reshape(-1, dx.shape[-1]), ctx.saved_tensors[0], ctx.rate).to(ctx.dtype)
        return dx, dy, column_sums(dy), None, None


class Attention(Function):
    """Causal attention, q, k and v [M, T, D] -> [M, T, D], with dropout on the weights.

    Kept for the way back: the scores and the dropped weights as they went into the products, and the logarithm of each
    row's sum. A row's sum of weight times gradient is the output times its gradient (Dao et al. 2022, section 3.1).
    """

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, key: Tensor, rate: float) -> Tensor:
        M, T, D = q.shape
        raw = torch.bmm(q, k.transpose(1, 2))  # [M, T, T]
        scores = torch.where(_causal(T), raw * (1 / math.sqrt(D)), float("-inf")).float()
        highest = scores.amax(-1, keepdim=True)
        powers = torch.exp(scores - highest)  # written out: each is taken once, where logsumexp and exp take two
        sums = powers.sum(-1, keepdim=True)
        weights, total = powers * (1 / sums), highest + torch.log(sums)  # total: [M, T, 1]
        if rate:
            weights = weights * multiplier(M * T, T, key, rate).view(M, T, T)
        weights = weights.to(q.dtype)
        out = torch.bmm(weights, v)
        ctx.save_for_backward(q, k, v, raw, weights, total, out)
        ctx.rate = rate
        return out

    @staticmethod
    def backward(ctx: Any, dout: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        q, k, v, raw, weights, total, out = ctx.saved_tensors
        T, D = q.shape[1:]
        dv = torch.bmm(weights.transpose(1, 2), dout)
        dweights = torch.bmm(dout, v.transpose(1, 2)).float()
        if ctx.rate:
            dweights = torch.where(weights != 0, dweights * (1 / (1 - ctx.rate)), 0.0)
        share = (dout.float() * out).sum(-1, keepdim=True)  # [M, T, 1]
        undropped = torch.where(_causal(T), torch.exp(raw * (1 / math.sqrt(D)) - total), 0.0)
        draw = (undropped * (dweights - share) * (1 / math.sqrt(D))).to(q.dtype)
        return torch.bmm(draw, k), torch.bmm(draw.transpose(1, 2), q), dv, None, None


def _causal(T: int) -> Tensor:
    """[T, T]: whether the row's token sees the column's."""
    i = torch.arange(T, dtype=torch.int32)
    return i[:, None] >= i[None, :]
