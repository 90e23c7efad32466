"""Where one token comes from: its bytes, its merges, and its places in a text, its windows and its batches.

Nothing here needs a model, or torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from gptlab.dataset import epoch_order, n_batches, window_starts
from gptlab.tokenizer import END_OF_TEXT_ID, Ids, get_tokenizer

if TYPE_CHECKING:
    from gptlab.config import RunConfig

N_BYTES = 256  # GPT-2's first tokens are the single bytes; the next is its first merge


@dataclass(frozen=True)
class Merge:
    """One merge: ``left`` and ``right`` became one piece. ``rank`` is the merge's number, 1 for the first ever learnt.

    ``pieces`` is the token as it stands after this merge.
    """

    left: bytes
    right: bytes
    rank: int
    pieces: tuple[bytes, ...]


@dataclass(frozen=True)
class TokenMakeup:
    """A token's id, its bytes, and the merges that build it from single bytes (none for a byte or a special token)."""

    id: int
    bytes: bytes
    merges: tuple[Merge, ...]
    special: bool


def token_makeup(token_id: int) -> TokenMakeup:
    """How byte pair encoding (Sennrich et al. 2016; bytes: Radford et al. 2019) built a token of GPT-2's.

    ValueError: the tokenizer has no such token.
    """
    tokenizer = get_tokenizer()
    if not 0 <= token_id < tokenizer.n_vocab:
        raise ValueError(f"There is no token {token_id:,}: GPT-2's tokenizer has 0 to {tokenizer.n_vocab - 1:,}.")
    raw = tokenizer.decode_single_token_bytes(token_id)
    special = token_id == END_OF_TEXT_ID
    return TokenMakeup(token_id, raw, () if special else _merges(raw), special)


def _merges(raw: bytes) -> tuple[Merge, ...]:
    """The pair that was learnt first is merged first, until one piece is left."""
    ranks = _ranks()
    pieces = [raw[i : i + 1] for i in range(len(raw))]
    merges = []
    while len(pieces) > 1:
        known = [(ranks[pair], i) for i in range(len(pieces) - 1) if (pair := pieces[i] + pieces[i + 1]) in ranks]
        rank, place = min(known)
        left, right = pieces[place : place + 2]
        pieces[place : place + 2] = [left + right]
        merges.append(Merge(left, right, rank - N_BYTES + 1, tuple(pieces)))
    return tuple(merges)


@lru_cache(maxsize=1)
def _ranks() -> dict[bytes, int]:
    return {raw: get_tokenizer().encode_single_token(raw) for raw in get_tokenizer().token_byte_values()}


@dataclass(frozen=True)
class Place:
    """Where a token stands: its index among the text's tokens, and its characters ``start`` to ``end`` (as a slice).

    A token that holds only a part of a character counts the whole character.
    """

    index: int
    start: int
    end: int


@dataclass(frozen=True)
class Occurrences:
    """How often a token stands in ``n_tokens`` tokens, and the first places of it."""

    count: int
    n_tokens: int
    places: tuple[Place, ...]


def occurrences(ids: Ids | Sequence[int], token_id: int, most_places: int = 100) -> Occurrences:
    """Every occurrence of a token in ``ids`` [n], the tokens of a text; characters count from that text's start."""
    ids = np.asarray(ids)
    found = np.flatnonzero(ids == token_id)
    places = token_places(ids, found[:most_places])
    return Occurrences(len(found), len(ids), places)


def token_places(ids: Ids | Sequence[int], indices: npt.ArrayLike) -> tuple[Place, ...]:
    """The characters of the tokens ``indices`` of ``ids`` [n], the tokens of a text.

    Linear in the last of ``indices``. Bytes that begin a character (all but 10xxxxxx in UTF-8) are counted.
    """
    wanted = np.asarray(indices, dtype=np.int64)
    if not len(wanted):
        return ()
    begun = _characters_begun()
    read = np.asarray(ids)[: int(wanted.max()) + 1]
    ends = np.cumsum(begun[read])  # characters begun up to and with each token
    starts = ends[wanted] - begun[read[wanted]]
    starts = starts - _begins_inside()[read[wanted]]
    return tuple(Place(int(i), int(a), int(b)) for i, a, b in zip(wanted, starts, ends[wanted], strict=True))


@lru_cache(maxsize=1)
def _characters_begun() -> npt.NDArray[np.int64]:
    """Characters that begin in each token [V]."""
    return np.array([sum(byte & 0xC0 != 0x80 for byte in raw) for raw in _all_bytes()])


@lru_cache(maxsize=1)
def _begins_inside() -> npt.NDArray[np.int64]:
    """1 for each token [V] whose first byte goes on with a character."""
    return np.array([int(raw[0] & 0xC0 == 0x80) for raw in _all_bytes()])


def _all_bytes() -> list[bytes]:
    tokenizer = get_tokenizer()
    return [tokenizer.decode_single_token_bytes(i) for i in range(tokenizer.n_vocab)]


@dataclass(frozen=True)
class BatchPlace:
    """Where an epoch reads a window: ``batch`` and ``row`` count from 0; None where drop_last leaves the window out.

    ``step`` is the optimiser step, counted over the whole run from 0, as the log counts them.
    """

    epoch: int
    batch: int | None
    row: int | None
    step: int | None


@dataclass(frozen=True)
class WindowPlace:
    """A training window (numbered from 0 in the order of the text) with a token in it.

    ``position``: the token's place among the window's inputs, None where it is only the last target. ``is_target``:
    whether the window's loss asks for it. ``batches``: where each of the epochs asked for reads the window.
    """

    window: int
    position: int | None
    is_target: bool
    batches: tuple[BatchPlace, ...]


def windows_with(
    index: int, n_train_tokens: int, config: RunConfig, epochs: Sequence[int] = (1,)
) -> tuple[WindowPlace, ...]:
    """The training windows that hold token ``index`` of the training part's tokens, and their batches.

    The order of an epoch is a pure function of the seed and the epoch, so no run is asked. Empty where the token falls
    between windows or behind the last one.
    """
    T, data = config.model.context_length, config.data
    starts = window_starts(n_train_tokens, T, config.stride)
    first = max(0, -(-(index - T) // starts.step))
    windows = range(first, min(len(starts), index // starts.step + 1))
    seats = [(epoch, _seats(len(starts), config, epoch)) for epoch in epochs] if windows else []
    per_epoch = n_batches(len(starts), data.batch_size, data.drop_last)
    steps_per_epoch = -(-per_epoch // config.optim.grad_accumulation)

    def in_epoch(epoch: int, seat: int) -> BatchPlace:
        batch, row = divmod(seat, data.batch_size)
        if batch >= per_epoch:
            return BatchPlace(epoch, None, None, None)
        return BatchPlace(epoch, batch, row, (epoch - 1) * steps_per_epoch + batch // config.optim.grad_accumulation)

    found = []
    for window in windows:
        position = index - starts[window]
        batches = tuple(in_epoch(epoch, int(seat_of[window])) for epoch, seat_of in seats)
        found.append(WindowPlace(window, position if position < T else None, position > 0, batches))
    return tuple(found)


def _seats(n_windows: int, config: RunConfig, epoch: int) -> npt.NDArray[np.int64]:
    """The place of each window [n] in the order of an epoch."""
    order = epoch_order(n_windows, config.train.seed, epoch, config.data.shuffle)
    seat_of = np.empty(n_windows, np.int64)
    seat_of[order] = np.arange(n_windows)
    return seat_of
