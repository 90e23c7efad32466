"""How something stands: a chip, a line, a progress bar and figures, updated in place."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal

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


def status_card(standing: Standing, *, key: str) -> None:
    """Show the card; call it again with the same ``key`` to update it. All texts are shown as text."""
    component("status_card")(key=key, data=asdict(standing))
