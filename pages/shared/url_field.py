"""One value in a page's address: its name there, and how it is written and read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


def _said(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(int(value)) if isinstance(value, bool) else str(value)


@dataclass(frozen=True)
class Field:
    """One value: its ``name`` in the URL, its ``key`` in the session, how it is read and what it is if not named.

    ``write`` makes of a value what ``read`` reads; that raises ValueError for what it cannot take: such a value is as
    good as not named.
    """

    name: str
    key: str
    read: Callable[[str], Any]
    default: Any = None
    write: Callable[[Any], str] = _said


def one_of(*options: str) -> Callable[[str], str]:
    def read(raw: str) -> str:
        if raw not in options:
            raise ValueError(f"{raw[:40]!r} is none of {', '.join(options)}")
        return raw

    return read


def number_in(low: float, high: float, kind: type = float) -> Callable[[str], Any]:
    """Reads a number of ``kind`` from ``low`` to ``high``."""

    def read(raw: str) -> Any:
        try:
            value = kind(raw)
        except ValueError:
            raise ValueError(f"{raw[:40]!r} is no {'whole ' * (kind is int)}number") from None
        if not low <= value <= high:
            raise ValueError(f"{raw[:40]} is not from {low:,} to {high:,}")
        return value

    return read


def flag(raw: str) -> bool:
    return one_of("0", "1")(raw) == "1"
