"""One token of the answer: what else might have stood there, and how to go on from it."""

from __future__ import annotations

from collections.abc import Callable

import streamlit as st

from gptlab.sampling import GeneratedToken
from pages.shared.answer import CHOSEN
from pages.shared.continuations import Tree
from pages.shared.look import number
from pages.shared.token_bars import bars_of, token_bars
from pages.shared.token_strip import trace

Fork = Callable[[int, int, int | None], None]  # text, place, the alternative or None: drawn anew


def chosen_token(tree: Tree, fork: Fork) -> None:
    """The panel of the token that was pressed in the answer, if one was. ``fork`` writes on from there."""
    branch, chosen = tree.current, st.session_state.get(CHOSEN)
    if branch is None or branch.generation.active or not chosen:
        return
    text, place = chosen
    if text >= len(branch.generation.texts) or place >= len(branch.generation.texts[text]):
        return
    token = branch.generation.texts[text][place]
    with st.container(border=True, key="chosen-token"):
        with st.container(horizontal=True, vertical_alignment="center"):
            st.markdown(f"**Token {place + 1} of the answer** · {_how_likely(token)}", width="stretch")
            st.button("Close", icon=":material/close:", type="tertiary", on_click=forget_choice)
        st.caption("What else might have stood here. Press one: the answer goes on from it, and you can walk back.")
        ids = [id_ for id_, _ in token.alternatives]
        chances = [chance for _, chance in token.alternatives]
        if token.id not in ids:
            ids, chances = [*ids, token.id], [*chances, token.probability]
        pressed = token_bars(
            bars_of(ids, chances, chosen=token.id),
            key="alternatives",
            label="Alternatives at this place, with the model's own probabilities",
            pressable=True,
        )
        with st.container(horizontal=True):
            again = st.button("Write on from before it", icon=":material/refresh:", key="regenerate-here")
            if st.button("Where this token comes from", icon=":material/account_tree:", key="trace-chosen"):
                before = [earlier.id for earlier in branch.generation.texts[text][:place]]
                trace(token.id, [*branch.generation.prompts[text].ids, *before])
    if pressed is not None or again:
        fork(text, place, None if again else pressed)
        st.rerun()


def _how_likely(token: GeneratedToken) -> str:
    rank = 1 + sum(p > token.probability for _, p in token.alternatives)
    ranked = f"no. {rank} of the model's choices" if rank <= len(token.alternatives) else "none of its ten likeliest"
    return f"{number(100 * token.probability, 1)} % likely, {ranked}"


def forget_choice() -> None:
    st.session_state.pop(CHOSEN, None)
