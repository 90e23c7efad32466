"""What a model has copied: stretches of a sample that stand word for word in its corpus, and where.

The corpus's suffixes are sorted once (prefix doubling: Manber and Myers, 1993, "Suffix arrays") and kept beside its
token ids; after that the longest match at any place of a sample is a binary search. Matches are exact.
"""

from __future__ import annotations

import contextlib
import io
import os
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

import numpy as np

from gptlab.config import RunConfig
from gptlab.corpus import Corpus
from gptlab.dataset import window_starts
from gptlab.home import write_atomically
from gptlab.tokenizer import Ids, get_tokenizer, token_ids_to_text

SHORTEST = 5  # tokens in a row; fewer are the language's, not the text's
DEPTH = 4096  # tokens by which suffixes are told apart: no sample is longer
MOST_TOKENS = 30_000_000  # sorting more would take over 2 GB
_KEPT = 4  # sorted parts kept on disk for each text
_BLOCK = 4096


@dataclass(frozen=True)
class Match:
    """Tokens ``start`` to ``start + length`` of a sample stand in the corpus, ``times`` in that part.

    ``part`` is training or validation; ``token`` counts from the part's first, ``character`` from the text's first.
    ``window`` is the first window, from 1, that reads the first token; None where no window does.
    """

    start: int
    length: int
    part: str
    token: int
    character: int
    window: int | None
    times: int


@dataclass(frozen=True)
class Copied:
    """What of a sample was copied. ``inside`` holds for each token the index of the match it lies in, or None."""

    matches: tuple[Match, ...]
    inside: tuple[int | None, ...]

    @property
    def share(self) -> float:
        """Share of the tokens that lie in a match; NaN for an empty sample."""
        return sum(place is not None for place in self.inside) / len(self.inside) if self.inside else float("nan")

    @property
    def longest(self) -> int:
        """Tokens in the longest match, 0 where there is none."""
        return max((match.length for match in self.matches), default=0)


class CorpusIndex:
    """Both parts of a run's text, sorted so that what a sample shares with them is found at once."""

    def __init__(self, corpus: Corpus, config: RunConfig) -> None:
        """Opens what is kept on disk, or sorts the text and keeps that. ValueError: the text is gone or too long."""
        cut = int(config.data.train_ratio * corpus.characters)
        self._context, self._stride = config.model.context_length, config.stride
        self._parts = [
            ("training", 0, _SortedPart(corpus, 0, cut)),
            ("validation", cut, _SortedPart(corpus, cut, corpus.characters)),
        ]

    def find(self, ids: Sequence[int]) -> Copied:
        """Every longest possible match of ``SHORTEST`` or more tokens in ``ids``; of two equal ones the training's."""
        pattern = np.asarray(ids, dtype=">u4").tobytes()
        matches: list[Match] = []
        end = 0
        for start in range(len(ids) - SHORTEST + 1):
            wanted = pattern[4 * start :]
            length, part = max(((part[2].reach(wanted), -n) for n, part in enumerate(self._parts)), default=(0, 0))
            if length >= SHORTEST and start + length > end:  # else it is the tail of the match before
                end = start + length
                matches.append(self._match(start, length, -part, wanted[: 4 * length]))
        inside: list[int | None] = [None] * len(ids)
        for number in sorted(range(len(matches)), key=lambda number: matches[number].length):
            match = matches[number]  # a token in two matches belongs to the longer one
            inside[match.start : match.start + match.length] = [number] * match.length
        return Copied(tuple(matches), tuple(inside))

    def _match(self, start: int, length: int, part: int, found: bytes) -> Match:
        name, first_character, tokens = self._parts[part]
        token, times = tokens.place(found)
        character = first_character + tokens.character(token)
        return Match(start, length, name, token, character, self._window(token, len(tokens.ids)), times)

    def _window(self, token: int, n_tokens: int) -> int | None:
        starts = window_starts(n_tokens, self._context, self._stride)
        first = max(0, -(-(token - self._context) // self._stride))  # a window reads its context and one target more
        return first + 1 if first < len(starts) and starts[first] <= token else None

    def passage(self, match: Match, around: int = 12) -> tuple[str, str, str]:
        """What stands before a match in the corpus, the match itself, and what follows it."""
        ids = next(part.ids for name, _, part in self._parts if name == match.part)
        first, last = match.token, match.token + match.length
        pieces = (ids[max(0, first - around) : first], ids[first:last], ids[last : last + around])
        before, text, after = (token_ids_to_text(piece) for piece in pieces)
        return before, text, after


class _SortedPart:
    """The token ids of one part, and the order of its suffixes."""

    def __init__(self, corpus: Corpus, start: int, end: int) -> None:
        self.ids = corpus.token_ids(start, end)
        if len(self.ids) > MOST_TOKENS:
            raise ValueError(
                f"The text has over {MOST_TOKENS:,} tokens, too many to look for copies in: "
                "train on a shorter text to see what is copied."
            )
        self._raw = self.ids.astype(">u4").tobytes()  # compared as bytes, big-endian numbers order as numbers do
        path = corpus.folder / f"order-{start}-{end}.npy"
        order = _load_order(path, len(self.ids))
        if order is None:
            order = suffix_order(self.ids)
            _keep_order(path, order)
        self._order = order
        before = np.zeros(len(self.ids) // _BLOCK + 1, dtype=np.int64)  # characters before each block of tokens
        for block in range(1, len(before)):
            before[block] = before[block - 1] + _characters(self.ids[(block - 1) * _BLOCK : block * _BLOCK])
        self._before = before

    def reach(self, wanted: bytes) -> int:
        """Tokens from the beginning of ``wanted`` that stand somewhere in a row here; 0 where it is under SHORTEST."""
        place = bisect_left(range(len(self._order)), wanted, key=lambda k: self._suffix(k, len(wanted)))
        near = [self._suffix(k, len(wanted)) for k in (place - 1, place) if 0 <= k < len(self._order)]
        least = wanted[: 4 * SHORTEST]
        return max((_shared(wanted, suffix) for suffix in near if suffix.startswith(least)), default=0)

    def place(self, found: bytes) -> tuple[int, int]:
        """The first place where ``found`` stands, and how often it does."""
        n = range(len(self._order))
        first = bisect_left(n, found, key=lambda k: self._suffix(k, len(found)))
        last = bisect_right(n, found, lo=first, key=lambda k: self._suffix(k, len(found)))
        return int(self._order[first:last].min()), last - first

    def character(self, token: int) -> int:
        """Characters before that token; where it begins inside of a character, before that one."""
        block = token // _BLOCK
        n = int(self._before[block]) + _characters(self.ids[block * _BLOCK : token])
        inside = get_tokenizer().decode_single_token_bytes(int(self.ids[token]))[0] & 0xC0 == 0x80
        return max(0, n - inside)

    def _suffix(self, k: int, length: int) -> bytes:
        start = 4 * int(self._order[k])
        return self._raw[start : start + length]


def _shared(one: bytes, other: bytes) -> int:
    """Tokens that both begin with."""
    a, b = (np.frombuffer(raw[: min(len(one), len(other))], dtype=">u4") for raw in (one, other))
    differ = np.flatnonzero(a != b)
    return int(differ[0]) if len(differ) else len(a)


def suffix_order(ids: Ids, depth: int = DEPTH) -> Ids:
    """Where the suffixes of ``ids`` begin, int32 [n], sorted by (at least) their first ``depth`` tokens.

    Each round sorts by twice as many tokens as the one before, and only what was not told apart yet.
    """
    n = len(ids)
    order = np.argsort(ids).astype(np.int32)
    places = np.arange(n)
    keys, known = ids[order].astype(np.int64), 1
    rank = np.empty(n, dtype=np.int32)
    while n:
        first = np.empty(len(keys), dtype=bool)  # whether a suffix begins a group of equals
        first[:1] = True
        np.not_equal(keys[1:], keys[:-1], out=first[1:])
        suffixes = order[places]
        rank[suffixes] = np.maximum.accumulate(np.where(first, places, 0))
        open_ = ~(first & np.append(first[1:], True))
        places = places[open_]
        if known >= depth or not len(places):
            break
        suffixes = suffixes[open_]
        beyond = suffixes.astype(np.int64) + known
        following = np.where(beyond < n, rank[np.minimum(beyond, n - 1)], -1)
        keys = rank[suffixes].astype(np.int64) * (n + 1) + following + 1
        sorting = np.argsort(keys)
        order[places], keys = suffixes[sorting], keys[sorting]
        known *= 2
    return order


def _load_order(path: Path, n: int) -> Ids | None:
    """The kept order, or None where it is missing, torn, or no order of ``n`` suffixes."""
    try:
        order = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    if not isinstance(order, np.ndarray) or order.dtype != np.int32 or order.shape != (n,):
        return None
    if n and (order.min() < 0 or order.max() >= n):
        return None
    with contextlib.suppress(OSError):
        os.utime(path)
    return order


def _keep_order(path: Path, order: Ids) -> None:
    buffer = io.BytesIO()
    np.save(buffer, order, allow_pickle=False)
    with contextlib.suppress(OSError):  # a full or read-only disk: it is sorted again next time
        write_atomically(path, buffer.getvalue())
        kept = sorted(path.parent.glob("order-*.npy"), key=lambda file: file.stat().st_mtime, reverse=True)
        for file in kept[_KEPT:]:
            file.unlink(missing_ok=True)


@lru_cache(maxsize=1)
def _character_counts() -> Ids:
    """For each token id how many characters begin in it: its bytes that do not go on with one."""
    tokenizer = get_tokenizer()
    counts = [
        sum(byte & 0xC0 != 0x80 for byte in tokenizer.decode_single_token_bytes(token))
        for token in range(tokenizer.n_vocab)
    ]
    return np.array(counts, dtype=np.int32)


def _characters(ids: Ids) -> int:
    return int(_character_counts()[ids].sum())


def distinct_2(ids: Sequence[int]) -> float:
    """Share of neighbouring pairs that are different ones (Li et al. 2016, "A diversity-promoting objective function").

    NaN for fewer than two tokens.
    """
    pairs = list(pairwise(ids))
    return len(set(pairs)) / len(pairs) if pairs else float("nan")
