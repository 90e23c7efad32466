"""Which runs the table shows, and in which order: by words, by tags, by a figure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import streamlit as st

from gptlab.summary import RunSummary

FEW = 4  # runs that need no arranging

#: What the table can be sorted by: the figure of a run (None: last) and whether the largest comes first.
ORDERS: dict[str, tuple[Callable[[RunSummary], Any], bool]] = {
    "Newest first": (lambda line: line.created, True),
    "Best validation loss": (lambda line: line.best_val_loss, False),
    "Training time": (lambda line: line.seconds or None, False),
    "Parameters": (lambda line: line.n_parameters, False),
    "Size on disk": (lambda line: line.bytes, True),
    "Name": (lambda line: line.name.casefold(), False),
}


def arranged(lines: Sequence[RunSummary]) -> list[RunSummary]:
    """Draw the choices and return the runs that they leave, in their order."""
    if len(lines) < FEW:
        return list(lines)
    tags = sorted({tag for line in lines for tag in line.tags})
    with st.container(horizontal=True, vertical_alignment="bottom", key="runs.arrange"):
        words = st.text_input(
            "Find", key="runs.find", placeholder="In names, notes and tags", icon=":material/search:", width=260
        )
        wanted = st.multiselect("Tags", tags, key="runs.tags", placeholder="Any", width=260) if tags else []
        order = st.selectbox("Order", list(ORDERS), key="runs.order", width=200)
    found = [line for line in lines if matches(line, words, wanted)]
    if len(found) < len(lines):
        st.caption(f"{len(found)} of {len(lines)} runs. Those that are ticked stay so while they are not shown.")
    return sort(found, order)


def matches(line: RunSummary, words: str, tags: Sequence[str]) -> bool:
    """Whether every word stands somewhere in the run's name, notes or tags, and it has all of ``tags``."""
    told = " ".join((line.name, line.notes, *line.tags)).casefold()
    return all(word in told for word in words.casefold().split()) and set(tags) <= set(line.tags)


def sort(lines: Sequence[RunSummary], order: str) -> list[RunSummary]:
    """The runs in that order; those whose figure is not known last."""
    figure, largest_first = ORDERS[order]
    known = [line for line in lines if figure(line) is not None]
    rest = [line for line in lines if figure(line) is None]
    return sorted(known, key=figure, reverse=largest_first) + rest
