"""Where the browser finds what the dashboard serves besides its pages; see ``routes``."""

from __future__ import annotations

import importlib.metadata
from functools import cache

import streamlit as st

from gptlab.runs import Run


def _base() -> str:
    path = str(st.get_option("server.baseUrlPath") or "").strip("/")
    return f"/{path}" if path else ""


def plotly_url() -> str:
    """Where the browser finds plotly: the installed package's own copy, so nothing is fetched from elsewhere."""
    return f"{_base()}/gptlab/plotly.min.js?v={_plotly_version()}"


@cache
def _plotly_version() -> str:
    return importlib.metadata.version("plotly")


def run_url(run: Run, file: str) -> str:
    """The address of a run's ``config.json``, ``metrics.csv``, ``report.html``, ``script.py``, ``now.json``,
    ``losses.json`` or ``<checkpoint>/weights.safetensors``.
    """
    return f"{_base()}/gptlab/runs/{run.id}/{file}"
