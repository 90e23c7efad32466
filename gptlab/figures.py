"""Rows -> plotly figures, as plain dictionaries. No Streamlit; nothing here reads a file.

Colours are the Okabe-Ito ones, told apart by people who do not see red or green; they are never the only cue: train
and validation differ in marker and dash too. ``DARK`` maps each to what reads well on a dark page.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gptlab.events import Evaluated
from gptlab.log import RunLog
from gptlab.metrics import MOST_POINTS, Axis, Extent, positions, step_positions, thin_evaluations, thin_steps
from gptlab.panels import end_of, layout_of

TRAIN, VAL, BEST, RATE, NORM, FAINT = "#0072B2", "#D55E00", "#009E73", "#8C6D1F", "#7B5EA7", "#8A8578"
GAP = "rgba(213, 94, 0, 0.14)"
DARK = {
    TRAIN: "#56B4E9",
    VAL: "#F08A3C",
    BEST: "#2FC796",
    RATE: "#D9B44A",
    NORM: "#B79BE0",
    FAINT: "#9A978E",
    GAP: "rgba(240, 138, 60, 0.20)",
    "#444444": "#C8C4BA",
}
#: For several runs on one chart: colour, dash and marker change together.
CYCLE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#8C6D1F", "#56B4E9", "#7B5EA7", "#444444")
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
MOST_HOVERED = 12  # runs whose values one hover can list
SYMBOLS = ("circle", "diamond", "square", "triangle-up", "x", "star", "cross", "triangle-down")

MOST_ROWS = 200  # of the table beside a chart; the CSV holds all

Figure = dict[str, Any]


def training_figure(
    log: RunLog | None,
    extent: Extent,
    *,
    vocab_size: int,
    unigram_entropy: float | None = None,
    axis: Axis = "epoch",
    log_x: bool = False,
    log_y: bool = False,
    smoothing: float = 0.0,
    revision: str = "",
) -> Figure:
    """Losses, learning rate and gradient norm of one run above one another on one x-axis.

    The traces and their order are always the same, with or without data, so that a chart can be updated in place.
    ``unigram_entropy`` (nats a token) is where a model would stand that only knows how often each token occurs.
    ``revision`` names the run: zoom is kept as long as it and the kind of the axes stay the same.
    """
    log = log or RunLog(Path())  # an empty one
    steps = log.steps
    evaluations = log.evaluations
    if axis == "epoch" and not extent.steps_per_epoch and steps:
        axis = "step"
    end = end_of(axis, extent, step_positions(steps, axis, extent, range(len(steps))[-1:]))
    after_best = _after_best(evaluations)
    best = after_best[:1]
    best_x = positions(log, axis, extent, best)
    gap = after_best if len(after_best) > 1 else []
    guess = math.log(vocab_size)
    spaced = "%{y:.4f}"
    traces = [
        _line(
            "uniform guessing",
            [0.001 if log_x else 0.0, end],
            [guess, guess],
            FAINT,
            dash="dot",
            width=1.5,
            hover="skip",
            legend=f"uniform guessing, ln V = {guess:.2f}",
        ),
        _line(
            "token frequencies alone",
            [0.001 if log_x else 0.0, end] if unigram_entropy is not None else [],
            [unigram_entropy] * 2 if unigram_entropy is not None else [],
            FAINT,
            dash="longdashdot",
            width=1.2,
            hover="skip",
            legend=None if unigram_entropy is None else f"token frequencies alone, {unigram_entropy:.2f}",
        ),
        _line("gap, lower edge", *thin_evaluations(log, gap, "train_loss", axis, extent), FAINT, width=0, hover="skip"),
        _line(
            "overfitting gap",
            *thin_evaluations(log, gap, "val_loss", axis, extent),
            GAP,
            width=0,
            hover="skip",
            legend="gap after the best",
            fill="tonexty",
            fillcolor=GAP,
        ),
        _line(
            "train, each step",
            *thin_steps(steps, "loss", axis, extent),
            TRAIN,
            width=1.2,
            opacity=0.5,
            hover=spaced,
            legend="train, each step",
        ),
        _line(
            "train, smoothed",
            *(thin_steps(steps, "loss", axis, extent, smoothing=smoothing) if smoothing else ([], [])),
            TRAIN,
            width=2,
            dash="dot",
            hover=spaced,
            legend="train, smoothed" if smoothing else None,
        ),
        _line(
            "train, evaluated",
            *thin_evaluations(log, evaluations, "train_loss", axis, extent),
            TRAIN,
            width=2.5,
            marker={"symbol": "circle", "size": 6, "color": TRAIN},
            hover=spaced,
            legend="train, evaluated",
        ),
        _line(
            "validation",
            *thin_evaluations(log, evaluations, "val_loss", axis, extent),
            VAL,
            width=2.5,
            dash="dash",
            marker={"symbol": "diamond", "size": 7, "color": VAL},
            hover=spaced,
            legend="validation",
        ),
        {
            **_line("best validation", best_x, [row.val_loss for row in best], BEST, hover="skip"),
            "mode": "markers+text",
            "marker": {"symbol": "star", "size": 15, "color": BEST, "line": {"width": 1, "color": "#ffffff"}},
            "text": [f"best {row.val_loss:.3f}" for row in best],
            "textposition": "top left" if best_x and best_x[0] > 0.85 * end else "top right",
            "cliponaxis": False,
            "textfont": {"color": BEST, "size": 12},
            "legend_text": "best validation",
        },
        _line(
            "learning rate",
            *thin_steps(steps, "learning_rate", axis, extent),
            RATE,
            width=1.8,
            hover="%{y:.3~g}",
            panel="y2",
        ),
        _line(
            "gradient norm",
            *thin_steps(steps, "grad_norm", axis, extent),
            NORM,
            width=1.4,
            hover="%{y:.3f}",
            panel="y3",
        ),
    ]
    return {
        "data": [_clean(trace) for trace in traces],
        "layout": layout_of(axis, extent, end, log_x, log_y, revision, bool(steps)),
    }


def comparison_figure(
    runs: Sequence[tuple[str, RunLog, Extent]],
    *,
    axis: Axis = "step",
    log_x: bool = False,
    log_y: bool = False,
    revision: str = "compare",
    current: int | None = None,
) -> Figure:
    """Train (thin) and validation (bold) evaluations of several runs; each has its colour, dash and marker.

    The run at place ``current`` is drawn opaque and last, the others are faint beside it; without it all are alike.

    The legend has one entry a run, the validation's: the train line belongs to its ``group``, shown and hidden with it.
    """
    traces: list[Figure] = []
    many = len(runs) > MOST_HOVERED
    most = MOST_POINTS if not many else max(60, MOST_POINTS * MOST_HOVERED // len(runs))
    for index, (name, log, extent) in sorted(enumerate(runs), key=lambda item: item[0] == current):
        faint = 0.45 if current is not None and index != current else 1.0
        place = f"r{zlib.crc32(name.encode()):08x}"  # plotly makes selectors of it: no user's text
        colour, symbol = CYCLE[index % len(CYCLE)], SYMBOLS[index % len(SYMBOLS)]
        for what, width, opacity in (("train", 1.2, 0.55), ("validation", 2.5, 1.0)):
            number = "train_loss" if what == "train" else "val_loss"
            traces.append(
                _line(
                    f"{name} · {what}",
                    *thin_evaluations(log, log.evaluations, number, axis, extent, most),
                    colour,
                    width=width if faint == 1 else 0.75 * width,
                    opacity=opacity * faint,
                    dash=DASHES[index % len(DASHES)],
                    marker={"symbol": symbol, "size": 6 if what == "validation" else 4, "color": colour},
                    hover="%{y:.4f}",
                    legend=name if what == "validation" else None,
                    uid=f"{place}-{what}",
                    group=f"{place}-validation",
                )
            )
    end = max((end_of(axis, Extent(), trace["x"]) for trace in traces), default=1.0)
    layout = layout_of(axis, Extent(), end, log_x, log_y, revision, any(trace["x"] for trace in traces))
    for panel in ("yaxis2", "yaxis3", "xaxis2", "annotations"):
        layout.pop(panel)
    layout["xaxis"] = {**layout["xaxis"], "anchor": "y"}
    layout["yaxis"] = {**layout["yaxis"], "domain": [0, 1]}
    layout["height"] = 400
    layout["hovermode"] = "closest" if many else "x unified"  # a list of dozens of runs would hide the chart
    layout["margin"] = {**layout["margin"], "t": 14}
    return {"data": [_clean(trace) for trace in traces], "layout": layout}


def evaluation_table(log: RunLog | None, extent: Extent) -> dict[str, Any]:
    """The evaluations as a table of texts: what the chart shows, for those who cannot see it.

    Of more than ``MOST_ROWS`` evaluations as many are listed, evenly spread, the best and the last among them.
    """
    rows = []
    for row in _spread(log) if log else ():
        made = log.steps.find(row.step) if log else None
        epoch = (row.step + 1) / extent.steps_per_epoch if extent.steps_per_epoch else float(row.epoch)
        rows.append(
            [
                f"{epoch:.2f}",
                f"{row.step:,}",
                f"{row.tokens_seen:,}",
                _text(row.train_loss, ".4f"),
                _text(row.val_loss, ".4f"),
                _text(made.learning_rate if made else math.nan, ".3g"),
                _text(made.grad_norm if made else math.nan, ".3f"),
            ]
        )
    columns = ["epoch", "step", "tokens seen", "train loss", "validation loss", "learning rate", "gradient norm"]
    return {"columns": columns, "rows": rows}


def _spread(log: RunLog) -> list[Evaluated]:
    every, best = max(1, -(-len(log.evaluations) // MOST_ROWS)), log.best
    return [row for place, row in enumerate(reversed(log.evaluations)) if place % every == 0 or row is best][::-1]


def _text(value: float, form: str) -> str:
    return format(value, form) if math.isfinite(value) else "–"


def _after_best(evaluations: Sequence[Evaluated]) -> list[Evaluated]:
    """The evaluation with the lowest validation loss (the earliest of equals) and all known ones after it."""
    known = [row for row in evaluations if math.isfinite(row.val_loss)]
    if not known:
        return []
    best = min(range(len(known)), key=lambda place: known[place].val_loss)
    return known[best:]


def _line(
    name: str,
    xs: Sequence[float],
    ys: Sequence[float],
    colour: str,
    *,
    width: float = 2,
    dash: str = "solid",
    opacity: float = 1.0,
    marker: Figure | None = None,
    hover: str = "",
    legend: str | None = None,
    panel: str = "y",
    **more: Any,
) -> Figure:
    """One line. ``legend_text`` is for our own legend: plotly's is off, because it moves the chart as it grows."""
    hovering = {"hoverinfo": "skip"} if hover == "skip" else {"hovertemplate": f"{hover}<extra>{_escape(name)}</extra>"}
    return {
        "type": "scatter",
        "name": name,
        "uid": name,
        "x": list(xs),
        "y": list(ys),
        "xaxis": "x",
        "yaxis": panel,
        "mode": "lines+markers" if marker else "lines",
        "line": {"color": colour, "width": width, "dash": dash},
        "marker": marker or {},
        "opacity": opacity,
        "connectgaps": False,
        "showlegend": False,
        "legend_text": legend,
        **hovering,
        **more,
    }


def _escape(name: str) -> str:
    """Plotly reads a little HTML in names: none of it may come from a run's name."""
    return name.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("%", "&#37;")


def _clean(trace: Figure) -> Figure:
    """JSON knows no NaN: a gap in the line instead. Digits that no screen shows are not sent either."""
    for name in ("x", "y"):
        values = np.asarray(trace[name], dtype=float)
        known = np.isfinite(values)
        largest = float(np.abs(values[known]).max(initial=0.0))
        rounded = np.round(values, min(22, 6 - math.floor(math.log10(largest))) if largest else 0)
        numbers = rounded.tolist()
        trace[name] = numbers if known.all() else [y if here else None for here, y in zip(known, numbers, strict=True)]
    return trace
