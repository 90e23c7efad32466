"""Trained models, loaded once and shared by all sessions: read only, so that several people may generate at once."""

from __future__ import annotations

import importlib
import sys
import textwrap
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import streamlit as st

if TYPE_CHECKING:
    from gptlab.model import GPTModel

MOST_MODELS = 2  # in memory at once; the least recently used leaves
MOST_SAID = 240  # characters of why weights cannot be read


def open_model(weights: Path, device: str = "cpu") -> GPTModel:
    """The model of a weights file as it stands there now, in eval mode. ValueError: it is gone or damaged."""
    name = weights.parent.name
    try:
        stat = weights.stat()
    except OSError as error:
        raise ValueError(f"The weights {name} are no longer there: choose another checkpoint.") from error
    try:
        return _loaded(str(weights), stat.st_mtime_ns, stat.st_size, device)
    except ValueError as error:
        why = textwrap.shorten(str(error), MOST_SAID, placeholder=" …")
        raise ValueError(f"The weights {name} cannot be read: choose another checkpoint. ({why})") from error


@st.cache_resource(max_entries=MOST_MODELS, show_spinner=False)
def _loaded(path: str, mtime_ns: int, size: int, device: str) -> GPTModel:
    """``mtime_ns`` and ``size`` tell a file from the one that stood there before, as ``best`` is replaced."""
    from gptlab.checkpoint import load_model

    return load_model(Path(path), device)


@st.cache_resource(show_spinner=False)
def warm_up() -> None:
    """Import PyTorch behind the page's back, once a process, so that the first answer need not wait for it."""
    threading.Thread(target=_import, name="import-torch", daemon=True).start()


def _import() -> None:
    for name in ("gptlab.sampling", "gptlab.checkpoint"):
        importlib.import_module(name)


def devices() -> list[str]:
    """Where a model may write: the CPU first, then the accelerators that PyTorch, once imported, knows of."""
    torch = sys.modules.get("torch")
    if torch is None or not hasattr(torch, "compile"):  # not there yet, or half imported
        return ["cpu"]
    return ["cpu", *_accelerators()]


@st.cache_resource(show_spinner=False)
def _accelerators() -> list[str]:
    from gptlab.device import available_devices

    return [device.name for device in available_devices() if device.name != "cpu"]
