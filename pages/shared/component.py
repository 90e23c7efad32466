"""Components of our own: a ``NAME.js`` and a ``NAME.css`` beside this file, mounted once and updated in place."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import streamlit as st

HERE = Path(__file__).parent


@cache
def component(name: str, *, isolate_styles: bool = True) -> Any:
    """The v2 component ``gptlab_NAME``; call it with ``key`` and ``data`` to mount or update it."""
    return st.components.v2.component(
        f"gptlab_{name}",
        css=(HERE / f"{name}.css").read_text("utf-8"),
        js=(HERE / f"{name}.js").read_text("utf-8"),
        isolate_styles=isolate_styles,
    )
