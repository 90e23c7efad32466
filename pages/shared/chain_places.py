"""A link of the chain: how often a token stands in the text, where, and which windows and batches read it there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import streamlit as st

from gptlab.config import RunConfig
from gptlab.corpus import Corpus
from gptlab.dataset import window_starts
from gptlab.token_history import occurrences, windows_with
from gptlab.tokenizer import Ids
from pages.shared.look import number
from pages.shared.token_strip import PLACE, token_strip, tokens_of

_Whole = npt.NDArray[np.integer]
MOST_PLACES = 200  # that can be gone through
AROUND = 24  # tokens shown on either side


@dataclass(frozen=True, eq=False)
class Found:
    """The places of a token: ``training`` and ``validation`` count them; ``places`` are (part, index among the part's
    tokens), the first ``MOST_PLACES`` of them. ``nearest``: which of them is most like the place asked about, with
    ``shared`` tokens before it the same, of ``n_asked``."""

    training: int
    validation: int
    places: tuple[tuple[str, int], ...]
    parts: dict[str, Ids]
    context_length: int
    stride: int
    nearest: int = 0
    shared: int = 0
    n_asked: int = 0

    def begin(self, place: int) -> int | None:
        """Where the window begins that has the token to predict, the one with most before it; None: no window has."""
        part, index = self.places[place]
        starts = window_starts(len(self.parts[part]), self.context_length, self.stride)
        first = max(0, -(-(index - self.context_length) // self.stride))
        return starts[first] if first < len(starts) and starts[first] < index else None

    def before(self, place: int) -> tuple[int, ...]:
        """What a model reads before the token there: as in training from where its window begins, else a context."""
        part, index = self.places[place]
        begin = self.begin(place)
        return tuple(self.parts[part][max(0, index - self.context_length) if begin is None else begin : index].tolist())

    def manner(self, place: int) -> str:
        """How ``before`` was chosen, in a sentence."""
        if self.begin(place) is None:
            return "No window has it to predict, so it is read after the tokens just before it."
        return "It is read as in training: from the beginning of its window."

    def passage(self, place: int) -> tuple[int, ...]:
        """The same, and the token itself at the end."""
        part, index = self.places[place]
        return (*self.before(place), int(self.parts[part][index]))


def found_in(corpus: Corpus, config: RunConfig, token: int, after: Sequence[int] = ()) -> Found:
    """Where ``token`` stands in the text; ``after``: the tokens before it where somebody asked about it."""
    train, val = corpus.split_ids(config.data.train_ratio)
    parts = {"training": train, "validation": val}
    counts: list[int] = []
    places: list[tuple[str, int]] = []
    nearest, shared = None, 0
    for name, ids in parts.items():
        found = occurrences(ids, token, 0)
        counts.append(found.count)
        every = np.flatnonzero(np.asarray(ids) == token)
        places += [(name, int(index)) for index in every[: MOST_PLACES - len(places)]]
        alike = _same_before(np.asarray(ids), every, after)
        if len(every) and alike.max() > shared:
            nearest, shared = (name, int(every[alike.argmax()])), int(alike.max())
    if nearest is not None and nearest not in places:
        places.append(nearest)
    length = config.model.context_length
    at = places.index(nearest) if nearest is not None else 0
    return Found(counts[0], counts[1], tuple(places), parts, length, config.stride, at, shared, len(after))


def _same_before(ids: _Whole, places: _Whole, after: Sequence[int]) -> _Whole:
    """For each of the ``places`` in ``ids`` how many tokens in a row before it are those that ``after`` ends with."""
    alike = np.zeros(len(places), dtype=np.int64)
    alive = np.ones(len(places), dtype=bool)
    for back, wanted in enumerate(reversed(after), 1):
        alive &= places >= back
        alive[alive] = ids[places[alive] - back] == wanted
        alike += alive
    return alike


def places_link(corpus: Corpus, config: RunConfig, found: Found, epochs: tuple[int, ...]) -> int | None:
    """Show them; returns which of ``found.places`` is chosen, None where there is none."""
    total = found.training + found.validation
    st.markdown(
        f"**In the text** · {_times(found.training)} in the training part, "
        f"{_times(found.validation)} in the validation part"
    )
    if not found.places:
        st.caption("The model never met it in this text: its embedding is what it was at the start, but for decay.")
        return None
    n = len(found.places)
    raw = st.query_params.get(PLACE, "")
    chosen = min(n, max(1, int(raw))) if raw.isdecimal() and len(raw) < 10 else found.nearest + 1
    st.session_state["chain.place"] = chosen
    more = f" of {n:,}" if n == total else f" of the first {n:,}"
    if n > 1:
        with st.container(horizontal=True, vertical_alignment="bottom"):
            st.number_input(f"Place,{more}", 1, n, key="chain.place", on_change=_follow, width=180)
    part, index = found.places[chosen - 1]
    ids = found.parts[part]
    low = max(0, index - AROUND)
    tokens = tokens_of(ids[low : index + AROUND + 1].tolist())
    tokens[index - low]["here"] = True
    token_strip(tokens, key="chain.strip", label="The token where it stands in the text", height=130)
    if found.shared and chosen == found.nearest + 1:
        st.caption(_likeness(found))
    st.caption(
        f"Token {index + 1:,} of {len(ids):,} of the {part} part. {_windows(config, part, index, len(ids), epochs)}"
    )
    return chosen - 1


def _likeness(found: Found) -> str:
    if found.shared == found.n_asked:
        return "The same text stands before it here as where you pressed."
    few = "Only the token before it is" if found.shared == 1 else f"The {found.shared} tokens before it are"
    return f"{few} the same here as where you pressed; no other place is more like it."


def _times(count: int) -> str:
    return "once" if count == 1 else "never" if count == 0 else f"{number(count)} times"


def _follow() -> None:
    st.query_params[PLACE] = str(st.session_state["chain.place"])


def _windows(config: RunConfig, part: str, index: int, n_tokens: int, epochs: tuple[int, ...]) -> str:
    if part == "validation":
        return "No training window reads it: the model is only tested on it."
    windows = windows_with(index, n_tokens, config, epochs)
    if not windows:
        return "It falls behind the last training window: no batch reads it."
    said = []
    for window in windows:
        where = "as the last target" if window.position is None else f"at place {window.position + 1}"
        batches = [
            f"epoch {at.epoch}: batch {at.batch + 1}, row {at.row + 1} (step {at.step + 1:,})"
            for at in window.batches
            if at.batch is not None and at.row is not None and at.step is not None
        ]
        left_out = "left out of these epochs: not a full batch"
        said.append(f"Window {window.window + 1:,} reads it {where}; {'; '.join(batches) or left_out}.")
    return " ".join(said)
