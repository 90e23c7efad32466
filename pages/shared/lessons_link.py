"""The way into the lessons, on every page."""

from __future__ import annotations

import streamlit as st


def lessons_link() -> None:
    st.page_link(
        "pages/playground.py", label="Six short lessons", icon=":material/school:", query_params={"lesson": "tokens"}
    )
