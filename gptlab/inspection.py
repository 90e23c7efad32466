"""Inside one prediction: what a model reads off a passage, layer by layer and position by position.

``Trace`` runs a passage through the textbook model once and keeps the residual stream of every layer; everything else
is computed from that on demand. Logits are made for a few positions at a time: never all layers' or all positions'.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from gptlab.distribution import entropy
from gptlab.model import GPTModel, TransformerBlock, evaluating
from gptlab.sampling import checked_ids

_ROWS = 256  # rows of logits that exist at once: 51 MB of GPT-2's vocabulary; fewer read the head more often


class TokenGuess(NamedTuple):
    """A token and its probability."""

    id: int
    probability: float


@dataclass(frozen=True, eq=False)
class NextToken:
    """What follows a passage: the ``top`` guesses, likeliest first, the entropy (nats), and ``logits`` [V], fp32."""

    top: tuple[TokenGuess, ...]
    entropy: float
    logits: Tensor


@dataclass(frozen=True, eq=False)
class PassageReading:
    """How a passage of T tokens reads to a model. Row t of what has T rows is what is said after token t.

    ``surprise`` [T - 1]: nats at each token but the first; their mean is the loss of that window. ``rank`` [T - 1]: how
    many tokens were thought likelier. ``top_ids`` and ``top_probabilities`` [T, k]: the likeliest next tokens.
    ``entropy`` [T], nats. ``logits`` [V]: of the token after the last. All on the CPU.
    """

    ids: Tensor
    surprise: Tensor
    rank: Tensor
    top_ids: Tensor
    top_probabilities: Tensor
    entropy: Tensor
    logits: Tensor

    def guesses(self, position: int) -> tuple[TokenGuess, ...]:
        """The likeliest tokens to follow token ``position``."""
        row = zip(self.top_ids[position].tolist(), self.top_probabilities[position].tolist(), strict=True)
        return tuple(TokenGuess(*guess) for guess in row)


@dataclass(frozen=True, eq=False)
class LogitLens:
    """What each layer would say: ``top_ids`` and ``top_probabilities`` [L + 1, P, k] at ``positions`` [P].

    Row 0 is the embeddings before any layer, row l the residual stream after layer l, row L the model's own answer.
    ``actual_probability`` [L + 1, P]: of the token that does follow in the passage; NaN after the last one.
    """

    positions: Tensor
    top_ids: Tensor
    top_probabilities: Tensor
    actual_probability: Tensor


class Trace:
    """One pass of token ids [T] through a model: ``streams`` [L + 1, T, C], what each layer reads and the last writes.

    The parameters must stay as they are while it is in use. Several threads may trace one model.
    """

    def __init__(self, model: GPTModel, ids: Tensor | Sequence[int]) -> None:
        """ValueError: no token at all where the vocabulary has no <|endoftext|>, more than ``context_length``, or
        ids outside the vocabulary. An empty passage is <|endoftext|>."""
        passage = checked_ids(model, ids)
        T, longest = len(passage), model.config.context_length
        if longest < T:
            raise ValueError(
                f"A passage of {T:,} tokens is more than context_length {longest:,}: give its last {longest:,}."
            )
        self.model, self.ids = model, torch.tensor(passage)
        with evaluating(model), torch.inference_mode():
            read = self.ids.to(model.tok_emb.weight.device)
            x = (model.tok_emb(read) + model.pos_emb.weight[:T])[None]  # [1, T, C]
            streams = [x[0]]
            for block in model.trf_blocks:
                x = block(x)
                streams.append(x[0])
            self.streams = torch.stack(streams)

    def logits(self, layer: int | None = None, positions: Sequence[int] | slice = slice(None)) -> Tensor:
        """What the last norm and the head make of the stream after ``layer`` (default: the last): [P, V], fp32."""
        with torch.inference_mode():
            stream = self.streams[-1 if layer is None else layer]
            rows = stream[positions] if isinstance(positions, slice) else stream[list(positions)]
            return self.model.out_head(self.model.final_norm(rows)).float()

    def next_token(self, top: int = 20) -> NextToken:
        """What follows the passage."""
        with torch.inference_mode():
            logits = self.logits(positions=[-1])[0].cpu()
            chances = logits.softmax(-1)
            best = chances.topk(min(top, len(chances)))
        guesses = zip(best.indices.tolist(), best.values.tolist(), strict=True)
        return NextToken(tuple(TokenGuess(*guess) for guess in guesses), entropy(chances), logits)

    def reading(self, top: int = 5) -> PassageReading:
        """Surprise, rank and the likeliest tokens at every position."""
        T, parts = len(self.ids), []
        with torch.inference_mode():
            for begin in range(0, T, _ROWS):
                logits = self.logits(positions=slice(begin, begin + _ROWS))  # [P, V]
                following = self.ids[begin + 1 : begin + 1 + len(logits)].to(logits.device)
                parts.append([part.cpu() for part in _read_rows(logits, following, top)])
            last = logits[-1].cpu()
        surprise, rank, top_ids, chances, spread = (torch.cat(column) for column in zip(*parts, strict=True))
        return PassageReading(self.ids, surprise, rank, top_ids, chances, spread, last)

    def attention(self, layer: int, queries: slice = slice(None)) -> Tensor:
        """Where ``layer`` (0 is the first) looks: [H, Q, T], fp32 on the CPU; each row sums to 1, none looks ahead."""
        block, H = cast(TransformerBlock, self.model.trf_blocks[layer]), self.model.config.n_heads
        T, C = self.streams.shape[1:]
        with torch.inference_mode():
            x = block.norm1(self.streams[layer])  # [T, C]
            q = block.att.W_query(x[queries]).view(-1, H, C // H).transpose(0, 1)  # [H, Q, D]
            k = block.att.W_key(x).view(T, H, C // H).transpose(0, 1)  # [H, T, D]
            places = torch.arange(T, device=x.device)
            scores = (q @ k.mT).masked_fill(places > places[queries, None], -math.inf)
            return (scores / math.sqrt(C // H)).softmax(-1).float().cpu()

    def attention_maps(self, layers: Sequence[int] | None = None) -> Tensor:
        """Attention of some layers (default: all) [L, H, T, T], 4 L H T T bytes."""
        wanted = range(len(self.model.trf_blocks)) if layers is None else layers
        return torch.stack([self.attention(layer) for layer in wanted])

    def attention_from(self, position: int) -> Tensor:
        """Where every layer and head looks from ``position``: [L, H, T]. The token after it is predicted by that."""
        position = range(len(self.ids))[position]
        rows = [self.attention(layer, slice(position, position + 1))[:, 0] for layer in range(len(self.streams) - 1)]
        return torch.stack(rows)

    def lens(self, top: int = 5, positions: Sequence[int] | None = None) -> LogitLens:
        """The logit lens (nostalgebraist 2020) at ``positions`` (default: all of them, L times the work of reading)."""
        places = list(range(len(self.ids)))
        places = places if positions is None else [places[place] for place in positions]
        layers, parts = len(self.streams), []
        with torch.inference_mode():
            for some in torch.tensor(places).split(max(1, _ROWS // layers)):
                rows = self.model.final_norm(self.streams[:, some])  # [L + 1, P, C]
                logs = self.model.out_head(rows).float().log_softmax(-1)
                best = logs.topk(min(top, logs.shape[-1]))
                following = self._following[some].to(logs.device)[None, :, None].expand(layers, -1, 1)
                actual = logs.gather(-1, following.clamp_min(0)).masked_fill(following < 0, math.nan)
                parts.append((best.indices.cpu(), best.values.exp().cpu(), actual.exp()[..., 0].cpu()))
        ids, chances, actual = (torch.cat(column, 1) for column in zip(*parts, strict=True))
        return LogitLens(torch.tensor(places), ids, chances, actual)

    @cached_property
    def _following(self) -> Tensor:
        """The token after each position [T]; -1 after the last."""
        return torch.cat([self.ids[1:], torch.tensor([-1])])


def _read_rows(logits: Tensor, following: Tensor, top: int) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Surprise and rank of ``following`` [F], and the likeliest tokens and entropies of logits [P, V], F of P rows."""
    logs = logits.log_softmax(-1)
    best = logs.topk(min(top, logs.shape[-1]))
    told = logs[: len(following)]
    own = told.gather(-1, following[:, None])
    surprise = F.nll_loss(told, following, reduction="none")
    rank = (told > own).sum(-1, dtype=torch.int32)
    spread = -logs.exp().mul_(logs).sum(-1)
    return surprise, rank, best.indices, best.values.exp(), spread


def next_token_distribution(model: GPTModel, ids: Tensor | Sequence[int], top: int = 20) -> NextToken:
    """What ``model`` says follows ``ids`` ([T], [1, T] or a list; T up to ``context_length``)."""
    return Trace(model, ids).next_token(top)


def read_passage(model: GPTModel, ids: Tensor | Sequence[int], top: int = 5) -> PassageReading:
    """Surprise and the ``top`` predictions at every position of ``ids`` (T up to ``context_length``)."""
    return Trace(model, ids).reading(top)


def attention_maps(model: GPTModel, ids: Tensor | Sequence[int], layers: Sequence[int] | None = None) -> Tensor:
    """Where each head looks: [L, H, T, T] (layer, head, from, to), fp32; rows sum to 1, and none looks ahead.

    ``layers``: some of them only, counted from 0. For 124M weights and 1,024 tokens all of them take 0.6 GB.
    """
    return Trace(model, ids).attention_maps(layers)


def logit_lens(
    model: GPTModel, ids: Tensor | Sequence[int], top: int = 5, positions: Sequence[int] | None = None
) -> LogitLens:
    """What each layer would say at ``positions`` of ``ids`` (default: all): [L + 1, P, top]; see ``LogitLens``."""
    return Trace(model, ids).lens(top, positions)
