"""How well a model knows a text of any length: the surprise at each token, perplexity and bits per character."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from gptlab.model import GPTModel, evaluating
from gptlab.sampling import checked_ids
from gptlab.tokenizer import text_to_token_ids, token_ids_to_text

_ROWS = 256  # positions whose logits exist at once


@dataclass(frozen=True, eq=False)
class TextScore:
    """``ids`` [n] and the ``losses`` [n - 1] (nats, fp32) at each of them but the first, which nothing comes before.

    ``characters`` counts those of the scored tokens, as they are shown.
    """

    ids: Tensor = field(repr=False)
    losses: Tensor = field(repr=False)
    characters: int

    @property
    def loss(self) -> float:
        """Mean loss, nats a token."""
        return float(self.losses.double().mean())

    @property
    def perplexity(self) -> float:
        """The exponential of the mean loss: among how many equally likely tokens the model wavers."""
        return math.exp(min(self.loss, 700.0))

    @property
    def bits_per_character(self) -> float:
        """All losses in bits, over the characters of the scored tokens: comparable between tokenizers."""
        return float(self.losses.double().sum()) / math.log(2) / max(1, self.characters)


def score_text(
    model: GPTModel, text: str, stride: int | None = None, progress: Callable[[float], None] | None = None
) -> TextScore:
    """Score a text: see ``score_ids``. ValueError: it has fewer than two tokens."""
    return score_ids(model, text_to_token_ids(text)[0], stride, progress)


def score_ids(
    model: GPTModel,
    ids: Tensor | Sequence[int],
    stride: int | None = None,
    progress: Callable[[float], None] | None = None,
) -> TextScore:
    """The loss at each token of ``ids`` ([n], [1, n] or a list; n from 2 up) but the first.

    Windows of ``context_length`` slide by ``stride`` tokens (default: half of it). The first window scores all its
    tokens, each later one its last ``stride``: every token but those of the first window is predicted from at least
    ``context_length - stride`` tokens before it. A text within one window has the losses of ``token_losses``.
    ``progress`` is told the share that is done, rising to 1.0. ValueError: too few tokens, or a stride out of bounds.
    """
    T = model.config.context_length
    stride = max(1, T // 2) if stride is None else stride
    if not 1 <= stride <= T:
        raise ValueError(f"stride is {stride:,}: it must be 1 to context_length {T:,}.")
    passage = torch.tensor(checked_ids(model, ids))
    n = len(passage)
    if n < 2:
        raise ValueError("The text is one token or none: nothing comes before it; give two tokens or more.")
    parts = []
    begin = done = 0  # the window's start, and how many of the losses are there
    while done < n - 1:
        end = min(begin + T, n - 1)
        parts.append(_last_losses(model, passage[begin : end + 1], end - done))
        begin, done = begin + min(stride, max(1, n - 1 - end)), end
        if progress:
            progress(done / (n - 1))
    losses = torch.cat(parts)
    return TextScore(passage, losses, len(token_ids_to_text(passage[1:])))


def _last_losses(model: GPTModel, window: Tensor, count: int) -> Tensor:
    """The losses at the last ``count`` tokens of ``window`` [T + 1]."""
    device = model.tok_emb.weight.device
    with evaluating(model), torch.inference_mode():
        rows = model.features(window[None, :-1].to(device))[0, -count:]  # [count, C]
        targets = window[-count:].to(device)
        parts = [
            F.cross_entropy(model.out_head(some).float(), wanted, reduction="none").cpu()
            for some, wanted in zip(rows.split(_ROWS), targets.split(_ROWS), strict=True)
        ]
    return torch.cat(parts)
