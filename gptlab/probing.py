"""What a model learns when: the loss of each token of a few passages, epoch after epoch.

The passages of a run are looked at by its worker (``Probed`` facts); any other is scored from kept weights. Either way
it becomes a ``Passage``, which this module can ask questions of. Needs no torch.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from gptlab.events import Probed

PROBE_TOKENS = 128  # of a watched window, from its start: more would cost over 2 % of a short epoch
KNOWN = 0.5  # a token counts as learnt once the model gives it this probability

_SMALL_WORDS = (  # they hold an English sentence together and say little by themselves
    "a an the and or but nor if then than as of to in on at by for from with without into over under up down out off "
    "about after before between through is was were are be been being am do did does had has have will would shall "
    "should can could may might must not no i you he she it we they me him her us them my your his its our their this "
    "that these those there here who whom whose which what when where why how all any some so too very only"
)
FUNCTION_WORDS = frozenset(_SMALL_WORDS.split())
KINDS = (
    "line breaks and spaces", "punctuation", "function words", "other words", "capitalised words",
    "parts of words", "numbers", "anything else",
)  # fmt: skip


@dataclass(frozen=True)
class Passage:
    """A stretch of token ids, and the losses (nats) of all but the first of them, epoch by epoch."""

    part: str
    start: int
    token_ids: tuple[int, ...]
    losses: dict[int, tuple[float, ...]] = field(default_factory=dict)

    @property
    def place(self) -> tuple[str, int]:
        return self.part, self.start

    @property
    def epochs(self) -> list[int]:
        return sorted(self.losses)

    def mean(self, epoch: int) -> float:
        """The passage's loss in that epoch: the mean over its tokens."""
        values = self.losses[epoch]
        return sum(values) / len(values) if values else math.nan


@dataclass(frozen=True)
class Change:
    """A token of a passage, and how its loss went between two epochs. ``place`` is its index in ``token_ids``."""

    place: int
    before: float
    after: float

    @property
    def gain(self) -> float:
        return self.before - self.after


@dataclass(frozen=True)
class KindLearnt:
    """Tokens of one kind: their places, the mean loss in each epoch, and the first epoch that knows half of them."""

    kind: str
    places: tuple[int, ...]
    means: dict[int, float]
    learnt: int | None


def watched_passages(train: Any, val: Any, n_windows: int) -> list[Passage]:
    """The first windows of both parts, at most ``PROBE_TOKENS`` of each. ``train`` and ``val`` are ``GPTDataset``s."""
    found = []
    for part, windows in (("training", train), ("validation", val)):
        length = min(windows.context_length, PROBE_TOKENS)
        starts = list(windows.starts[:n_windows]) or ([0] if n_windows else [])  # a part too short for one has a start
        for start in starts:
            ids = tuple(int(token) for token in windows.token_ids[start : start + length + 1])
            if len(ids) > 1:
                found.append(Passage(part, start, ids))
    return found


def packed(losses: Iterable[float]) -> str:
    """Losses as ``Probed`` holds them: four decimals, or ``nan``, between spaces."""
    return " ".join(f"{loss:.4f}" if math.isfinite(loss) else "nan" for loss in losses)


def unpacked(losses: str) -> tuple[float, ...]:
    """The other way round; a word that is no number is NaN."""
    return tuple(_number(word) for word in losses.split())


def _number(word: str) -> float:
    try:
        return float(word)
    except ValueError:
        return math.nan


def passages(probes: Sequence[Probed], most: int | None = None) -> list[Passage]:
    """The watched passages of a run, training first, with the losses of every epoch that fits their tokens.

    ``most``: of very many epochs so many, evenly, the first and the last among them.
    """
    ids: dict[tuple[str, int], tuple[int, ...]] = {}
    rows: dict[tuple[str, int], dict[int, str]] = {}
    for probe in probes:
        place = (probe.part, probe.start)
        if probe.token_ids:
            ids[place] = probe.token_ids
        rows.setdefault(place, {})[probe.epoch] = probe.losses
    found = []
    for (part, start), token_ids in sorted(ids.items()):
        epochs = sorted(rows[part, start])
        if most is not None and len(epochs) > most:
            epochs = [epochs[round(k * (len(epochs) - 1) / (most - 1))] for k in range(most)]
        losses = {epoch: unpacked(rows[part, start][epoch]) for epoch in epochs}
        fitting = {epoch: row for epoch, row in losses.items() if len(row) == len(token_ids) - 1}
        if fitting:
            found.append(Passage(part, start, token_ids, fitting))
    return found


def changes(passage: Passage, before: int, after: int) -> list[Change]:
    """How each token's loss went from one epoch to another, what improved most first; unknown losses are left out."""
    pairs = zip(passage.losses[before], passage.losses[after], strict=True)
    known = [Change(place, *pair) for place, pair in enumerate(pairs, start=1) if all(map(math.isfinite, pair))]
    return sorted(known, key=lambda change: (-change.gain, change.place))


def learnt_when(passage: Passage) -> dict[int | None, list[int]]:
    """For each epoch the places of the tokens that the model knows from then on; under None those it never does.

    A token is known where its probability is at least ``KNOWN``; what is forgotten again was not learnt yet.
    """
    highest = -math.log(KNOWN)
    found: dict[int | None, list[int]] = {}
    for place in range(1, len(passage.token_ids)):
        since = None
        for epoch in reversed(passage.epochs):
            if not passage.losses[epoch][place - 1] <= highest:
                break
            since = epoch
        found.setdefault(since, []).append(place)
    return found


def by_kind(passage: Passage) -> list[KindLearnt]:
    """The tokens that are to be predicted, by kind, with what became of them: the earliest learnt first."""
    places: dict[str, list[int]] = {}
    for place, kind in enumerate(kinds_of(passage.token_ids)):
        if place:
            places.setdefault(kind, []).append(place)
    highest = -math.log(KNOWN)
    found = []
    for kind in KINDS:
        own = places.get(kind, [])
        if not own:
            continue
        means, learnt = {}, None
        for epoch in passage.epochs:
            values = [passage.losses[epoch][place - 1] for place in own]
            known = [value for value in values if math.isfinite(value)]
            means[epoch] = sum(known) / len(known) if known else math.nan
            if learnt is None and sum(value <= highest for value in values) * 2 >= len(values):
                learnt = epoch
        found.append(KindLearnt(kind, tuple(own), means, learnt))
    return sorted(found, key=lambda row: (math.inf if row.learnt is None else row.learnt, KINDS.index(row.kind)))


def kinds_of(token_ids: Sequence[int]) -> list[str]:
    """What kind of thing each token is, one of ``KINDS``; the tokens of a word that was cut up are seen together."""
    from gptlab.tokenizer import token_pieces

    pieces = token_pieces(token_ids)
    found: list[str] = []
    while len(found) < len(pieces):
        first = len(found)
        end = first + 1
        while pieces[first].strip().isalpha() and end < len(pieces) and pieces[end].isalpha():
            end += 1  # a piece of letters without a space before it goes on with the word
        found += [_kind("".join(pieces[first:end]).strip(), whole=end == first + 1)] * (end - first)
    return found


def _kind(word: str, whole: bool) -> str:
    if not word:
        return "line breaks and spaces"
    if re.fullmatch(r"['’](s|t|re|ve|d|m|ll)", word):
        return "function words"
    if re.fullmatch(r"[!-/:-@\[-`{-~¡-¿\u2010-\u206f]+", word):
        return "punctuation"
    if word.isdecimal():
        return "numbers"
    if not word.isalpha():
        return "anything else"
    if word.lower() in FUNCTION_WORDS:
        return "function words"
    if word[0].isupper():
        return "capitalised words"
    return "other words" if whole else "parts of words"
