"""How something stands: a chip, a line, a progress bar and figures, updated in place."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import Any, Literal

from pages.shared.component import component

Tone = Literal["busy", "wait", "good", "bad", "rest"]
Fact = tuple[str, str, str]


@dataclass(frozen=True)
class Standing:
    """What the card shows. ``done``: a share of 1, None for no bar. A fact is a label, a value and a small note."""

    chip: str
    tone: Tone
    line: str = ""
    said: str = ""
    done: float | None = None
    facts: tuple[Fact, ...] = ()


@dataclass(frozen=True)
class Live:
    """A card that asks for its next version by itself.

    ``url``: where, every second. ``status`` and ``revision``: what the page around it was drawn for. When one of
    them is another there, the card has its page, or the fragment that it stands in, drawn again: at once for a status,
    every few seconds at most for a revision.
    """

    url: str
    status: str
    revision: str


def card_of(standing: Standing, live: Live | None = None) -> dict[str, Any]:
    """The card as the browser gets it."""
    return {**asdict(standing), "live": live and asdict(live), "at": time.time()}


def status_card(standing: Standing, *, key: str, live: Live | None = None) -> None:
    """Show the card; call it again with the same ``key`` to update it. All texts are shown as text."""
    component("status_card", uses=("poll",))(key=key, data=card_of(standing, live), on_changed_change=lambda: None)
