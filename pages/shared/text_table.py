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
    pressable: bool = True,
    scrolls: bool = False,
    on_choose: Callable[[], None] = lambda: None,
    epochs: Sequence[int] | None = None,
    run: str = "",
) -> int | None:
    """Show the table; returns the row whose first cell was just pressed, if ``pressable``. ``chosen`` is the row to
    highlight. On a narrow screen a row becomes a small card, unless the table ``scrolls``.

    With ``epochs``, one for each row, a press tells the other components of that ``run`` on the page instead, and what
    they choose is highlighted here: the server is not asked.
    """
    data = {
        "columns": [{"name": name, "kind": kind} for name, kind in columns],
        "rows": [list(row) for row in rows],
        "chosen": chosen,
        "scrolls": scrolls,
        "label": label,
        "pressable": pressable,
        "epochs": None if epochs is None else list(epochs),
        "run": run,
    }
    return component("text_table")(key=key, data=data, on_chosen_change=on_choose).chosen
