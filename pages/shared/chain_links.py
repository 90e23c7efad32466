"""Links of the chain that ask models: a token's loss at each epoch, its neighbours, and what predicted it."""

from __future__ import annotations

import math

import streamlit as st

from gptlab.runs import Run
from pages.shared.asked import attention, epoch_label, guesses, neighbours, saved_steps, some_steps, weights_of
from pages.shared.attention_map import attention_map
from pages.shared.look import escape, number
from pages.shared.text_table import text_table
from pages.shared.token_bars import bars_of, token_bars


def losses_link(run: Run, passage: tuple[int, ...]) -> None:
    """How surprised each saved epoch is by the last token of ``passage``, and what it would have said instead."""
    from gptlab.tokenizer import token_pieces

    if len(passage) < 2:
        st.caption("It is the very first token of its part: nothing stands before it to predict it from.")
        return
    names, rows = some_steps(run), []
    bar = st.progress(0.0, text="Asking every epoch …")
    for done, name in enumerate(names, 1):
        try:
            found = guesses(weights_of(run, name), passage[:-1], passage[-1])
            pieces = token_pieces([id_ for id_, _ in found.likeliest[:3]])
            chances = [p for _, p in found.likeliest[:3]]
            said = ", ".join(f"“{piece}” {100 * p:.0f} %" for piece, p in zip(pieces, chances, strict=True))
            loss = -math.log(max(found.chance, 1e-45))
            rows.append(
                [epoch_label(run, name), number(loss, 2), f"{100 * found.chance:.2g} %", number(found.rank), said]
            )
        except ValueError as error:
            rows.append([epoch_label(run, name), "–", "–", "–", f"({error})"])
        bar.progress(done / len(names), text="Asking every epoch …")
    bar.empty()
    text_table(
        [("Weights", ""), ("Loss", "number"), ("Chance", "number"), ("Rank", "number"), ("It would say", "prose")],
        rows, key="chain.losses", label="The token's loss at each saved epoch", pressable=False,
    )  # fmt: skip


def neighbours_link(run: Run, token: int) -> None:
    """The tokens whose embeddings point the same way, at two epochs."""
    names = saved_steps(run)
    labels = {name: epoch_label(run, name) for name in names}
    st.caption("Tokens whose embeddings point the same way: cosine 1 is the same direction, 0 a right angle.")
    for side, column, default in zip("ab", st.columns(2, gap="medium"), (0, len(names) - 1), strict=True):
        with column:
            chosen = st.selectbox(
                "At", names, index=default, format_func=lambda name: labels[name], key=f"chain.near.{side}"
            )
            found = neighbours(weights_of(run, chosen), token)
            token_bars(
                bars_of([id_ for id_, _ in found], [max(0.0, cosine) for _, cosine in found]),
                key=f"chain.neighbours.{side}", label="Nearest neighbours by cosine", unit="cosine",
            )  # fmt: skip


def attention_link(run: Run, before: tuple[int, ...]) -> None:
    """Where each head looked when the token was predicted: the last row of every map."""
    from gptlab.tokenizer import token_pieces

    if not before:
        st.caption("It is the very first token of its part: nothing stands before it to predict it from.")
        return
    st.caption(
        f"The text before it, as {escape(epoch_label(run, 'last'))} reads it. The last token of it looks back, and "
        "what it gathers is what the token was predicted from."
    )
    weights = attention(weights_of(run, "last"), before)
    at = st.session_state.get("chain.head", (0, 0))
    at = (min(at[0], weights.shape[0] - 1), min(at[1], weights.shape[1] - 1))
    pressed = attention_map(token_pieces(before), weights, key="chain.attention", chosen=at)
    if pressed and pressed != at:
        st.session_state["chain.head"] = pressed
        st.rerun(scope="fragment")
