"""The way into the lessons, on every page."""

from __future__ import annotations

import streamlit as st


def lessons_link() -> None:
    if st.button("Six short lessons", icon=":material/school:", type="tertiary", key="lessons"):
        st.switch_page("pages/playground.py", query_params={"lesson": "tokens"})
