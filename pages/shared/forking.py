"""Forks on the pages: the way to one, what is about to be forked, and where a run came from."""

from __future__ import annotations

import streamlit as st

from gptlab.fork import parent_of, shape_faults
from gptlab.runs import Run
from pages.shared.draft import Draft, choose_fork, drop_fork
from pages.shared.look import escape
from pages.shared.run_picker import show_in_url
from pages.shared.store import store


def go_to_fork(run: Run, checkpoint: str) -> None:
    """Make a fork of ``run`` the draft and go to where its settings are changed."""
    choose_fork(run, checkpoint)
    st.switch_page("pages/hyperparameters.py")


def fork_banner(draft: Draft) -> None:
    """While the draft is a fork: of what, what that means, and the way out. Else nothing."""
    if draft.fork is None:
        return
    run_id, checkpoint = draft.fork
    with st.container(border=True, key="fork"):
        words, out = st.columns([5, 1], vertical_alignment="center")
        try:
            run = store().get(run_id)
            step = run.checkpoint(checkpoint).step
            told = f"**A fork of {escape(run.name)}:** it begins with the weights of {escape(checkpoint)}, after "
            told += f"{step:,} step{'s' * (step != 1)}, "
            told += "and a fresh optimiser, at step 0. The model’s shape stays; everything else may change."
        except ValueError:
            told = (
                ":red[**The run or the checkpoint that was to be forked is not there any more.**] Choose another, or "
                "begin with random weights."
            )
        words.markdown(f":material/call_split: {told}")
        out.button("Not a fork", icon=":material/close:", type="tertiary", on_click=drop_fork, key="drop-fork",
                  help="Begin with random weights instead. Every setting stays.")  # fmt: skip


def fork_fault(draft: Draft) -> str:
    """Why the draft's fork cannot start, as a sentence; empty where it can, or is none."""
    if draft.fork is None:
        return ""
    try:
        parent = store().get(draft.fork[0])
        parent.checkpoint(draft.fork[1])
        return shape_faults(parent.config.model, draft.config.model)
    except ValueError as error:
        return f"The fork cannot begin: {error}"


def parent_line(run: Run) -> None:
    """Where a fork's first weights came from, with the way there; nothing for other runs."""
    parent = parent_of(run)
    if parent is None:
        return
    here = any(other.id == parent.run for other in store().list())
    with st.container(horizontal=True, vertical_alignment="center", key="parent"):
        st.markdown(
            f":gray[:material/call_split: A fork: it began with the weights of {escape(parent.name)}, "
            f"{escape(parent.told())}, and a fresh optimiser.{'' if here else ' That run was deleted since.'}]"
        )
        if here:
            st.button(
                "To its parent", icon=":material/north_west:", type="tertiary", on_click=show_in_url, args=(parent.run,)
            )
