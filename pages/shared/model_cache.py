"""Trained models, loaded once and shared by all sessions: read only, so that several people may generate at once."""

from __future__ import annotations

import importlib
import sys
import textwrap
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import streamlit as st

from pages.shared.look import size

if TYPE_CHECKING:
    from gptlab.model import GPTModel

MOST_MODELS = 2  # in memory at once; the least recently used leaves
MOST_SAID = 240  # characters of why weights cannot be read
_in_memory: weakref.WeakSet[GPTModel] = weakref.WeakSet()


def open_model(weights: Path, device: str = "cpu") -> GPTModel:
    """The model of a weights file as it stands there now, in eval mode. ValueError: it is gone or damaged."""
    return _said_well(weights, device, _loaded)


def read_model(weights: Path, device: str = "cpu") -> GPTModel:
    """As ``open_model``, but not kept: for a question to many checkpoints, which would drive out the others."""
    return _said_well(weights, device, _read)


def _said_well(weights: Path, device: str, read: Callable[[str, int, int, str], GPTModel]) -> GPTModel:
    name = weights.parent.name
    try:
        stat = weights.stat()
    except OSError as error:
        raise ValueError(f"The weights {name} are no longer there: choose another checkpoint.") from error
    try:
        return read(str(weights), stat.st_mtime_ns, stat.st_size, device)
    except ValueError as error:
        why = textwrap.shorten(str(error), MOST_SAID, placeholder=" …")
        raise ValueError(f"The weights {name} cannot be read: choose another checkpoint. ({why})") from error


@st.cache_resource(max_entries=MOST_MODELS, show_spinner=False)
def _loaded(path: str, mtime_ns: int, n_bytes: int, device: str) -> GPTModel:
    """``mtime_ns`` and ``n_bytes`` tell a file from the one that stood there before, as ``best`` is replaced."""
    model = _read(path, mtime_ns, n_bytes, device)
    _in_memory.add(model)
    return model


def _read(path: str, mtime_ns: int, n_bytes: int, device: str) -> GPTModel:
    from gptlab.checkpoint import load_model

    return load_model(Path(path), device)


def models_in_memory() -> tuple[int, int]:
    """How many models this process keeps, and their bytes. One that has just left may count while it still writes."""
    models = list(_in_memory)
    return len(models), sum(p.numel() * p.element_size() for model in models for p in model.parameters())


def memory_line() -> None:
    """What the models in memory take: one copy serves all sessions, and the least recently used leaves."""
    count, n_bytes = models_in_memory()
    if count:
        st.caption(
            f"In memory: {count} model{'' if count == 1 else 's'}, {size(n_bytes)}, shared by everybody who looks on; "
            f"at most {MOST_MODELS} stay."
        )


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
