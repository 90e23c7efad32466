"""Samples: what has it learnt, epoch by epoch?"""

from __future__ import annotations

import streamlit as st

from gptlab.log import RunLog
from gptlab.runs import Run
from pages.shared.copied import Copies, copies_of
from pages.shared.epoch_table import epoch_table
from pages.shared.learning import learning
from pages.shared.look import escape, page_header
from pages.shared.run_picker import pick_run
from pages.shared.store import store
from pages.shared.theatre import Frames, ask_for, frames_of, theatre, wanted_epoch

ANOTHER = "another-epoch"


def main() -> None:
    page_header("Samples", "What has it learnt, epoch by epoch?")
    with st.container(horizontal=True, vertical_alignment="bottom"):
        with st.container(width="stretch"):
            run = pick_run(store())
        if run is None:
            return
        if st.button("Continue in the Playground", type="primary", icon=":material/edit_note:"):
            st.switch_page("pages/playground.py", query_params={"run": run.id})
    live = run.is_locked()
    waiting = bool(run.log().samples) and (copies := copies_of(run)) is not None and copies.state == "opening"
    st.fragment(show, run_every=2 if live or waiting else None)(run, live, waiting)
    learning(run)


def show(run: Run, live: bool, waiting: bool) -> None:
    """The theatre of a run; while it trains, each new epoch appears by itself."""
    log = run.log()
    if not log.samples:
        if run.is_locked() != live:
            st.rerun()
        nothing_yet(run, live)
        return
    copies = copies_of(run)
    if run.is_locked() != live or waiting != (copies is not None and copies.state == "opening"):
        st.rerun()
    wanted = wanted_epoch()
    frames = frames_of(log.samples, wanted=wanted)
    theatre(run, log, frames, copies, key="theatre", wanted=wanted)
    about(frames, log, copies)
    st.subheader("All epochs", anchor=False)
    epoch_table(run, frames, log, copies, wanted)


def about(frames: Frames, log: RunLog, copies: Copies | None) -> None:
    """Why samples look short at first, what is left out, and what can no longer be shown."""
    st.caption(
        "A sample has a fixed number of tokens, not of words. At first the model has learnt only which tokens are "
        "frequent: 50 commas are 50 tokens and no word. Later nearly every token is a whole word, and what was learnt "
        "by heart shows as passages copied from the text."
    )
    last = log.samples[-1].epoch
    if len(frames) <= last:
        many, few = f"{last + 1:,}", f"{len(frames):,}"
        told = f"Of {many} epochs {few} are shown. Show another one:"
        st.number_input(told, 0, last, value=None, key=ANOTHER, on_change=ask_for_another, width=360)
    if copies is not None and copies.state == "opening":
        st.caption(":material/hourglass_top: The text is being sorted, once, to find what was copied from it.")
    elif copies is not None and copies.state == "gone":
        said = "What was copied cannot be shown, everything else can"
        st.warning(f"{said}: {escape(copies.fault)}", icon=":material/link_off:")


def ask_for_another() -> None:
    if (epoch := st.session_state.get(ANOTHER)) is not None:
        ask_for(epoch)


def nothing_yet(run: Run, live: bool) -> None:
    """A run without samples: why, and what to do."""
    if live:
        st.info("No sample yet: the first one comes before the first step.", icon=":material/hourglass_top:")
    else:
        st.info("This run wrote no sample: it ended before its first step.", icon=":material/format_quote:")
    st.page_link(
        "pages/training.py", label="See how it stands", icon=":material/show_chart:", query_params={"run": run.id}
    )


main()
