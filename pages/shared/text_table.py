"""A table whose long texts wrap and whose rows can be chosen; what stands in it is shown as text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

from pages.shared.component import component

Kind = Literal["", "number", "prose"]


def text_table(
    columns: Sequence[tuple[str, Kind]],
    rows: Sequence[Sequence[str]],
    *,
    key: str,
    label: str,
    chosen: int | None = None,
    choosable: bool = True,
    scrolls: bool = False,
    on_choose: Callable[[], None] = lambda: None,
) -> int | None:
    """Show the table; returns the row whose first cell was just pressed. ``chosen`` is the row to highlight; rows that
    are not ``choosable`` are only read. On a narrow screen a row becomes a small card, unless it ``scrolls``.
    """
    data = {
        "columns": [{"name": name, "kind": kind} for name, kind in columns],
        "rows": [list(row) for row in rows],
        "chosen": chosen,
        "choosable": choosable,
        "scrolls": scrolls,
        "label": label,
    }
    return component("text_table")(key=key, data=data, on_chosen_change=on_choose).chosen
