"""Score a text: how surprised a model is by it, and whether another text, or another epoch, does better."""

from __future__ import annotations

import streamlit as st

from gptlab.runs import Run
from pages.shared.asked import epoch_label, saved_steps, scored, weights_of
from pages.shared.generation import read_prompt
from pages.shared.look import escape, number
from pages.shared.surprise import surprise_strip
from pages.shared.url_field import Field, one_of

TEXT, OTHER_TEXT, AGAINST, OTHER = (f"playground.{name}" for name in ("text", "text_b", "against", "score_b"))
CHOICES = {"nothing": "Nothing", "text": "Another text", "epoch": "Another epoch"}
FIELDS = (
    Field("text", TEXT, str),
    Field("text_b", OTHER_TEXT, str),
    Field("against", AGAINST, one_of(*CHOICES), "nothing"),
    Field("score_b", OTHER, str),
)
MOST_TOKENS = 4_096  # scored at once
EXAMPLE = "The river rose, and the book said so."


def score_section(run: Run, wanted: str | None) -> None:
    st.session_state.setdefault(TEXT, EXAMPLE)
    st.session_state.setdefault(AGAINST, "nothing")
    against = st.segmented_control(
        "Compare with", list(CHOICES), format_func=CHOICES.__getitem__, required=True, key=AGAINST,
        persist_state="session",
    )  # fmt: skip
    if wanted is None:
        st.info("Nothing is saved yet: scoring needs a checkpoint.", icon=":material/hourglass_top:")
        return
    left, right = st.columns(2, gap="medium") if against != "nothing" else (st.container(), None)
    with left:
        text = st.text_area("Text", key=TEXT, height=120, persist_state="session") or ""
        first = _score(run, wanted, text, "A")
    if right is None:
        return
    with right:
        if against == "text":
            text = st.text_area("Another text", key=OTHER_TEXT, height=120, persist_state="session") or ""
            second = _score(run, wanted, text, "B")
        else:
            names = saved_steps(run)
            if st.session_state.get(OTHER) not in names:
                st.session_state[OTHER] = names[0]
            labels = {name: epoch_label(run, name) for name in names}
            other = st.selectbox(
                "Weights of B", names, format_func=lambda name: labels[name], key=OTHER, persist_state="session"
            )
            st.caption("The same text, by these weights.")
            second = _score(run, other, text, "B")
    if first and second:
        st.caption(_verdict(first, second, str(against)))


def _score(run: Run, checkpoint: str, text: str, side: str) -> float | None:
    """Figures and strip of one text by one checkpoint; its bits per character, None where it cannot be scored."""
    prompt = read_prompt(text)
    ids = prompt.ids[:MOST_TOKENS]
    if prompt.from_nothing:
        st.info("Paste or type a text.", icon=":material/edit:")
        return None
    try:
        found = scored(weights_of(run, checkpoint), ids)
    except ValueError as error:
        st.error(escape(str(error)), icon=":material/error:")
        return None
    st.caption(f"**{side}** · {escape(run.name)}, {escape(epoch_label(run, checkpoint))}")
    with st.grid(4, min_column_width=96, gap="small"):
        st.metric("Perplexity", number(found.perplexity, 1), help="e to the loss: as unsure as among so many tokens.")
        st.metric("Loss", number(found.loss, 3), help="Mean surprise in nats a token.")
        st.metric(
            "Bits/char",
            number(found.bits_per_character, 2),
            help="Fair between texts and tokenizers: 8 is no idea at all.",
        )
        st.metric("Tokens", number(len(ids)))
    if len(prompt.ids) > len(ids) or prompt.cut_characters:
        st.caption(f"The text is long: its first {len(ids):,} tokens of what was read are scored.")
    surprise_strip(ids, found.losses, key=f"score-{side}", height=260)
    return found.bits_per_character


def _verdict(first: float, second: float, against: str) -> str:
    if abs(first - second) < 0.005:
        return "Both cost the same number of bits a character."
    better, worse = ("A", "B") if first < second else ("B", "A")
    what = "text is the less surprising one" if against == "text" else "weights know this text better"
    low, high = sorted((first, second))
    return f"{better}’s {what}: {number(low, 2)} bits a character against {number(high, 2)} for {worse}."
