"""A chart that is updated in place: no flicker, and zoom and hidden lines survive each update.

``st.plotly_chart`` mounts a new chart whenever its figure changes. A keyed component stays mounted, and plotly's own
``react`` draws only what is new.
"""

from __future__ import annotations

from typing import Any

from gptlab.figures import DARK, Figure
from pages.shared.addresses import plotly_url
from pages.shared.component import component

Chart = dict[str, Any]


def chart_of(
    figure: Figure,
    *,
    label: str,
    name: str = "chart",
    table: dict[str, Any] | None = None,
    csv_url: str | None = None,
    note: str | None = None,
    run: str = "",
    epochs: list[tuple[float, int]] | None = None,
    live: str | None = None,
    mark: int = 0,
) -> Chart:
    """A figure of ``gptlab.figures`` and what stands around it, as the browser gets them.

    ``label`` says in a sentence what is to be seen; ``table`` (``{"columns", "rows"}`` of texts) is the same for those
    who cannot see it; ``csv_url`` is behind the CSV button; ``name`` becomes the picture's file name; ``note`` greys
    the chart and stands in its middle, for when there is nothing to draw yet. With ``epochs``, where each epoch of that
    ``run`` ends on the x-axis, the epoch under the pointer is told to the other components on the page, and the one
    that they choose is marked here.

    A chart with the address ``live`` asks there every second for its next version (``?since=<mark>``); of two
    versions with the same address the one with the higher ``mark`` is the newer.
    """
    return {
        "figure": figure,
        "dark": DARK,
        "plotly": plotly_url(),
        "label": label,
        "name": name,
        "table": table,
        "csv": csv_url,
        "note": note,
        "run": run,
        "epochs": epochs,
        "live": live,
        "mark": mark,
    }


def live_chart(chart: Chart, *, key: str) -> None:
    """Draw a chart. Call it again with the same ``key`` to update the one that stands there."""
    # plotly puts its own styles into the document's head
    component("live_chart", uses=("poll",), isolate_styles=False)(key=key, data=chart)
