"""Several runs side by side: their losses on one chart, and where their configurations differ."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import streamlit as st

from gptlab.config import RunConfig
from gptlab.estimate import flops_per_token
from gptlab.figures import comparison_figure
from gptlab.metrics import Axis, Extent
from gptlab.runs import Run
from gptlab.summary import config_differences
from pages.shared.compare_samples import compare_samples
from pages.shared.live_chart import chart_of, live_chart
from pages.shared.look import escape, number
from pages.shared.run_status import config_of, run_extent

AXES: dict[Axis, str] = {"epoch": "Epochs", "step": "Steps", "tokens": "Tokens", "time": "Time", "flops": "FLOPs"}
_LONGEST = 28


def compare(runs: Sequence[Run], current: str | None = None) -> None:
    """The losses of ``runs`` on one chart, the one with the id ``current`` opaque; what differs; what they wrote."""
    st.subheader("Compare", anchor=False)
    with st.container(horizontal=True, vertical_alignment="center"):
        axis = st.segmented_control(
            "Horizontal axis", list(AXES), default="step", format_func=lambda name: AXES[name], required=True,
            key="runs.axis", persist_state="session", label_visibility="collapsed",
        )  # fmt: skip
        log_x = st.toggle("Log x-axis", key="runs.log-x", persist_state="session")
        log_y = st.toggle("Log losses", key="runs.log", persist_state="session")
    shown = list(runs)
    names = labels(shown)
    here = next((place for place, run in enumerate(shown) if run.id == current), None)
    st.caption(_verdict(names, shown))
    figure = comparison_figure(
        [(name, run.log(), _extent(run)) for name, run in zip(names, shown, strict=True)],
        axis=axis or "step",
        log_x=log_x,
        log_y=log_y,
        revision=",".join(run.id for run in shown),
        current=here if len(shown) > 1 else None,
    )
    chart = chart_of(
        figure,
        label="Validation (bold) and training (faint) loss of the ticked runs",
        name="gptlab-comparison",
        table=_figures(names, shown),
        note=None if any(run.log().evaluations for run in shown) else "Tick runs in the table to compare their losses.",
    )
    live_chart(chart, key="runs.chart")
    _differences(names, shown)
    compare_samples(names, shown)


def _extent(run: Run) -> Extent:
    config = config_of(run)
    extent = run_extent(run, run.log(), config)
    return replace(extent, flops_per_token=flops_per_token(config)) if config else extent


def _verdict(names: Sequence[str], runs: Sequence[Run]) -> str:
    """Which of the runs came to the lowest validation loss, or why that cannot be said."""
    bests = [
        (best.val_loss, best.step + 1, name) for name, run in zip(names, runs, strict=True) if (best := run.log().best)
    ]
    if not bests:
        return "Tick runs in the table to compare them."
    key = "Bold: validation, faint: training."
    texts = {(c.data.corpus, c.data.train_ratio, c.model.vocab_size) for run in runs if (c := config_of(run))}
    if len(texts) > 1:
        return f"{key} These runs validate on different texts: whose loss is lower says little."
    loss, steps, name = min(bests)
    lowest = f"The lowest validation loss is that of {escape(name)}: {loss:.3f} after {steps:,} steps."
    return f"{key} {lowest}" if len(bests) > 1 else key


def labels(runs: Sequence[Run]) -> list[str]:
    """A short name for each run that tells it from the others."""
    short = [name if len(name) <= _LONGEST else name[: _LONGEST - 1] + "…" for name in (run.name for run in runs)]
    again = Counter(short)
    return [name if again[name] == 1 else f"{name} ({run.id})" for name, run in zip(short, runs, strict=True)]


def _figures(names: Sequence[str], runs: Sequence[Run]) -> dict[str, Any]:
    rows = []
    for name, run in zip(names, runs, strict=True):
        log = run.log()
        last, best = (log.evaluations[-1] if log.evaluations else None), log.best
        rows.append(
            [
                name,
                number(best.val_loss if best else None, 4),
                number(best.step + 1 if best else None),
                number(last.val_loss if last else None, 4),
                number(last.train_loss if last else None, 4),
                number(log.steps_completed),
            ]
        )
    return {
        "columns": ["run", "best validation", "after steps", "last validation", "last train", "steps"],
        "rows": rows,
    }


def _differences(names: Sequence[str], runs: Sequence[Run]) -> None:
    readable = [(name, config) for name, run in zip(names, runs, strict=True) if (config := config_of(run))]
    unreadable = [name for name, run in zip(names, runs, strict=True) if config_of(run) is None]
    if unreadable:
        st.caption(f"The configuration of {escape(', '.join(unreadable))} cannot be read, so it is not compared.")
    if len(readable) < 2:
        return
    found = config_differences([config for _, config in readable])
    if not found:
        st.caption("These runs have the same configuration.")
        return
    st.caption("Where their configurations differ:")
    rows = []
    for place, values in found:
        title = _title(place)
        rows.append({"Field": title} | {name: said(value) for (name, _), value in zip(readable, values, strict=True)})
    st.dataframe(rows, hide_index=True, column_config={"Field": st.column_config.TextColumn(pinned=True)})


def _title(place: str) -> str:
    section, name = place.split(".")
    part: Any = RunConfig.model_fields[section].annotation
    return str(part.model_fields[name].title or place)


def said(value: Any) -> str:
    """A field's value as people read it."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, (tuple, list)):
        return ", ".join(map(said, value))
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, int):
        return f"{value:,}"
    text = str(value)
    return _corpus_name(text) if text.startswith("sha256:") else text


def _corpus_name(reference: str) -> str:
    from gptlab.corpus import open_corpus

    try:
        return open_corpus(reference, download=False).name
    except (OSError, ValueError):
        return reference[:19] + "…"
