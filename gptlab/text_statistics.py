"""What a text is made of: characters, words, tokens, and which tokens it uses most."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from gptlab.tokenizer import Ids, text_chunks, token_pieces

MOST_FREQUENT = 50  # tokens that are listed


class FrequentToken(NamedTuple):
    id: int
    text: str
    occurrences: int


@dataclass(frozen=True)
class CorpusStatistics:
    """What a text is made of. A word is what stands between white space; a line ends with a newline."""

    characters: int
    bytes: int
    lines: int
    words: int
    tokens: int
    characters_per_token: float
    distinct_tokens: int
    most_frequent: tuple[FrequentToken, ...]


def count_text(text: str, ids: Ids) -> CorpusStatistics:
    """Statistics of ``text`` and of its token ids."""
    counts = np.bincount(ids, minlength=1)
    ranked = np.argsort(-counts, kind="stable")[:MOST_FREQUENT]
    most = [int(token) for token in ranked if counts[token]]
    return CorpusStatistics(
        characters=len(text),
        bytes=len(text.encode("utf-8")),
        lines=text.count("\n") + (not text.endswith("\n")),
        words=sum(len(chunk.split()) for chunk in text_chunks(text)),
        tokens=len(ids),
        characters_per_token=len(text) / max(1, len(ids)),
        distinct_tokens=int(np.count_nonzero(counts)),
        most_frequent=tuple(
            FrequentToken(token, piece, int(counts[token]))
            for token, piece in zip(most, token_pieces(most), strict=True)
        ),
    )
