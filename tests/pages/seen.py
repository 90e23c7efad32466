"""What an AppTest shows, also in the dashboard's own components, which AppTest itself does not know."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from streamlit.runtime.pages_manager import PagesManager
from streamlit.testing.v1 import AppTest, app_test

DASHBOARD = Path(__file__).resolve().parents[2] / "dashboard.py"


class ThroughTheRouter(PagesManager):
    """AppTest forgets before each run that st.navigation rules, sees a folder pages/ and runs the bare page instead."""

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        PagesManager.uses_pages_directory = False


app_test.PagesManager = ThroughTheRouter  # type: ignore[misc, attr-defined]


def dashboard(page: str, **query: str) -> AppTest:
    """The dashboard, opened at ``page`` (``training``, ``samples``, ...) with a query string."""
    app = AppTest.from_file(str(DASHBOARD), default_timeout=120)
    app.run()
    for name, value in query.items():
        app.query_params[name] = value
    app.switch_page(f"pages/{page}.py")
    return app.run()


def _nodes(node: Any) -> Iterator[Any]:
    for child in getattr(node, "children", {}).values():
        yield child
        yield from _nodes(child)


def components(app: AppTest, name: str) -> list[dict[str, Any]]:
    """The data of every component of that name (``status_card``, ``live_chart``, ``token_strip``, ``text_table``)."""
    found = [node.proto for node in _nodes(app._tree) if hasattr(node, "proto")]
    return [
        json.loads(json.loads(proto.json))
        for proto in found
        if getattr(proto, "component_name", "") == f"gptlab_{name}"
    ]


def strip_text(data: dict[str, Any]) -> str:
    """What a token strip reads."""
    return "".join(token["text"] for token in data["tokens"])


def words(app: AppTest) -> str:
    """All that stands on the page as plain Streamlit text."""
    kinds = (app.title, app.markdown, app.caption, app.text, app.info, app.success, app.warning, app.error, app.code)
    return "\n".join(str(item.value) for kind in kinds for item in kind)


def sidebar(app: AppTest) -> str:
    """The protocol buffers of the sidebar's elements, as text."""
    return "\n".join(str(node.proto) for node in _nodes(app.sidebar) if getattr(node, "proto", None))


def buttons(app: AppTest) -> dict[str, Any]:
    return {button.label: button for button in app.button}


def primary(app: AppTest) -> list[str]:
    """The labels of the primary buttons: a page has exactly one."""
    return [button.label for button in app.button if button.proto.type == "primary"]
