"""Which run was better? All runs, side by side, and what people keep of them."""

from __future__ import annotations

import streamlit as st

from gptlab.runs import live_runs
from pages.shared.compare import compare
from pages.shared.look import page_header
from pages.shared.queue_panel import queue_panel
from pages.shared.run_arrangement import arranged
from pages.shared.run_card import news, run_card
from pages.shared.run_picker import no_run_yet, pick_run, show_in_url
from pages.shared.run_table import compared, problems, run_table, summaries
from pages.shared.store import kept, store

REFRESH = 5  # seconds between two looks at the runs while one trains


def table() -> None:
    """All runs; the rest of the page is drawn again when other rows are ticked."""
    lines = summaries(store())
    before = compared()
    ticked = run_table(arranged(lines))
    problems(lines)
    if before is not None and ticked != before:
        added = [id_ for id_ in ticked if id_ not in before]
        if len(added) == 1:
            show_in_url(added[0])  # a row that is ticked is also the run to keep in order
        st.rerun()


def comparison() -> None:
    runs = {run.id: run for run in store().list()}
    compare([kept(runs[id_]) for id_ in compared() or () if id_ in runs], st.query_params.get("run"))


def main() -> None:
    page_header("Runs", "Which run was better?")
    news()
    queue_panel()
    if not store().list():
        no_run_yet()
        return
    every = REFRESH if live_runs(store()) else None
    st.fragment(table, run_every=every)()
    comparing, keeping = st.columns([2.2, 1], gap="large")
    with comparing:
        st.fragment(comparison, run_every=every)()
    with keeping, st.container(border=True):
        st.subheader("One run", anchor=False)
        run = pick_run(store())
        if run is not None:
            run_card(run)


main()
