"""What the Corpus page reads of a text: only the tokens that it shows, and counts that are made once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import streamlit as st

from gptlab.corpus import Corpus, CorpusStatistics
from gptlab.tokenizer import Ids

Progress = Callable[[float], None]
MOST_RANKS = 240


@dataclass(frozen=True)
class Reading:
    """A text as tokens: whole, and its two parts, each tokenised on its own. Arrays stay on disk where they can."""

    corpus: Corpus
    statistics: CorpusStatistics
    whole: Ids
    train: Ids
    val: Ids
    cut: int  # characters in the training part


def read(corpus: Corpus, train_ratio: float) -> Reading:
    """The reading of a text: a look at the store, but the first time, which takes long for a very large text."""
    place = st.empty()

    def bar(said: str, low: float, high: float) -> Progress:
        def show(share: float) -> None:
            if share < 1:
                place.progress(low + share * (high - low), text=said)

        return show

    cut = int(train_ratio * corpus.characters)
    statistics = corpus.statistics(bar("Turning the text into tokens …", 0.0, 0.5))
    middle = 0.5 + train_ratio / 2
    reading = Reading(
        corpus=corpus,
        statistics=statistics,
        whole=_ids(corpus, 0, corpus.characters, bar("Turning the text into tokens …", 0.5, 0.5)),
        train=_ids(corpus, 0, cut, bar("Turning the training part into tokens …", 0.5, middle)),
        val=_ids(corpus, cut, corpus.characters, bar("Turning the validation part into tokens …", middle, 1.0)),
        cut=cut,
    )
    place.empty()
    return reading


def _ids(corpus: Corpus, start: int, end: int, progress: Progress) -> Ids:
    """Token ids of some characters, mapped from the store's file: pages read what they show and no more."""
    path = corpus.folder / f"ids-{start}-{end}.npy"
    for _ in range(2):
        try:
            ids = np.load(path, mmap_mode="r", allow_pickle=False)
            if ids.dtype == np.int32 and ids.ndim == 1:
                return ids
        except (OSError, ValueError, EOFError):
            pass
        computed = corpus.token_ids(start, end, progress)
    return computed


@st.cache_data(max_entries=8, show_spinner=False)
def ranks(sha256: str, _ids: Ids) -> list[tuple[int, int, int]]:
    """(rank, count, id) of the text's tokens from the most frequent on, thinned evenly on a logarithmic scale."""
    counts = np.bincount(_ids)
    order = np.argsort(-counts, kind="stable")[: int(np.count_nonzero(counts))]
    wanted = np.unique(np.geomspace(1, max(1, len(order)), MOST_RANKS).round().astype(int))
    return [(int(rank), int(counts[order[rank - 1]]), int(order[rank - 1])) for rank in wanted if len(order)]
