"""What a run's samples copied from its text: looked up in an index that a thread opens, once for all sessions."""

from __future__ import annotations

import threading
from typing import Any, Literal

import streamlit as st

from gptlab.config import RunConfig
from gptlab.copying import Copied, CorpusIndex
from gptlab.corpus import open_corpus
from gptlab.runs import Run

State = Literal["opening", "ready", "gone"]
QUICK = 1.0  # seconds: a text of a few megabytes is sorted by then, and the page is drawn once


class Copies:
    """The index of one text as a run has cut it. ``fault`` says why there is none."""

    def __init__(self, config: RunConfig) -> None:
        self.state: State = "opening"
        self.fault = ""
        self._config = config
        self._index: CorpusIndex | None = None
        self._found: dict[tuple[int, ...], Copied] = {}
        self._done = threading.Event()
        self._waited_for = False
        threading.Thread(target=self._open, name="index-the-text", daemon=True).start()

    def _open(self) -> None:
        try:
            corpus = open_corpus(self._config.data.corpus, download=False)
            self._index = CorpusIndex(corpus, self._config)
            self.state = "ready"
        except (ValueError, OSError, MemoryError) as error:
            self.fault = str(error) or "there is not enough memory for it."
            self.state = "gone"
        finally:
            self._done.set()

    def wait(self, seconds: float) -> None:
        """Wait until it is open, at most so long, and only once: pages that are drawn again go on without it."""
        if not self._waited_for:
            self._done.wait(seconds)
            self._waited_for = True

    def of(self, ids: tuple[int, ...]) -> Copied | None:
        """What of those tokens was copied; None while that is not known, or cannot be."""
        if self._index is None:
            return None
        if ids not in self._found:
            self._found[ids] = self._index.find(ids)
        return self._found[ids]

    def passages(self, copied: Copied) -> list[dict[str, Any]]:
        """The matches as a token strip shows them: the passage, what is around it, its place in words."""
        shown = []
        for match in copied.matches:
            assert self._index is not None
            before, text, after = self._index.passage(match)
            window = f"window {match.window:,}" if match.window else "in no window"
            often = f", {match.times:,} times there" if match.times > 1 else ""
            where = f"{match.length} tokens, {match.part} part, character {match.character:,}, {window}{often}"
            shown.append({"before": before, "text": text, "after": after, "where": where})
        return shown


def copies_of(run: Run) -> Copies | None:
    """The index of a run's text, ready or still being opened; None for a run whose configuration cannot be read."""
    try:
        config = run.config
    except ValueError:
        return None
    key = (config.data.corpus, config.data.train_ratio, config.model.context_length, config.stride)
    copies = _opened(str(key), config)
    copies.wait(QUICK)
    if copies.state == "gone":
        _opened.clear(str(key))  # it is looked for again: the text may have been put back
    return copies


@st.cache_resource(max_entries=4, show_spinner=False)
def _opened(key: str, _config: RunConfig) -> Copies:
    return Copies(_config)
