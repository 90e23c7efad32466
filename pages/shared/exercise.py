"""The reference exercise by one button: its text, checked, its settings, and on to Start."""

from __future__ import annotations

import streamlit as st

from gptlab.config import RunConfig
from gptlab.corpus import THE_VERDICT, THE_VERDICT_SHA256, CorpusError, open_corpus
from gptlab.step_timing import automatic_precision
from gptlab.verdict import is_exercise
from pages.shared.draft import Draft, choose_reference_exercise, edit_draft
from pages.shared.look import escape
from pages.shared.run_picker import NEW

ORDER = "exercise-order"
ORDERS = {"own": "gptlab’s own", "published": "As published"}


def exercise_button(label: str) -> None:
    """Fetch and check The Verdict, put the published settings into the draft, and go to where Start is."""
    pressed = st.button(
        label,
        icon=":material/science:",
        key="exercise",
        help="The Verdict, checked by its SHA-256, the published settings, and then Start.",
    )
    if not pressed:
        return
    faults = fetch_verdict()
    if faults:
        st.error("  \n".join(map(escape, faults)), icon=":material/error:")
        return
    choose_reference_exercise(THE_VERDICT)
    st.switch_page("pages/training.py", query_params={"run": NEW})


def fetch_verdict() -> list[str]:
    """Have The Verdict, whole and unchanged; or return why it cannot be had."""
    try:
        with st.spinner("Fetching The Verdict and checking it …"):
            open_corpus(THE_VERDICT)
    except (CorpusError, OSError) as error:
        return [str(error)]
    return []


def exercise_ready(draft: Draft) -> None:
    """Before its start: what is about to be run, and the one choice that the exercise leaves. Else nothing."""
    if draft.fork is not None or not is_exercise(draft.config):
        return
    with st.container(border=True, key="exercise-ready"):
        words, choice = st.columns([3, 2], vertical_alignment="center")
        words.markdown(
            f"**The reference exercise.** :gray[The Verdict, SHA-256 {THE_VERDICT_SHA256[:8]}…, checked; GPT-2 124M, "
            f"ten epochs, as published{_faster(draft.config)}. While it trains, each of its 18 evaluations is held "
            "against the published log.]"
        )
        st.session_state[ORDER] = draft.config.data.order
        choice.segmented_control(
            "Order of random numbers",
            list(ORDERS),
            format_func=ORDERS.__getitem__,
            required=True,
            key=ORDER,
            on_change=_order_chosen,
            help="gptlab’s own: an evaluation changes nothing, always reads the same windows, and the step can be "
            "compiled and multiplied in bf16. As published: batches, dropout and evaluations draw from one stream, as "
            "in the exercise’s code; on a CPU it gives the exercise’s figures.",
        )


def _faster(config: RunConfig) -> str:
    """What is not as published, where the device has something faster."""
    if automatic_precision(config) != "bf16":
        return ""
    return ", but multiplied in bf16, several times as fast on this device (precision fp32 is the published one)"


def _order_chosen() -> None:
    edit_draft(data={"order": st.session_state[ORDER]})
