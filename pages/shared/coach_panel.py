"""The coach on the Training page: one line with what to do, above the charts, and the figures behind it below them."""

from __future__ import annotations

from dataclasses import dataclass

import streamlit as st

from gptlab.coach import Measure, Reading, State, TextFacts, measures, read_curves, text_facts
from gptlab.config import RunConfig
from gptlab.corpus import CorpusError, open_corpus
from gptlab.log import RunLog
from gptlab.runs import LIVE, Run
from pages.shared.forking import go_to_fork
from pages.shared.look import escape, number
from pages.shared.text_table import text_table

ICONS: dict[State, str] = {
    "waiting": ":gray[:material/hourglass_top:]",
    "blind": ":orange[:material/visibility_off:]",
    "improving": ":green[:material/trending_down:]",
    "level": ":gray[:material/trending_flat:]",
    "memorising": ":orange[:material/psychology_alt:]",
}
STAYS_IN_PLACE = """<style>.st-key-coach { min-height: 4.6rem; justify-content: center; }
@media (max-width: 640px) { .st-key-coach { min-height: 12.5rem; } }</style>"""


@dataclass(frozen=True)
class Coach:
    """A run's reading and what it was read from. ``facts`` is None where the text is gone."""

    reading: Reading
    measures: tuple[Measure, ...]
    facts: TextFacts | None


def read_run(run: Run, log: RunLog, config: RunConfig | None, status: str) -> Coach:
    facts = facts_of(config)
    reading = read_curves(log.evaluations, config, facts, live=status in LIVE)
    vocabulary = config.model.vocab_size if config else 50_257
    return Coach(reading, tuple(measures(log.evaluations, vocabulary, facts)), facts)


def facts_of(config: RunConfig | None) -> TextFacts | None:
    """What can be counted in a run's text; None where it, or the configuration, is gone."""
    return _facts(config.data.corpus, config.data.train_ratio) if config else None


@st.cache_data(max_entries=50, ttl=600, show_spinner=False)
def _facts(corpus: str | tuple[str, ...], train_ratio: float) -> TextFacts | None:
    try:
        return text_facts(open_corpus(corpus, download=False), train_ratio)
    except CorpusError:
        return None


def coach_line(run: Run, coach: Coach) -> None:
    """What the curves say, and the two ways on. Its height does not depend on what it says."""
    saved = [item.name for item in run.checkpoints()]
    wanted = "best" if "best" in saved else saved[-1] if saved else None
    name = "best" if wanted in ("best", None) else "the newest"
    with st.container(border=True, key="coach"):
        st.html(STAYS_IN_PLACE)
        words, ways = st.columns([5, 4], vertical_alignment="center")
        words.markdown(f"{ICONS[coach.reading.state]} {escape(coach.reading.headline)}")
        with ways, st.container(horizontal=True, horizontal_alignment="right"):
            none = None if wanted else "Nothing is saved yet."
            if st.button(
                f"Open {name} in the Playground", icon=":material/edit_note:", key="open-best", disabled=wanted is None,
                help=none,
            ):  # fmt: skip
                st.switch_page("pages/playground.py", query_params={"run": run.id, "checkpoint": wanted or "last"})
            if st.button(
                f"Continue from {name} …", icon=":material/call_split:", key="fork-best",
                disabled=wanted is None or run.config_error is not None,
                help=none or "A fork: a new run from these weights, with other settings and a fresh optimiser.",
            ):  # fmt: skip
                go_to_fork(run, wanted or "last")


def coach_details(coach: Coach) -> None:
    """The advice, how far to trust it, and each loss in three units beside what it is to be held against."""
    reading = coach.reading
    st.subheader("Reading the curves", anchor=False)
    words, figures = st.columns([2, 3], gap="medium")
    with words:
        for said in filter(None, (reading.advice, *reading.remarks)):
            st.markdown(escape(said))
        if coach.facts is None:
            st.markdown(":gray[The text of this run is not here any more: what needs it is left out.]")
    with figures:
        text_table(
            [("", ""), ("Nats/token", "number"), ("Perplexity", "number"), ("Bits/char", "number")],
            [
                [
                    measure.name,
                    number(measure.nats, 3),
                    number(measure.perplexity, 1 if measure.perplexity < 1000 else 0),
                    number(measure.bits_per_character, 3),
                ]
                for measure in coach.measures
            ],
            key="measures",
            label="Losses in three units",
            pressable=False,
        )
