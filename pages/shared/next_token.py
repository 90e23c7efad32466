"""The decoding laboratory: which tokens the settings leave, and with what probability, from logits that are kept."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from gptlab.config import SamplingConfig
from gptlab.runs import Run
from pages.shared.asked import next_logits, weights_of
from pages.shared.decoding import chosen_beams, chosen_device, chosen_sampling
from pages.shared.look import escape, number
from pages.shared.token_bars import bars_of, token_bars

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


def draw(logits: object, ids: Sequence[int], sampling: SamplingConfig) -> None:
    from gptlab.sampling import filtered_distribution

    own = filtered_distribution(logits, ids, SamplingConfig(temperature=1.0))
    left = filtered_distribution(logits, ids, sampling)
    order = own.topk(min(SHOWN, len(own))).indices
    after = left.topk(min(SHOWN, len(left)))
    rows = list(dict.fromkeys([*order.tolist(), *after.indices[after.values > 0].tolist()]))
    rows = sorted(rows, key=lambda id_: (-float(left[id_]), -float(own[id_])))[:SHOWN]
    token_bars(
        bars_of(rows, [float(left[i]) for i in rows], [float(own[i]) for i in rows]),
        key="next-token",
        label="The likeliest next tokens, before and after the settings",
    )
    kept = int((left > 0).sum())
    entropies = f"entropy {number(entropy(own), 2)} → {number(entropy(left), 2)} bits"
    beams = " Beam search looks further than one token." if chosen_beams() > 1 else ""
    st.caption(f"{kept:,} of {len(own):,} tokens can be drawn; {entropies}.{beams}")


def entropy(chances: object) -> float:
    """Of a distribution [V], in bits: as many fair coins would be as uncertain."""
    from gptlab.sampling import entropy_bits

    return entropy_bits(chances)


def sampling_or_greedy() -> SamplingConfig:
    """What the panel says, or the default while its values are impossible."""
    try:
        return chosen_sampling()
    except ValueError:
        return SamplingConfig()
