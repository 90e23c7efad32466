"""Reading a run's curves as a teacher would: where validation was best, what happened since, what to do about it.

Pure functions of the evaluations in a log; sentences follow the numbers. Losses are in nats a token.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np

from gptlab.config import RunConfig
from gptlab.corpus import Corpus
from gptlab.dataset import NOISY_VALIDATION, window_starts
from gptlab.events import Evaluated
from gptlab.tokenizer import Ids

State = Literal["waiting", "blind", "improving", "level", "memorising"]
LEAST_RISE = 0.02  # nats by which validation must have risen before anybody speaks of memorising
SPREAD_OVER = 8  # evaluations, the last ones, that the spread is taken over


@dataclass(frozen=True)
class TextFacts:
    """What a loss is measured against: tokens and characters of both parts, and what counting tokens alone would give.

    ``unigram_entropy`` (nats a token) is the loss of a model that knows how often each token stands in the whole text
    and nothing else.
    """

    train_tokens: int
    val_tokens: int
    train_characters: int
    val_characters: int
    unigram_entropy: float

    @property
    def characters_per_token(self) -> float:
        return _ratio(self.train_characters + self.val_characters, self.train_tokens + self.val_tokens)


def text_facts(corpus: Corpus, train_ratio: float) -> TextFacts:
    """The facts of a text and its split."""
    train, val = corpus.split_ids(train_ratio)
    cut = int(train_ratio * corpus.characters)
    return TextFacts(
        train_tokens=len(train),
        val_tokens=len(val),
        train_characters=cut,
        val_characters=corpus.characters - cut,
        unigram_entropy=unigram_entropy(np.concatenate([train, val])),
    )


def unigram_entropy(ids: Ids) -> float:
    """Entropy of the token frequencies, in nats a token; NaN without a token."""
    counts = np.bincount(ids) if len(ids) else np.zeros(0)
    shares = counts[counts > 0] / max(1, len(ids))
    return float(-(shares * np.log(shares)).sum()) if len(shares) else math.nan


def perplexity(loss: float) -> float:
    """How many equally likely tokens would be as surprising; NaN and losses beyond any float stay what they are."""
    return math.exp(loss) if loss < 700 else loss if math.isnan(loss) else math.inf


def bits_per_character(loss: float, characters: int, tokens: int) -> float:
    """A loss (nats a token) on a part with so many characters and tokens, comparable between tokenizers."""
    return loss / math.log(2) / _ratio(characters, tokens)


@dataclass(frozen=True)
class Measure:
    """One loss in three units. NaN where a unit cannot be had."""

    name: str
    nats: float
    perplexity: float
    bits_per_character: float


@dataclass(frozen=True)
class Reading:
    """What the curves say. ``train_change`` and ``val_change`` are since the best validation (NaN: not known)."""

    state: State
    headline: str
    advice: str = ""
    remarks: tuple[str, ...] = ()
    best: Evaluated | None = None
    train_change: float = math.nan
    val_change: float = math.nan
    spread: float = math.nan


def read_curves(
    evaluations: Sequence[Evaluated], config: RunConfig | None, facts: TextFacts | None, *, live: bool = False
) -> Reading:
    """The reading of a run's evaluations so far. ``live``: it still trains."""
    if not evaluations:
        if live:
            return Reading("waiting", "The first evaluation comes after the first step.")
        return Reading("waiting", "The run ended before its first evaluation: there is nothing to read.")
    known = [row for row in evaluations if math.isfinite(row.val_loss)]
    last = evaluations[-1]
    if not known:
        return Reading(
            "blind",
            f"There is no validation loss: training loss is {last.train_loss:.3f}, and whether the model learns or "
            "memorises cannot be told.",
            "Lower train_ratio, shorten the context or take a longer text, so that the validation part holds a window.",
        )
    best = min(known, key=lambda row: row.val_loss)
    since = [row for row in known if row.step > best.step]
    spread = spread_of([row.val_loss for row in known])
    remarks = tuple(_remarks(config, facts, spread, len(known)))
    state = _state(best, since, spread)
    headline, advice = _words(state, best, since, live)
    change = since[-1] if since else best
    return Reading(
        state,
        headline,
        advice,
        remarks,
        best,
        change.train_loss - best.train_loss,
        change.val_loss - best.val_loss,
        spread,
    )


def spread_of(losses: Sequence[float]) -> float:
    """How much neighbouring evaluations scatter around their trend (nats): the standard deviation of the last ones'
    differences, over the root of two, so that a steady fall or rise counts as none. NaN before the fourth.
    """
    recent = losses[-SPREAD_OVER:]
    if len(recent) < 4:
        return math.nan
    steps = [after - before for before, after in pairwise(recent)]
    return statistics.stdev(steps) / math.sqrt(2)


def _state(best: Evaluated, since: Sequence[Evaluated], spread: float) -> State:
    if not since:
        return "improving"
    rise = since[-1].val_loss - best.val_loss
    noise = spread if math.isfinite(spread) else 0.0
    enough = rise > max(LEAST_RISE, 2 * noise if len(since) < 4 else noise)
    falling = since[-1].train_loss < best.train_loss
    return "memorising" if len(since) >= 2 and enough and falling else "level"


def _words(state: State, best: Evaluated, since: Sequence[Evaluated], live: bool) -> tuple[str, str]:
    lowest = f"Validation loss was lowest, {best.val_loss:.3f}, {_when(best)}"
    if state == "improving":
        if best.step == 0:
            return (
                f"Validation loss stands at {best.val_loss:.3f} {_when(best)}: a second evaluation will tell more.",
                "",
            )
        if live:
            return f"Validation loss is at its lowest, {best.val_loss:.3f}: the model still learns.", "Let it go on."
        return (
            f"Validation loss was still at its lowest, {best.val_loss:.3f}, when it ended: the model had not finished "
            "learning.",
            "Continue from it, or train a new run with more epochs.",
        )
    now = since[-1]
    told = f"{lowest}; since then training loss {_moved(now.train_loss - best.train_loss)} "
    told += f"while validation {_moved(now.val_loss - best.val_loss)}"
    if state == "memorising":
        return f"{told}: the model is memorising.", (
            f"Go back to best, {_when(best)}, or continue from it with another setting: more dropout, a lower learning "
            "rate, more text."
        )
    if live:
        return f"{told}: too little to tell yet.", "A few more evaluations will show where it goes."
    return f"{told}: it has levelled off.", "More of the same will hardly help: try more text or a lower learning rate."


def _remarks(config: RunConfig | None, facts: TextFacts | None, spread: float, count: int) -> list[str]:
    said = []
    if config and facts:
        windows = len(window_starts(facts.val_tokens, config.model.context_length, config.data.stride))
        read = min(windows, config.train.eval_iter * config.data.batch_size)
        what = f"{read:,} window{'s' * (read != 1)} of {config.model.context_length:,} tokens"
        if read < NOISY_VALIDATION:
            said.append(
                f"Validation is only {what}, too small to trust in the second digit: another piece of the text could "
                "read quite differently. Its turn is real, its exact place is not."
            )
        else:
            said.append(f"Each validation loss is the mean over {what}.")
    if math.isfinite(spread):
        said.append(
            f"The last {min(count, SPREAD_OVER)} validation losses scatter by {spread:.3f} around their trend "
            "(standard deviation): smaller differences mean nothing."
        )
    else:
        said.append("There are too few evaluations to say how much they scatter.")
    return said


def measures(evaluations: Sequence[Evaluated], vocab_size: int, facts: TextFacts | None) -> list[Measure]:
    """Training, validation and best validation loss in all units, and below them what they are to be held against."""
    found = []
    known = [row for row in evaluations if math.isfinite(row.val_loss)]
    train = (facts.train_characters, facts.train_tokens) if facts else (0, 0)
    val = (facts.val_characters, facts.val_tokens) if facts else (0, 0)
    whole = (train[0] + val[0], train[1] + val[1])
    if evaluations:
        found.append(_measure("Training, last", evaluations[-1].train_loss, train))
        found.append(_measure("Validation, last", evaluations[-1].val_loss, val))
    if known:
        best = min(known, key=lambda row: row.val_loss)
        found.append(_measure(f"Validation, best ({_when(best)})", best.val_loss, val))
    if facts:
        found.append(_measure("Token frequencies alone", facts.unigram_entropy, whole))
    found.append(_measure(f"Uniform guessing, ln {vocab_size:,}", math.log(vocab_size), whole))
    return found


def _measure(name: str, loss: float, part: tuple[int, int]) -> Measure:
    return Measure(name, loss, perplexity(loss), bits_per_character(loss, *part))


def _when(row: Evaluated) -> str:
    made = row.step + 1
    return f"after {made:,} step{'s' * (made != 1)}, in epoch {row.epoch}"


def _moved(change: float) -> str:
    if not math.isfinite(change):
        return "is not known"
    if abs(change) < 0.0005:
        return "stayed"
    return f"{'fell' if change < 0 else 'rose'} by {abs(change):.{2 if abs(change) >= 0.095 else 3}f}"


def _ratio(characters: int, tokens: int) -> float:
    return characters / tokens if tokens and characters else math.nan
