"""Tokens as text that can be read, pointed at and walked through with the keyboard."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from pages.shared.component import component

Token = dict[str, Any]


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


def token_strip(
    tokens: list[Token],
    *,
    key: str,
    height: int | None = None,
    show_whitespace: bool = False,
    legend: bool = False,
    label: str = "Tokens",
    empty: str = "Nothing here yet.",
) -> None:
    """Show tokens as running text; hover, focus or tap tells id, bytes, probability and alternatives.

    A token is ``{"text", "id"}`` and, if known, ``"p"`` (its probability: tint and underline grow as it falls),
    ``"alternatives"`` ([[text, p], ...]), ``"mark"`` (same, added, removed, prompt), ``"bytes"`` (hex), ``"title"``
    (one more line), ``"plain"`` (True: no colour), ``"copied"`` (``{"before", "text", "after", "where"}``: the corpus's
    passage that it lies in, and its place). Without ``p`` colours alternate. ``height``: scroll beyond so many
    pixels. ``legend``: explain the tints. Text is never read as HTML.
    """
    component("token_strip")(
        key=key,
        data={
            "tokens": tokens,
            "height": height,
            "show_whitespace": show_whitespace,
            "legend": legend,
            "label": label,
            "empty": empty,
        },
    )
