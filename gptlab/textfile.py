"""What people hand in as a text file: the text in it, or a sentence that says what is wrong with it."""

from __future__ import annotations

MAX_NAME = 80  # characters of a name that are kept


class CorpusError(ValueError):
    """A text that cannot be used; the message says why and what to do."""


def display_name(name: str) -> str:
    """A name that is safe to show: one line of at most 80 printable characters."""
    line = " ".join("".join(c if c.isprintable() else " " for c in name).split())
    return (line if len(line) <= MAX_NAME else line[: MAX_NAME - 3] + "...") or "unnamed text"


def decode_text(raw: bytes, name: str) -> str:
    """The text in ``raw`` (a UTF-8 byte-order mark is left out), or a CorpusError that says what is wrong with it."""
    save = "save it as UTF-8 text and try again"
    mark = 3 if raw.startswith(b"\xef\xbb\xbf") else 0
    raw = raw[mark:]
    if not raw:
        raise CorpusError(f"{name} is empty: choose a file with text in it.")
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")) or _alternates(raw[:4096]):
        raise CorpusError(f"{name} is UTF-16 text, not UTF-8: {save}.")
    if (nul := raw.find(b"\0")) >= 0:
        raise CorpusError(f"{name} is not a text file (a NUL byte at offset {mark + nul:,}): {save}.")
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise CorpusError(
            f"{name} is not UTF-8 (byte 0x{raw[error.start]:02x} at offset {mark + error.start:,}): {save}."
        ) from error
    if text.isspace():
        raise CorpusError(f"{name} holds nothing but white space: choose a file with text in it.")
    return text


def _alternates(raw: bytes) -> bool:
    """Whether zeros stand at every other byte, as in Western text saved as UTF-16 without a mark."""
    even, odd = raw[0::2].count(0), raw[1::2].count(0)
    return len(raw) >= 4 and max(even, odd) > 0.4 * len(raw) / 2 and min(even, odd) < 0.05 * len(raw)
