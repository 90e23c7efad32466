"""Is the text long enough for the settings? The advice, and changes that one click makes."""

from __future__ import annotations

import streamlit as st

from gptlab.config import RunConfig
from gptlab.dataset import LengthReport
from pages.shared.draft import edit_draft
from pages.shared.look import escape
from pages.shared.remedies import remedies


def sanity_check(n_train_tokens: int, n_val_tokens: int, config: RunConfig, report: LengthReport) -> None:
    """One verdict on the text's length under the draft's settings, and below it the remedies as buttons."""
    if report.faults:
        st.error(escape(" ".join(report.faults)), icon=":material/block:")
    if report.warnings:
        st.warning(escape(" ".join(report.warnings)), icon=":material/warning:")
    if not report.faults and not report.warnings:
        st.success(
            f"The text is long enough: {report.train_windows:,} windows to train on, {report.val_windows:,} to "
            f"validate with, at context length {config.model.context_length:,}.",
            icon=":material/check_circle:",
        )
    if found := remedies(config, n_train_tokens, n_val_tokens):
        with st.container(horizontal=True, key="remedies"):
            for remedy in found:
                st.button(
                    remedy.label, icon=":material/build:", key=remedy.label, on_click=edit_draft, kwargs=remedy.changes
                )
