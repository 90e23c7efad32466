"""Training: how is it going?"""

from __future__ import annotations

import streamlit as st

from gptlab import launcher
from gptlab.runs import LIVE, Run
from pages.shared.coach_panel import coach_details, coach_line, read_run
from pages.shared.forking import parent_line
from pages.shared.live_view import live_of
from pages.shared.look import escape, page_header
from pages.shared.loss_panel import loss_panel
from pages.shared.new_run import new_run
from pages.shared.player import controls, how_it_ended
from pages.shared.run_picker import pick_run
from pages.shared.run_status import config_of, run_extent, standing, unanswered
from pages.shared.samples_feed import samples_feed
from pages.shared.status_card import status_card
from pages.shared.store import store
from pages.shared.verdict_panel import verdict_panel

FEED_HEIGHT = 704
EVERY = 10  # seconds after which the page of a live run is drawn again in any case


def main() -> None:
    page_header("Training", "How is it going?")
    # Two slots that are always there: what the fragment draws has the same place in every run of this script, so that
    # nothing of an earlier one is left standing beside it.
    choice, body = st.container(), st.container()
    with choice:
        run = pick_run(store(), new="New run with the current settings")
    with body:
        if run is None:
            before_the_start()
        else:
            follow(run)


def before_the_start() -> None:
    extent, config = new_run()
    charts, samples = st.columns([5, 3], gap="medium")
    with charts:
        loss_panel(None, None, extent, config)
    with samples:
        samples_feed(None, None, height=FEED_HEIGHT)


def follow(run: Run) -> None:
    """A run's controls, and below them how it goes."""
    status = run.status()
    with st.container():
        controls(run, status)
        parent_line(run)
    st.fragment(watch, run_every=EVERY if status in LIVE else None)(run, status)


def watch(run: Run, status: str) -> None:
    """Everything that changes while the run trains. Card and chart follow it by themselves, from second to second; the
    card has all of this drawn again for whatever else is new."""
    now = run.status()
    if now != status:
        st.rerun()
    log, config = run.log(), config_of(run)
    status_card(standing(run, log, status, config), key="status", live=live_of(run, log, status))
    if unanswered(run, log):
        offer_force(run)
    how_it_ended(run, status)
    coach = read_run(run, log, config, status)
    coach_line(run, coach)
    for warning in log.warnings[-3:]:
        st.warning(escape(warning.message), icon=":material/warning:")
    charts, samples = st.columns([5, 3], gap="medium")
    with charts:
        loss_panel(run, log, run_extent(run, log, config), config, coach.facts, live=status in LIVE)
    with samples:
        samples_feed(run, log, height=FEED_HEIGHT)
    coach_details(coach)
    if config is not None:
        verdict_panel(run, log, config)


def offer_force(run: Run) -> None:
    st.warning(
        "The worker has not answered yet. It may be in a long step; forcing it loses what was not saved.",
        icon=":material/hourglass_bottom:",
    )
    if st.button("Force stop", icon=":material/bolt:"):
        gone = launcher.force_stop(run)
        if not gone:
            st.error("It could not be ended: end the process by hand.")


main()
