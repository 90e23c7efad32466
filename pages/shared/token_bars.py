"""Probabilities of a few tokens as bars: the model's own, and what the decoding settings make of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypedDict

from pages.shared.component import component


class Bar(TypedDict, total=False):
    """``p`` is drawn; ``before``, where given, above it, thinner; ``chosen`` marks the token that was written."""

    text: str
    id: int
    p: float
    before: float
    chosen: bool


def bars_of(
    ids: Sequence[int], chances: Sequence[float], before: Sequence[float] = (), *, chosen: int | None = None
) -> list[Bar]:
    """Rows for ``token_bars`` from token ids and as many probabilities."""
    from gptlab.tokenizer import token_pieces

    rows: list[Bar] = []
    for place, (id_, piece, p) in enumerate(zip(ids, token_pieces(ids), chances, strict=True)):
        row: Bar = {"text": piece, "id": int(id_), "p": float(p), "chosen": int(id_) == chosen}
        if before:
            row["before"] = float(before[place])
        rows.append(row)
    return rows


def token_bars(
    rows: Sequence[Bar],
    *,
    key: str,
    label: str,
    pressable: bool = False,
    unit: Literal["share", "cosine"] = "share",
    empty: str = "Nothing here yet.",
) -> int | None:
    """Show the bars; returns the id of the token that was just pressed, where ``pressable``. ``unit``: what is
    drawn, probabilities or cosines."""
    data = {"rows": list(rows), "label": label, "pressable": pressable, "empty": empty, "unit": unit}
    chosen = component("token_bars")(key=key, data=data, on_chosen_change=lambda: None).chosen
    return None if chosen is None else int(chosen)
