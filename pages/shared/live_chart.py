"""A chart that is updated in place: no flicker, and zoom and hidden lines survive each update.

``st.plotly_chart`` mounts a new chart whenever its figure changes. A keyed component stays mounted, and plotly's own
``react`` draws only what is new.
"""

from __future__ import annotations

from typing import Any

from gptlab.figures import DARK, Figure
from pages.shared.component import component
from pages.shared.routes import plotly_url


def live_chart(
    figure: Figure,
    *,
    key: str,
    label: str,
    name: str = "chart",
    table: dict[str, Any] | None = None,
    csv_url: str | None = None,
    note: str | None = None,
    run: str = "",
    epochs: list[tuple[float, int]] | None = None,
) -> None:
    """Draw a figure of ``gptlab.figures``. Call it again with the same ``key`` to update the chart that stands there.

    ``label`` says in a sentence what is to be seen; ``table`` (``{"columns", "rows"}`` of texts) is the same for those
    who cannot see it; ``csv_url`` is behind the CSV button; ``name`` becomes the picture's file name; ``note`` greys
    the chart and stands in its middle, for when there is nothing to draw yet. With ``epochs``, where each epoch of that
    ``run`` ends on the x-axis, the epoch under the pointer is told to the other components on the page, and the one
    that they choose is marked here.
    """
    data = {
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
    }
    # plotly puts its own styles into the document's head
    component("live_chart", isolate_styles=False)(key=key, data=data)
