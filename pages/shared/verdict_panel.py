"""A run of the reference exercise beside the published log, evaluation by evaluation as they come."""

from __future__ import annotations

import streamlit as st

from gptlab.config import RunConfig
from gptlab.corpus import THE_VERDICT, CorpusError, open_corpus
from gptlab.log import RunLog
from gptlab.published import EVALUATIONS
from gptlab.runs import Run
from gptlab.sample_words import read_samples
from gptlab.verdict import Row, is_comparable, judge
from pages.shared.look import escape
from pages.shared.text_table import text_table

SHOWN = {"waiting": (st.info, ":material/hourglass_top:"), "matches": (st.success, ":material/verified:"),
         "differs": (st.warning, ":material/difference:")}  # fmt: skip
COLUMNS = (
    "Step",
    "Epoch",
    "Train",
    "published",
    "differs by",
    "Validation",
    "published",
    "differs by",
    "CPU trace",
    "",
)


def verdict_panel(run: Run, log: RunLog, config: RunConfig) -> None:
    """The verdict, its reasons, the 18 evaluations and the samples; nothing for a run of something else."""
    if not is_comparable(config) or run.initial_weights is not None:
        return
    verdict = judge(log, config)
    st.subheader("Against the published log", anchor=False)
    show, icon = SHOWN[verdict.outcome]
    show(escape(verdict.headline), icon=icon)
    rows = {row.published.step: row for row in verdict.rows}
    text_table(
        [(name, "number" if name else "") for name in COLUMNS],
        [
            [str(row.step), str(row.epoch), *_figures(rows.get(row.step), row.train, row.val),
             f"{row.cpu_train:.3f} / {row.cpu_val:.3f}", _mark(rows.get(row.step))]
            for row in EVALUATIONS
        ],
        key="verdict",
        label="Each evaluation beside the published one",
        pressable=False,
        scrolls=True,
    )  # fmt: skip
    told, samples = st.columns([3, 2], gap="medium")
    with told:
        st.markdown("**Where differences come from**")
        lines = [*verdict.remarks, *verdict.reasons] or ["Nothing: device, precision and order are the published ones."]
        st.markdown("\n".join(f"- {escape(line)}" for line in lines))
        st.markdown(
            ":gray[Two right runs in fp32 on different devices already differ by up to 31 % in late training loss and "
            "2 % in validation loss; the CPU trace is such a second run. Inside is what lies within that spread, "
            "widened by what other right runs have needed; after step 20 a run may be up to 15 steps behind.]"
        )
    with samples:
        st.markdown("**The samples**")
        found = read_samples(log.samples, _story())
        if not found:
            st.markdown(":gray[The first one that can be compared comes after epoch 1.]")
        for epoch, published, here in found:
            st.markdown(f"After epoch {epoch}, published: {escape(published)}.  \n:gray[Here: {escape(here)}.]")


def _figures(row: Row | None, train: float, val: float) -> list[str]:
    if row is None:
        return ["–", f"{train:.3f}", "–", "–", f"{val:.3f}", "–"]
    return [
        f"{row.train:.3f}", f"{train:.3f}", f"{100 * row.train_off:+.1f} %",
        f"{row.val:.3f}", f"{val:.3f}", f"{100 * row.val_off:+.1f} %",
    ]  # fmt: skip


def _mark(row: Row | None) -> str:
    if row is None:
        return ""
    if row.on_spike:
        return "on a spike"
    return "✓ inside" if row.inside else "✗ outside"


@st.cache_data(ttl=600, show_spinner=False)
def _story() -> str | None:
    try:
        return open_corpus(THE_VERDICT, download=False).text
    except CorpusError:
        return None
