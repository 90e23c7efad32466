"""Tokens as text that can be read, pointed at and walked through with the keyboard."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Literal

import streamlit as st

from pages.shared.component import component
from pages.shared.url_state import change_url

Token = dict[str, Any]
TRACED = "token"  # the token whose chain is open, in the URL
PLACE = "place"  # which of its places in the text is looked at, from 1
AFTER = "after"  # the tokens that stood before it where it was pressed
CONTEXT = 12  # of them at most


def tokens_of(ids: Sequence[int], probabilities: Sequence[float | None] = (), *, prompt: int = 0) -> list[Token]:
    """Tokens for ``token_strip`` from ids: display text, true bytes, probabilities, the first ``prompt`` marked."""
    from gptlab.tokenizer import get_tokenizer, token_pieces

    tokenizer = get_tokenizer()
    found = []
    for index, (id_, piece) in enumerate(zip(ids, token_pieces(ids, tokenizer), strict=True)):
        token: Token = {"text": piece, "id": int(id_)}
        with suppress(KeyError):  # a model may have more entries than the tokenizer
            token["bytes"] = tokenizer.decode_single_token_bytes(int(id_)).hex(" ")
        if index < prompt:
            token["mark"] = "prompt"
        if index < len(probabilities):
            token["p"] = probabilities[index]
        found.append(token)
    return found


def trace(token: int, after: Sequence[int] = ()) -> None:
    """Open the chain of a token: the page is drawn again, with the dialog on it.

    ``after``: the tokens before it where it was pressed, by which its place in the text is told from its others.
    """
    stood_before = ".".join(str(int(id_)) for id_ in after[-CONTEXT:])
    change_url({TRACED: str(token), PLACE: None, AFTER: stood_before or None})
    st.rerun()


def token_strip(
    tokens: list[Token],
    *,
    key: str,
    height: int | None = None,
    show_whitespace: bool = False,
    legend: bool = False,
    label: str = "Tokens",
    empty: str = "Nothing here yet.",
    press: Literal["trace", "choose", "nothing"] = "trace",
    hint: str = "Press: where it comes from",
) -> int | None:
    """Show tokens as running text; hover, focus or tap tells id, bytes, probability and alternatives.

    A token is ``{"text", "id"}`` and, if known, ``"p"`` (its probability: tint and underline grow as it falls),
    ``"alternatives"`` ([[text, p], ...]), ``"mark"`` (same, added, removed, prompt), ``"bytes"`` (hex), ``"title"``
    (one more line), ``"plain"`` (True: no colour), ``"here"`` (True: outlined), ``"copied"`` (``{"before", "text",
    "after", "where"}``: the corpus's passage that it lies in, and its place). Without ``p`` colours alternate.
    ``height``: scroll beyond so many pixels. ``legend``: explain the tints. Text is never read as HTML.

    Pressing a token leads to its chain (``?token=<id>``), or, with ``press="choose"``, makes this call return its
    place among ``tokens``. ``hint`` says in the token's card what a press does.
    """
    pressed = component("token_strip")(
        key=key,
        data={
            "tokens": tokens,
            "height": height,
            "show_whitespace": show_whitespace,
            "legend": legend,
            "label": label,
            "empty": empty,
            "pressable": press != "nothing",
            "hint": hint,
        },
        on_pressed_change=lambda: None,
    ).pressed
    if pressed and press == "trace":
        trace(int(pressed["id"]), pressed["after"])
    if pressed and press == "choose":
        place = int(pressed["index"])
        return place if place < len(tokens) and tokens[place]["id"] == pressed["id"] else None
    return None
