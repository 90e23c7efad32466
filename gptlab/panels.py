"""Where a chart's panels and axes stand: losses above, learning rate and gradient norm below, tokens along the top."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from gptlab.metrics import Axis, Extent, Floats

Figure = dict[str, Any]
AXIS_TITLES: dict[Axis, str] = {
    "epoch": "epoch",
    "step": "optimiser steps",
    "tokens": "tokens seen",
    "time": "seconds of training",
    "flops": "floating-point operations",
}
HOVER_FORMATS: dict[Axis, str] = {"epoch": ".2f", "step": ",d", "tokens": ",d", "time": ".1f", "flops": ".3~s"}


def end_of(axis: Axis, extent: Extent, xs: Sequence[float] | Floats) -> float:
    """Where the x-axis ends: where the run is meant to end, or where it is, if that is farther or all that is known."""
    meant = {"epoch": extent.epochs, "step": float(extent.total_steps), "tokens": extent.tokens}.get(axis, 0.0)
    reached = next((float(x) for x in xs[::-1] if math.isfinite(x)), 0.0)  # they ascend
    return max(meant, reached) or 1.0


def layout_of(
    axis: Axis, extent: Extent, end: float, log_x: bool, log_y: bool, revision: str, has_data: bool
) -> Figure:
    """The panels, their axes and their ranges. Zoom is kept as long as ``revision`` and the kind of the axes stay."""
    small = {"anchor": "x", "zeroline": False, "showspikes": False, "nticks": 4, "fixedrange": True}
    x_range = [0.0, end * 1.02]
    if log_x:
        first = max(end / 1000, 1e-9)
        x_range = [math.log10(first), math.log10(end * 1.05)]
    other, factor = _other_axis(axis, extent)
    return {
        "annotations": [_caption("learning rate", 0.35), _caption("gradient norm", 0.14)],
        "height": 640,
        "margin": {"l": 58, "r": 14, "t": 46, "b": 44},
        "showlegend": False,
        "hovermode": "x unified",
        "hoversubplots": "axis",
        "dragmode": "zoom",
        "uirevision": f"{revision}/{axis}/{log_x}/{log_y}",
        "xaxis": {
            "title": {"text": AXIS_TITLES[axis], "standoff": 6},
            "type": "log" if log_x else "linear",
            "range": x_range,
            "autorange": axis in ("time", "flops") and has_data,
            "exponentformat": "power" if axis == "flops" else "B",
            "anchor": "y3",
            "zeroline": False,
            "rangemode": "tozero",
            "showspikes": True,
            "spikemode": "across",
            "spikethickness": 1,
            "spikedash": "dot",
            "hoverformat": HOVER_FORMATS[axis],
            "unifiedhovertitle": {"text": f"{AXIS_TITLES[axis]} %{{x}}"},
        },
        "xaxis2": {
            "overlaying": "x",
            "side": "top",
            "anchor": "y",
            "title": {"text": other, "standoff": 4},
            "type": "log" if log_x else "linear",
            "factor": factor,
            "showgrid": False,
            "zeroline": False,
            "fixedrange": True,
            "visible": bool(factor),
        },
        "yaxis": {
            "title": {"text": "loss (nats a token)"},
            "domain": [0.42, 1],
            "anchor": "x",
            "type": "log" if log_y else "linear",
            "zeroline": False,
            "showspikes": False,
            "rangemode": "normal" if log_y else "tozero",
            "autorange": has_data,
            **({} if has_data else {"range": [-0.5, 1.1] if log_y else [0, 11.5]}),
        },
        "yaxis2": {
            **small,
            "domain": [0.21, 0.345],
            "rangemode": "tozero",
            "exponentformat": "e",
            **({} if has_data else {"range": [0, 1], "showticklabels": False}),
        },
        "yaxis3": {
            **small,
            "domain": [0, 0.135],
            "rangemode": "tozero",
            **({} if has_data else {"range": [0, 1], "showticklabels": False}),
        },
    }


def _caption(text: str, y: float) -> Figure:
    """The name of a small panel, above its left corner."""
    place = {"x": 0, "xref": "paper", "xanchor": "left", "y": y, "yref": "paper", "yanchor": "bottom"}
    return {"text": text, "showarrow": False, "font": {"size": 12}, **place}


def _other_axis(axis: Axis, extent: Extent) -> tuple[str, float]:
    """What the top axis counts, and how many of it make one unit of the bottom axis (0: no top axis)."""
    if axis == "tokens" and extent.tokens_per_step and extent.steps_per_epoch:
        return "epoch", 1 / (extent.tokens_per_step * extent.steps_per_epoch)
    if axis == "step" and extent.tokens_per_step:
        return "tokens seen", extent.tokens_per_step
    if axis == "epoch" and extent.tokens_per_step:
        return "tokens seen", extent.tokens_per_step * extent.steps_per_epoch
    return "", 0.0
