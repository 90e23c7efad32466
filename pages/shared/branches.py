"""The tree of continuations, to be walked back and forth."""

from __future__ import annotations

import streamlit as st

from pages.shared.answer import CHOSEN
from pages.shared.continuations import Branch, Tree
from pages.shared.generation import alternative_pieces
from pages.shared.look import escape

KEY = "playground.branch"


def branches(tree: Tree) -> None:
    """A line for each answer since the prompt; choosing one shows it again. Nothing where there is only one."""
    if len(tree.branches) < 2:
        return
    ordered = tree.in_order()
    labels = {branch.id: _label(branch) for branch in ordered}
    st.session_state[KEY] = tree.at
    st.radio(
        "Continuations", list(labels), format_func=lambda id_: labels.get(id_, ""), key=KEY,
        on_change=_follow, args=(tree,), help="Each goes on from a place of the one above it. Choose one to walk back.",
    )  # fmt: skip


def _follow(tree: Tree) -> None:
    tree.go_to(st.session_state[KEY])
    st.session_state.pop(CHOSEN, None)


def _label(branch: Branch) -> str:
    if branch.parent is None:
        return "The first answer"
    indent = "\u2003" * (branch.depth - 1) + "\u2514 "
    if branch.chosen:
        return f"{indent}at token {branch.place + 1}, “{escape(branch.chosen)}” instead"
    return f"{indent}from token {branch.place + 1}, written anew"


def piece_of(tree: Tree, text: int, place: int, id_: int) -> str:
    """How an alternative reads."""
    branch = tree.current
    assert branch is not None
    token = branch.generation.texts[text][place]
    pieces = alternative_pieces([token])[0]
    return next(
        (str(piece[0]) for piece, (other, _) in zip(pieces, token.alternatives, strict=True) if other == id_), ""
    )
