"""The exercise done the straightforward way, as its reader would write it: what everything here is measured against.

Separate query, key and value layers, a mask kept as a buffer, LayerNorm and GELU spelt out, the default AdamW, logits
for every position, and a decoding loop that reads the whole text again for every token. All in fp32, nothing compiled.
The arithmetic stands in the exercise's order, so that the tests can take it for the exercise on the machine at hand.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn as nn
from torch import Tensor


@dataclass(frozen=True)
class Shape:
    vocab_size: int = 50257
    context_length: int = 256
    emb_dim: int = 768
    n_heads: int = 12
    n_layers: int = 12
    drop_rate: float = 0.1
    qkv_bias: bool = False


class LayerNorm(nn.Module):
    def __init__(self, emb_dim: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(emb_dim))
        self.shift = nn.Parameter(torch.zeros(emb_dim))

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean(dim=-1, keepdim=True)
        variance = x.var(dim=-1, keepdim=True, unbiased=False)
        return self.scale * ((x - mean) / torch.sqrt(variance + 1e-5)) + self.shift


class GELU(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


class Attention(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        width, bias = shape.emb_dim, shape.qkv_bias
        self.n_heads, self.head_dim = shape.n_heads, width // shape.n_heads
        self.query = nn.Linear(width, width, bias=bias)
        self.key = nn.Linear(width, width, bias=bias)
        self.value = nn.Linear(width, width, bias=bias)
        self.out = nn.Linear(width, width)
        self.dropout = nn.Dropout(shape.drop_rate)
        length = shape.context_length
        self.mask: Tensor
        self.register_buffer("mask", torch.triu(torch.ones(length, length), diagonal=1))

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        k, q, v = (
            layer(x).view(batch, length, self.n_heads, self.head_dim).transpose(1, 2)
            for layer in (self.key, self.query, self.value)
        )
        scores = q @ k.transpose(2, 3)
        scores.masked_fill_(self.mask.bool()[:length, :length], -torch.inf)
        weights = self.dropout(torch.softmax(scores / self.head_dim**0.5, dim=-1))
        gathered = (weights @ v).transpose(1, 2).contiguous().view(batch, length, width)
        return self.out(gathered)


class Block(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        width = shape.emb_dim
        self.attention = Attention(shape)
        self.feed_forward = nn.Sequential(nn.Linear(width, 4 * width), GELU(), nn.Linear(4 * width, width))
        self.norm1, self.norm2 = LayerNorm(width), LayerNorm(width)
        self.dropout = nn.Dropout(shape.drop_rate)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.dropout(self.attention(self.norm1(x)))
        return x + self.dropout(self.feed_forward(self.norm2(x)))


class PlainGPT(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.tokens = nn.Embedding(shape.vocab_size, shape.emb_dim)
        self.positions = nn.Embedding(shape.context_length, shape.emb_dim)
        self.dropout = nn.Dropout(shape.drop_rate)
        self.blocks = nn.Sequential(*(Block(shape) for _ in range(shape.n_layers)))
        self.norm = LayerNorm(shape.emb_dim)
        self.head = nn.Linear(shape.emb_dim, shape.vocab_size, bias=False)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.tokens(ids) + self.positions(torch.arange(ids.shape[1], device=ids.device))
        return self.head(self.norm(self.blocks(self.dropout(x))))


def loss_of(model: PlainGPT, inputs: Tensor, targets: Tensor) -> Tensor:
    return nn.functional.cross_entropy(model(inputs).flatten(0, 1), targets.flatten())


def make_optimizer(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW(model.parameters(), lr=4e-4, weight_decay=0.1)


def train_step(model: PlainGPT, optimizer: torch.optim.Optimizer, inputs: Tensor, targets: Tensor) -> Tensor:
    optimizer.zero_grad()
    loss = loss_of(model, inputs, targets)
    loss.backward()
    optimizer.step()
    return loss


def mean_loss(model: PlainGPT, batches: list[tuple[Tensor, Tensor]], limit: int) -> float:
    """Mean of the first batches' losses, dropout off."""
    model.eval()
    with torch.no_grad():
        losses = [loss_of(model, inputs, targets).item() for inputs, targets in batches[:limit]]
    model.train()
    return sum(losses) / len(losses)


def greedy(model: PlainGPT, ids: Tensor, n_new: int) -> Tensor:
    """[1, n] -> [1, n + n_new]: the whole text, cropped to the context, is read again for every token."""
    model.eval()
    for _ in range(n_new):
        with torch.no_grad():
            logits = model(ids[:, -model.shape.context_length :])[:, -1]
        ids = torch.cat((ids, logits.argmax(dim=-1, keepdim=True)), dim=1)
    model.train()
    return ids


def reference_run(shape: Shape, train: Tensor, val: Tensor, prompt: Tensor, epochs: int = 10) -> list[tuple]:
    """The whole exercise on two token sequences: (step, train loss, val loss) every 5 steps, a sample an epoch."""
    torch.manual_seed(123)
    model = PlainGPT(shape)
    optimizer = make_optimizer(model)
    train_batches, val_batches = (_batches(part, shape.context_length) for part in (train, val))
    log, step = [], 0
    for _ in range(epochs):
        for index in torch.randperm(len(train_batches)).tolist():
            train_step(model, optimizer, *train_batches[index])
            if step % 5 == 0:
                log.append((step, mean_loss(model, train_batches, 5), mean_loss(model, val_batches, 5)))
            step += 1
        greedy(model, prompt, 50)
    return log


def _batches(ids: Tensor, length: int, size: int = 2) -> list[tuple[Tensor, Tensor]]:
    starts = range(0, len(ids) - length, length)
    windows = [(ids[i : i + length], ids[i + 1 : i + length + 1]) for i in starts]
    groups = [windows[i : i + size] for i in range(0, len(windows), size)]
    return [(torch.stack([x for x, _ in g]), torch.stack([y for _, y in g])) for g in groups if len(g) == size]
