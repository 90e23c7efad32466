"""Components of our own: a ``NAME.js`` and a ``NAME.css`` beside this file, mounted once and updated in place."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import streamlit as st

HERE = Path(__file__).parent


@cache
def component(name: str, *, uses: tuple[str, ...] = (), isolate_styles: bool = True) -> Any:
    """The v2 component ``gptlab_NAME``; call it with ``key`` and ``data`` to mount or update it.

    Inside of its script what it ``uses`` are functions of their names: other components, to be called with ``data`` and
    the ``parentElement`` that they shall fill, or a ``NAME.js`` alone that says itself how it is called.
    """
    scripts = "".join(map(_as_function, (*uses, name)))
    mount = st.components.v2.component(
        f"gptlab_{name}",
        css="".join(style.read_text("utf-8") for part in (*uses, name) if (style := HERE / f"{part}.css").exists()),
        js=f"{scripts}export default (given) => {name}({{ ...given, data: JSON.parse(given.data) }});\n",
        isolate_styles=isolate_styles,
    )

    def update(*, data: Any, **more: Any) -> Any:
        # as a text, in which Streamlit looks for no tables, and which the browser knows again when it is unchanged
        return mount(data=json.dumps(data, separators=(",", ":")), **more)

    return update


def _as_function(name: str) -> str:
    """A component's script as a function of that name: what it declares stays inside."""
    script = (HERE / f"{name}.js").read_text("utf-8").replace("export default function", "return function")
    return f"const {name} = (() => {{\n{script}\n}})();\n"
