"""What changes from second to second on the page of a run that trains, as texts that the page fetches by itself.

A rerun of the page for each second costs the server 30 ms and more, for each page that is open; these texts are made
once for all pages that ask at the same time.
"""

from __future__ import annotations

import json
from typing import Any

import streamlit as st

from gptlab.log import RunLog
from gptlab.runs import LIVE, Run
from pages.shared.addresses import run_url
from pages.shared.coach_panel import facts_of
from pages.shared.copied import copies_of
from pages.shared.loss_chart import View, loss_chart
from pages.shared.run_status import config_of, run_extent, standing, unanswered
from pages.shared.status_card import Live, card_of

FRESH = 0.5  # seconds for which a text that was made for one page is given to others
MOST_VIEWS = 32  # of charts, kept for so long


def live_of(run: Run, log: RunLog, status: str) -> Live | None:
    """How the card of that run follows it; None where there is nothing to follow."""
    return Live(run_url(run, "now.json"), status, revision_of(run, log)) if status in LIVE else None


def revision_of(run: Run, log: RunLog) -> str:
    """What the page of a live run is drawn again for: evaluations, samples, what is saved, warnings, silence."""
    copies = copies_of(run) if log.samples else None
    last = log.evaluations[-1].step if log.evaluations else -1
    facts: tuple[Any, ...] = (log.started is not None, last, len(log.samples), len(log.saved), len(log.warnings))
    return " ".join(map(str, (*facts, copies.state if copies else "", unanswered(run, log))))


@st.cache_data(ttl=FRESH, max_entries=MOST_VIEWS, show_spinner=False)
def now_text(run_id: str, _run: Run) -> str:
    """The card of a run, as JSON."""
    status, log = _run.status(), _run.log()
    return _json(card_of(standing(_run, log, status, config_of(_run)), live_of(_run, log, status)))


@st.cache_data(ttl=FRESH, max_entries=MOST_VIEWS, show_spinner=False)
def losses_text(run_id: str, _run: Run, query: str, _view: View) -> str:
    """The chart of a run that trains, as JSON. ``query`` is that of the view."""
    log, config = _run.log(), config_of(_run)
    return _json(loss_chart(_run, log, run_extent(_run, log, config), config, facts_of(config), _view, live=True))


def _json(what: dict[str, Any]) -> str:
    return json.dumps(what, separators=(",", ":"))
