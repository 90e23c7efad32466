"""One look for all pages: the header that each opens with, numbers and names as people read them, text as text."""

from __future__ import annotations

import math
import re
import time
from typing import Literal

import streamlit as st

from gptlab.figures import BEST, FAINT, TRAIN, VAL

__all__ = [
    "BEST", "FAINT", "TRAIN", "VAL", "ago", "duration", "escape", "number", "page_header", "plain", "roughly", "size",
]  # fmt: skip

Tone = Literal["normal", "muted", "strong"]

_MARKDOWN = re.compile(r"([\\`*_{}\[\]()<>#+\-.!|~$:&^=@/])")


def page_header(title: str, question: str) -> None:
    """The page's title and the one question that it answers. Both are ours, never a user's text."""
    with st.container(gap=None):
        st.title(title, anchor=False)
        st.markdown(f":gray[{question}]")


def escape(text: str) -> str:
    """``text`` for a place that reads Markdown (labels, captions, toasts): shown as it is written, on one line."""
    return _MARKDOWN.sub(r"\\\1", " ".join(text.split()))


def plain(text: str, *, tone: Tone = "normal", icon: str = "") -> None:
    """Text that somebody else wrote, shown as text: no Markdown and no HTML in it is read."""
    shown = escape(text)
    if tone == "strong":
        shown = f"**{shown}**" if shown else shown
    elif tone == "muted":
        shown = f":gray[{shown}]"
    st.markdown(f"{icon} {shown}".strip())


def number(value: float | None, digits: int = 0) -> str:
    """12345.6 -> "12,346"; nothing, or no finite number -> an en dash."""
    if value is None or value != value or value in (float("inf"), float("-inf")):
        return "–"
    return f"{value:,.{digits}f}"


def size(n_bytes: float | None) -> str:
    """Bytes as people read them: "1.95 GB" (powers of ten)."""
    if n_bytes is None:
        return "–"
    for unit, scale in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if n_bytes >= scale:
            return f"{n_bytes / scale:,.2f} {unit}" if n_bytes < 10 * scale else f"{n_bytes / scale:,.0f} {unit}"
    return f"{n_bytes:,.0f} B"


def duration(seconds: float | None) -> str:
    """Seconds as people read them: "42 s", "3 min 05 s", "2 h 10 min"."""
    if seconds is None or seconds != seconds or seconds == float("inf"):
        return "–"
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    if whole < 86_400:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 86_400} d {whole % 86_400 // 3600} h"


def roughly(seconds: float) -> str:
    """A guess of seconds with no more digits than it is good for: "40 s", "3 min", "25 min", "2 h 30 min"."""
    for most, grain in ((60, 10), (600, 60), (3600, 300), (math.inf, 1800)):
        rounded = max(grain, round(seconds / grain) * grain)
        if rounded < most:
            break
    return duration(rounded).replace(" 00 s", "").replace(" 00 min", "")


def ago(then: float, now: float | None = None) -> str:
    """A moment (Unix seconds) as its distance from now: "just now", "5 min ago", "2 days ago"."""
    seconds = max(0.0, (time.time() if now is None else now) - then)
    if seconds < 60:
        return "just now"
    if seconds < 3600:
        return f"{int(seconds // 60)} min ago"
    if seconds < 86_400:
        return f"{int(seconds // 3600)} h ago"
    days = int(seconds // 86_400)
    return f"{days} day{'' if days == 1 else 's'} ago"
