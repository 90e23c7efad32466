"""The draft as a file: save it, load one."""

from __future__ import annotations

import re

import streamlit as st

from gptlab.config import RunConfig
from gptlab.corpus import CorpusError, open_corpus
from gptlab.parsing import parse_config
from pages.shared.draft import load_draft, read_draft, save_draft
from pages.shared.look import escape

LOADED = "config.file"


def config_file() -> None:
    """A button that saves the draft as JSON, and an uploader that replaces it. A faulty file changes nothing."""
    draft = read_draft()
    stem = re.sub(r"[^A-Za-z0-9_-]+", "-", draft.name).strip("-") or draft.preset
    st.download_button(
        "Save as a file",
        draft.config.to_json(),
        f"{stem}.json",
        "application/json",
        icon=":material/download:",
        on_click="ignore",
    )
    file = st.file_uploader("Load a configuration", key=LOADED, on_change=_load, max_upload_size=1)
    if file is None:
        return
    try:
        _, note = _read(file.getvalue())
    except ValueError as error:
        st.error(f"{escape(file.name)} was not loaded, and nothing has changed. {escape(str(error))}")
        return
    st.success(f"{escape(file.name)} is loaded. {escape(note)}")


def _load() -> None:
    file = st.session_state[LOADED]
    if file is None:
        return
    try:
        config, _ = _read(file.getvalue())
    except ValueError:
        return  # the sentence stands below the uploader
    save_draft(config)


def _read(raw: bytes) -> tuple[RunConfig, str]:
    """The configuration in a file, on the text chosen now where its own is not here. ValueError: all its faults."""
    config = parse_config(raw)
    try:
        open_corpus(config.data.corpus, download=False)
    except CorpusError:
        return config.with_fields(
            data={"corpus": load_draft().data.corpus}
        ), "Its text is not here: the chosen one stays."
    return config, ""
