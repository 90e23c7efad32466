"""What each layer would say next, at each place of a text, were it the last one (the logit lens)."""

from __future__ import annotations

from collections.abc import Sequence

from pages.shared.component import component


def lens_table(
    columns: Sequence[str],
    rows: Sequence[tuple[str, Sequence[tuple[str, float]]]],
    following: Sequence[str],
    *,
    key: str,
    label: str,
    corner: str = "",
) -> None:
    """``columns``: T display texts; ``rows``: a name and T (display text, probability); ``following``: what really
    comes after each place ("" where nothing does): a cell that says it is marked."""
    data = {
        "columns": list(columns),
        "rows": [{"name": name, "cells": [list(cell) for cell in cells]} for name, cells in rows],
        "next": list(following),
        "label": label,
        "corner": corner,
    }
    component("lens_table")(key=key, data=data)
