"""Beam search: the continuation that is likeliest as a whole, as far as a few beams see it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from gptlab.fast.decoding import check_weights
from gptlab.model import GPTModel
from gptlab.sampling import Decoder, checked_ids
from gptlab.tokenizer import END_OF_TEXT_ID

MOST_BEAMS = 64
MOST_TOKENS = 100_000


class Beam(NamedTuple):
    """One continuation: its new tokens, the log probability of all of them together (nats) and its score."""

    ids: tuple[int, ...]
    logprob: float
    score: float


def beam_search(
    model: GPTModel,
    ids: Tensor | Sequence[int],
    n_beams: int = 4,
    max_new_tokens: int = 50,
    length_penalty: float = 1.0,
    *,
    stop_at_end: bool = True,
    weights: str = "fp32",
) -> list[Beam]:
    """The best ``n_beams`` continuations found of ``ids`` ([1, n], [n] or a list), the highest score first.

    At each token the ``n_beams`` likeliest texts go on; the score is ``logprob / length ** length_penalty`` (Wu et al.
    2016; 0: the plain sum, above 0 longer texts gain), where the length counts new tokens. A text that ends in
    <|endoftext|> leaves the beam (with ``stop_at_end``), and the search ends with ``n_beams`` such texts or after
    ``max_new_tokens``. One beam is greedy. ValueError: a number out of its bounds, or a prompt that cannot be read.
    """
    for name, value, least, most in (
        ("n_beams", n_beams, 1, MOST_BEAMS),
        ("max_new_tokens", max_new_tokens, 0, MOST_TOKENS),
    ):
        if not least <= value <= most:
            raise ValueError(f"{name} is {value:,}: it must be {least} to {most:,}.")
    prompt = checked_ids(model, ids)
    decoder = Decoder(model, len(prompt) + max_new_tokens, check_weights(weights, model))
    live: list[tuple[list[int], float]] = [([], 0.0)]
    ended: list[tuple[list[int], float]] = []
    for _ in range(max_new_tokens):
        logits = decoder([prompt + new for new, _ in live])  # [beams, V]
        sums = torch.tensor([total for _, total in live])[:, None] + logits.double().log_softmax(-1)
        best = sums.flatten().topk(min(2 * n_beams, sums.numel()))  # half of them at most can end a text
        going: list[tuple[list[int], float]] = []
        parents: list[int] = []
        for rank, (total, place) in enumerate(zip(best.values.tolist(), best.indices.tolist(), strict=True)):
            parent, token = divmod(place, sums.shape[1])
            text = ([*live[parent][0], token], total)
            if stop_at_end and token == END_OF_TEXT_ID:
                if rank < n_beams:
                    ended.append(text)
            elif len(going) < n_beams and total > -torch.inf:
                going.append(text)
                parents.append(parent)
        if len(ended) >= n_beams or not going:
            live = []
            break
        live = going
        decoder.reorder(parents)
    beams = [Beam(tuple(new), total, total / max(1, len(new)) ** length_penalty) for new, total in ended + live]
    return sorted(beams, key=lambda beam: -beam.score)[:n_beams]
