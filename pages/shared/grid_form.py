"""Several runs from the draft: which fields vary, their values, what that comes to, and into the queue with them."""

from __future__ import annotations

from typing import Any

import streamlit as st

from gptlab.config import RunConfig
from gptlab.dataset import check_lengths
from gptlab.grid import MOST, Point, expand
from gptlab.prediction import predicted_seconds
from gptlab.queue import Queue
from pages.shared.draft import read_draft
from pages.shared.fields import FormField, form_fields
from pages.shared.look import duration, escape
from pages.shared.waking import wake_queue

FIELDS, ADDED, FAULT = "grid.fields", "grid.added", "grid.fault"
FIRST = ("optim.learning_rate", "train.num_epochs", "train.seed", "data.batch_size", "model.n_layers")


def grid_form(n_train: int, n_val: int) -> None:
    """The form. ``n_train`` and ``n_val``: tokens of the draft's text, for the predicted time and the length check."""
    draft = read_draft()
    st.markdown(":gray[The settings above, or every combination of some values, trained one after another.]")
    fields = {field.key: field for field in form_fields().values() if field.kind != "pair"}
    order = [key for key in FIRST if key in fields] + [key for key in fields if key not in FIRST]
    chosen = st.multiselect(
        "Fields to vary",
        order,
        format_func=lambda key: fields[key].title,
        key=FIELDS,
        placeholder="None: add the settings as they are",
    )
    axes: dict[str, list[Any]] = {}
    faults: list[str] = []
    with st.grid(2, min_column_width=240, gap=("small", "medium")):
        for key in chosen:
            try:
                axes[key] = _values(fields[key], draft.config)
            except ValueError as error:
                faults.extend(str(error).splitlines())
    points: list[Point] = []
    if not faults:
        try:
            points = expand(draft.config, axes)
        except ValueError as error:
            faults = str(error).splitlines()
    faults += _too_long(points, n_train, n_val)
    for fault in faults[:5]:
        st.markdown(f":red[{escape(fault)}]")
    if len(faults) > 5:
        st.markdown(f":red[And {len(faults) - 5} more of this kind.]")
    _add(points, draft.name, n_train, n_val, possible=bool(points) and not faults)


def _values(field: FormField, config: RunConfig) -> list[Any]:
    """An input for the values of one field, and what they are. ValueError: some are none of its kind."""
    now = field.of(config)
    if field.kind in ("choice", "switch"):
        options = list(field.options) if field.kind == "choice" else [False, True]
        picked: list[Any] = st.multiselect(
            field.title, options, default=options, format_func=field.said, key=f"grid.{field.key}", help=field.help
        )
        return picked
    written = st.text_input(
        f"{field.title}: values",
        value=str(field.shown(now) if now is not None else ""),
        key=f"grid.{field.key}",
        placeholder="such as 1, 2, 3",
        help=field.help,
    )
    found, faults = [], []
    for part in filter(None, (part.strip() for part in written.replace(";", ",").split(","))):
        try:
            found.append(int(part) if field.kind == "whole" else field.typed(part))
        except ValueError:
            kind = "a number" if field.kind == "number" else "a whole number, without commas in it"
            faults.append(f"{field.title}: “{part[:40]}” is not {kind}. Values are separated by commas.")
    if faults:
        raise ValueError("\n".join(faults))
    return found


def _too_long(points: list[Point], n_train: int, n_val: int) -> list[str]:
    """Configurations for which the text is too short, each with its reason."""
    said = []
    for point in points:
        said += [f"{point.label}: {fault}" if point.label else fault
                 for fault in check_lengths(n_train, n_val, point.config).faults]  # fmt: skip
    return said


def _add(points: list[Point], name: str, n_train: int, n_val: int, *, possible: bool) -> None:
    seconds = [predicted_seconds(point.config, n_train, n_val) for point in points] if possible else []
    known = [value for value in seconds if value is not None]
    with st.container(horizontal=True, vertical_alignment="center"):
        count = len(points)
        st.button(
            "Add to the queue" if count <= 1 else f"Add {count} to the queue",
            icon=":material/playlist_add:",
            disabled=not possible,
            help=None if possible else f"At most {MOST} possible configurations.",
            key="grid.add",
            on_click=_to_queue,
            args=(points, name),
        )
        if known:
            more = f", {len(seconds) - len(known)} of them not measured yet" if len(known) < len(seconds) else ""
            st.markdown(f":gray[≈ {duration(sum(known))} in all{more}]")
    if fault := st.session_state.pop(FAULT, None):
        st.error(escape(fault), icon=":material/error:")
    if added := st.session_state.get(ADDED):
        with st.container(horizontal=True, vertical_alignment="center"):
            st.markdown(f":material/check: {added}")
            st.page_link("pages/runs.py", label="See the queue", icon=":material/low_priority:")
    if len(points) > 1:
        with st.expander(f"The {len(points)} runs", key="grid.list"):
            st.text("\n".join(point.named(name) for point in points))


def _to_queue(points: list[Point], name: str) -> None:
    try:
        added = Queue().add(points, name=name, tags=(name,) if name and len(points) > 1 else ())
    except (OSError, ValueError) as error:
        st.session_state[FAULT] = str(error)
        st.session_state.pop(ADDED, None)
        return
    st.session_state[ADDED] = "1 run is in the queue." if len(added) == 1 else f"{len(added)} runs are in the queue."
    if fault := wake_queue():
        st.session_state[FAULT] = fault
