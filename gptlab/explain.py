"""The chain of one token: bytes, merges, places in the corpus, windows, batches, losses, neighbours, attention."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NamedTuple

import torch
from torch import Tensor

from gptlab.inspection import TokenGuess, Trace
from gptlab.model import GPTModel
from gptlab.sampling import checked_ids
from gptlab.token_history import Place, TokenMakeup, WindowPlace, occurrences, token_makeup, windows_with

if TYPE_CHECKING:
    from gptlab.config import RunConfig
    from gptlab.corpus import Corpus

MOST_PLACES = 20


class Neighbour(NamedTuple):
    """A token whose embedding points the same way: cosine 1 is the same direction, 0 a right angle."""

    id: int
    cosine: float


def nearest_tokens(
    model: GPTModel, token_id: int, n: int = 8, by: Literal["embedding", "head"] = "embedding"
) -> tuple[Neighbour, ...]:
    """The ``n`` tokens nearest to one by the cosine of their rows in the embedding (or the head), nearest first.

    ValueError: the token is outside the model's vocabulary.
    """
    checked_ids(model, [token_id])
    with torch.inference_mode():
        rows = (model.tok_emb if by == "embedding" else model.out_head).weight.float()  # [V, C]
        lengths = rows.norm(dim=-1).clamp_min(1e-12)
        cosines = rows @ rows[token_id] / (lengths * lengths[token_id])  # [V]
        cosines[token_id] = -torch.inf
        best = cosines.topk(min(n, len(rows) - 1))
    return tuple(Neighbour(*pair) for pair in zip(best.indices.tolist(), best.values.tolist(), strict=True))


class LossAtEpoch(NamedTuple):
    """How surprised the model saved after ``epoch`` is by the token (nats), and what it guesses instead."""

    epoch: int
    loss: float
    guesses: tuple[TokenGuess, ...]


def losses_over_epochs(
    models: Iterable[tuple[int, GPTModel]], ids: Tensor | Sequence[int], position: int, top: int = 3
) -> tuple[LossAtEpoch, ...]:
    """The loss at token ``position`` (1 or later) of the passage ``ids`` by each of ``(epoch, model)``.

    ``models`` is read one by one: given a generator, one model at a time is in memory.
    """
    told = []
    for epoch, model in models:
        before, actual = _before(model, ids, position)
        logs = Trace(model, before).logits(positions=[-1])[0].log_softmax(-1).cpu()
        best = logs.topk(min(top, len(logs)))
        guesses = zip(best.indices.tolist(), best.values.exp().tolist(), strict=True)
        told.append(LossAtEpoch(epoch, -float(logs[actual]), tuple(TokenGuess(*guess) for guess in guesses)))
    return tuple(told)


def _before(model: GPTModel, ids: Tensor | Sequence[int], position: int) -> tuple[list[int], int]:
    """What a model reads before token ``position``, and that token."""
    passage = checked_ids(model, ids)
    if not 1 <= position < len(passage):
        raise ValueError(
            f"Token {position:,} of a passage of {len(passage):,} was not predicted: ask for 1 to {len(passage) - 1:,}."
        )
    return passage[max(0, position - model.config.context_length) : position], passage[position]


@dataclass(frozen=True)
class CorpusPlace:
    """One occurrence in the corpus: ``part`` of it, characters of the whole text, and windows of the training part.

    ``place.index`` counts the tokens of that part, each part being tokenised on its own.
    """

    part: Literal["training", "validation"]
    place: Place
    windows: tuple[WindowPlace, ...] = ()


@dataclass(frozen=True)
class CorpusOccurrences:
    """How often a token stands in each part, and its first ``places``."""

    training: int
    validation: int
    places: tuple[CorpusPlace, ...]


def corpus_occurrences(
    corpus: Corpus, config: RunConfig, token_id: int, epochs: Sequence[int] = (1,), most_places: int = MOST_PLACES
) -> CorpusOccurrences:
    """Where a token stands in a run's text, and which windows and batches of ``epochs`` read it there."""
    train_ids, val_ids = corpus.split_ids(config.data.train_ratio)
    cut = int(config.data.train_ratio * corpus.characters)
    trained = occurrences(train_ids, token_id, most_places)
    held_out = occurrences(val_ids, token_id, most_places - len(trained.places))
    places = [
        CorpusPlace("training", place, windows_with(place.index, len(train_ids), config, epochs))
        for place in trained.places
    ]
    places += [
        CorpusPlace("validation", Place(place.index, place.start + cut, place.end + cut)) for place in held_out.places
    ]
    return CorpusOccurrences(trained.count, held_out.count, tuple(places))


@dataclass(frozen=True, eq=False)
class TokenChain:
    """Everything about one token of a passage. What was not asked for, or has no meaning, is None or empty.

    ``loss`` (nats), ``rank`` (tokens thought likelier) and ``guesses`` are the model's before it saw the token, None
    and empty for the first token. ``attention`` [L, H, S]: where the model looked when it predicted it, over the
    passage's tokens ``attention_start`` to ``position - 1``.
    """

    position: int
    makeup: TokenMakeup | None
    loss: float | None = None
    rank: int | None = None
    guesses: tuple[TokenGuess, ...] = ()
    attention: Tensor | None = field(default=None, repr=False)
    attention_start: int = 0
    neighbours: tuple[Neighbour, ...] = ()
    corpus: CorpusOccurrences | None = None
    losses: tuple[LossAtEpoch, ...] = ()


def explain_token(
    model: GPTModel,
    ids: Tensor | Sequence[int],
    position: int,
    *,
    corpus: Corpus | None = None,
    config: RunConfig | None = None,
    epochs: Sequence[int] = (1,),
    models: Iterable[tuple[int, GPTModel]] = (),
    n_neighbours: int = 8,
    top: int = 5,
) -> TokenChain:
    """The chain of token ``position`` (from 0) of the passage ``ids`` ([T], [1, T] or a list, of any length).

    With ``corpus`` and ``config``, a run's, its places in the text and the batches of ``epochs``; with ``models``
    (``(epoch, model)``, read one by one) its loss at each. The model reads the ``context_length`` tokens before it.
    ValueError: there is no such position, or an id is outside the vocabulary.
    """
    passage = checked_ids(model, ids)
    if not -len(passage) <= position < len(passage):
        raise ValueError(
            f"There is no token {position:,} in a passage of {len(passage):,}: ask for 0 to {len(passage) - 1:,}."
        )
    position %= len(passage)
    token = passage[position]
    chain: dict = {}
    if position:
        before, _ = _before(model, passage, position)
        trace = Trace(model, before)
        logs = trace.logits(positions=[-1])[0].log_softmax(-1).cpu()
        best = logs.topk(min(top, len(logs)))
        guesses = zip(best.indices.tolist(), best.values.exp().tolist(), strict=True)
        chain = {
            "loss": -float(logs[token]),
            "rank": int((logs > logs[token]).sum()),
            "guesses": tuple(TokenGuess(*guess) for guess in guesses),
            "attention": trace.attention_from(-1),
            "attention_start": position - len(before),
            "losses": losses_over_epochs(models, passage, position),
        }
    if corpus is not None and config is not None:
        chain["corpus"] = corpus_occurrences(corpus, config, token, epochs)
    return TokenChain(position, _makeup(token), neighbours=nearest_tokens(model, token, n_neighbours), **chain)


def _makeup(token: int) -> TokenMakeup | None:
    try:
        return token_makeup(token)
    except ValueError:
        return None  # a model may have more entries than the tokenizer
