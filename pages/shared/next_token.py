"""The decoding laboratory: which tokens the settings leave, and with what probability, from logits that are kept."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import streamlit as st

from gptlab.config import SamplingConfig
from gptlab.runs import Run
from pages.shared.asked import next_logits, weights_of
from pages.shared.decoding import chosen_beams, chosen_device, chosen_sampling
from pages.shared.look import escape, number
from pages.shared.token_bars import bars_of, token_bars

if TYPE_CHECKING:
    from torch import Tensor

SHOWN = 12


def next_token(run: Run, wanted: str | None, ids: Sequence[int]) -> None:
    """The distribution of the token after ``ids``, before and after the settings. The model is asked once a text."""
    st.subheader("The next token", anchor=False)
    if wanted is None:
        st.caption("Nothing is saved yet.")
        return
    try:
        logits = next_logits(weights_of(run, wanted), tuple(ids), chosen_device())
        draw(logits, ids, chosen_sampling())
    except ValueError as error:
        st.caption(escape(str(error)))


def draw(logits: Tensor, ids: Sequence[int], sampling: SamplingConfig) -> None:
    """Bars of what ``logits`` say after ``ids``, and of what ``sampling`` leaves of it."""
    from gptlab.distribution import filtered_distribution

    found = filtered_distribution(logits, ids, sampling)
    rows = sorted(found.likeliest(SHOWN), key=lambda row: (-row.after, -row.before))[:SHOWN]
    token_bars(
        bars_of([row.id for row in rows], [row.after for row in rows], [row.before for row in rows]),
        key="next-token",
        label="The likeliest next tokens, before and after the settings",
    )
    entropies = f"entropy {bits(found.entropy_before)} → {bits(found.entropy_after)} bits"
    beams = " Beam search looks further than one token." if chosen_beams() > 1 else ""
    st.caption(f"{found.n_kept:,} of {len(found.before):,} tokens can be drawn; {entropies}.{beams}")


def bits(nats: float) -> str:
    """An entropy as people read it: as many fair coins would be as uncertain."""
    return number(nats / math.log(2), 2)


def sampling_or_greedy() -> SamplingConfig:
    """What the panel says, or the default while its values are impossible."""
    try:
        return chosen_sampling()
    except ValueError:
        return SamplingConfig()
