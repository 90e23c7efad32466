"""GPT-2's shape in plain PyTorch: the whole model, from token ids to logits.

Sources: Radford et al. 2019, "Language Models are Unsupervised Multitask Learners" (pre-norm blocks, the 0.02 and
1/sqrt(2 x layers) initialisation); Vaswani et al. 2017, "Attention Is All You Need"; Hendrycks & Gimpel 2016 (GELU).

Shape letters, here and everywhere: B batch, T tokens, C embedding (``emb_dim``), H heads, D = C / H head size,
V vocabulary, S tokens that can be attended to (T, and those in the cache before them).

Names of parameters, the order in which parts are built (and so random numbers drawn) and the order of the arithmetic
are the reference exercise's: with ``init="torch"`` a seed gives its weights, and fp32 on a CPU its losses and
gradients, bit for bit. Another order within an expression is another order in which gradients are added up.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from gptlab.config import ModelConfig


class KVCache:
    """Keys and values of the tokens already read, for decoding one token at a time.

    Room for them is made once, up front. Gradients do not flow through them.
    """

    def __init__(self, model: GPTModel, batch_size: int = 1, length: int | None = None) -> None:
        config, weight = model.config, model.tok_emb.weight
        length = config.context_length if length is None else min(length, config.context_length)
        shape = (config.n_layers, 2, batch_size, config.n_heads, length, config.head_dim)
        self.store = torch.empty(shape, dtype=weight.dtype, device=weight.device)
        self.length = 0

    def extend(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Put ``k`` and ``v`` [B, H, T, D] behind those of this layer; return all of them, [B, H, S, D] each."""
        keys, values = self.store[layer, 0], self.store[layer, 1]
        end = self.length + k.shape[2]
        keys[:, :, self.length : end] = k.detach()
        values[:, :, self.length : end] = v.detach()
        return keys[:, :, :end], values[:, :, :end]


class LayerNorm(nn.Module):
    """Zero mean and unit variance over the embedding, then a learnt scale and shift (Ba et al. 2016)."""

    eps = 1e-5

    def __init__(self, emb_dim: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(emb_dim))
        self.shift = nn.Parameter(torch.zeros(emb_dim))

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean(-1, keepdim=True)
        variance = x.var(-1, keepdim=True, unbiased=False)
        return self.scale * ((x - mean) / torch.sqrt(variance + self.eps)) + self.shift


class GELU(nn.Module):
    """x times the normal distribution function at x (Hendrycks & Gimpel 2016), in GPT-2's tanh approximation."""

    def forward(self, x: Tensor) -> Tensor:
        return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * torch.pow(x, 3))))


class FeedForward(nn.Module):
    """Each token on its own: four times wider, GELU, and back."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width = config.emb_dim
        self.layers = nn.Sequential(nn.Linear(width, 4 * width), GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class MultiHeadAttention(nn.Module):
    """Causal self-attention: each token gathers from itself and those before it, in H places at once."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        C, bias = config.emb_dim, config.qkv_bias
        self.n_heads = config.n_heads
        self.W_query = nn.Linear(C, C, bias=bias)
        self.W_key = nn.Linear(C, C, bias=bias)
        self.W_value = nn.Linear(C, C, bias=bias)
        self.out_proj = nn.Linear(C, C)
        self.dropout = nn.Dropout(config.drop_rate)

    def forward(self, x: Tensor, cache: KVCache | None = None, layer: int = 0) -> Tensor:
        B, T, C = x.shape
        k, q, v = (  # in this order the gradients of x are added up as the reference adds them, bit for bit
            part(x).view(B, T, self.n_heads, C // self.n_heads).transpose(1, 2)  # [B, H, T, D]
            for part in (self.W_key, self.W_query, self.W_value)
        )
        if cache is not None:
            k, v = cache.extend(layer, k, v)  # [B, H, S, D]
        S = k.shape[2]
        scores = q @ k.mT  # [B, H, T, S]
        if T > 1:
            future = torch.ones(T, S, dtype=torch.bool, device=x.device).triu(S - T + 1)
            scores = scores.masked_fill(future, -math.inf)
        weights = self.dropout(torch.softmax(scores / math.sqrt(k.shape[-1]), dim=-1))
        gathered = (weights @ v).transpose(1, 2).reshape(B, T, C)
        return self.out_proj(gathered)


class TransformerBlock(nn.Module):
    """Pre-norm block: x + attention(norm(x)), then x + feed-forward(norm(x)), each with dropout before the sum."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.att = MultiHeadAttention(config)
        self.ff = FeedForward(config)
        self.norm1 = LayerNorm(config.emb_dim)
        self.norm2 = LayerNorm(config.emb_dim)
        self.drop = nn.Dropout(config.drop_rate)

    def forward(self, x: Tensor, cache: KVCache | None = None, layer: int = 0) -> Tensor:
        x = self.drop(self.att(self.norm1(x), cache, layer)) + x
        return self.drop(self.ff(self.norm2(x))) + x


class GPTModel(nn.Module):
    """Token and position embeddings, ``n_layers`` blocks, a last norm, and a head that scores every next token."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.tok_emb = nn.Embedding(config.vocab_size, config.emb_dim)
        self.pos_emb = nn.Embedding(config.context_length, config.emb_dim)
        self.drop_emb = nn.Dropout(config.drop_rate)
        self.trf_blocks = nn.ModuleList(TransformerBlock(config) for _ in range(config.n_layers))
        self.final_norm = LayerNorm(config.emb_dim)
        self.out_head = nn.Linear(config.emb_dim, config.vocab_size, bias=False)
        if config.init == "gpt2":
            self._initialise_as_gpt2()
        self.tie_weights()

    def tie_weights(self) -> None:
        """Make the head the token embedding itself, where the configuration says so (Press & Wolf 2017)."""
        if self.config.tie_weights:
            self.out_head.weight = self.tok_emb.weight

    def _initialise_as_gpt2(self) -> None:
        """Every matrix normal(0, 0.02), biases zero; layers that write to the residual stream narrower by sqrt(2L)."""
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=0.02)
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)
        for name, parameter in self.named_parameters():
            if name.endswith(("att.out_proj.weight", "ff.layers.2.weight")):
                nn.init.normal_(parameter, std=0.02 / math.sqrt(2 * self.config.n_layers))

    @property
    def n_parameters(self) -> int:
        """Trainable numbers; a tied head counts once."""
        return sum(parameter.numel() for parameter in self.parameters())

    def features(self, ids: Tensor, cache: KVCache | None = None) -> Tensor:
        """What the head reads: token ids [B, T] -> [B, T, C]. With a cache, ``ids`` follow the tokens in it."""
        start = 0 if cache is None else cache.length
        T = ids.shape[1]
        if start + T > self.config.context_length:
            raise ValueError(
                f"{start + T:,} tokens are more than context_length {self.config.context_length:,}: "
                "give the model fewer tokens."
            )
        x = self.tok_emb(ids) + self.pos_emb(torch.arange(start, start + T, device=ids.device))  # [B, T, C]
        x = self.drop_emb(x)
        for layer, block in enumerate(self.trf_blocks):
            x = block(x, cache, layer)
        if cache is not None:
            cache.length += T
        return self.final_norm(x)

    def forward(self, ids: Tensor, cache: KVCache | None = None) -> Tensor:
        """Token ids [B, T], T at most ``context_length`` -> logits [B, T, V] of the token after each."""
        return self.out_head(self.features(ids, cache))


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Dropout off inside the block; every part is given back the mode it had."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
