"""The configuration being edited is a file, so that pages, tabs and restarts agree. A run's own is never touched."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import streamlit as st

from gptlab.config import PRESETS, RunConfig
from gptlab.home import data_home, write_atomically
from gptlab.parsing import parse_config
from gptlab.runs import check_name

FIRST_PRESET = "tiny"
REFERENCE_PRESET = "gpt2-124m"
FAULT = "draft.fault"


@dataclass(frozen=True)
class Draft:
    """What would be trained if Start were pressed now, the preset that it began from, and the name for the run."""

    config: RunConfig
    preset: str = FIRST_PRESET
    name: str = ""


def draft_path() -> Path:
    return data_home() / "draft.json"


def read_draft() -> Draft:
    """The draft on disk; the first preset on the built-in story where there is none, or a damaged one."""
    try:
        raw = json.loads(draft_path().read_text(encoding="utf-8"))
        config, preset, name = parse_config(raw["config"]), str(raw["preset"]), check_name(str(raw.get("name", "")))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return Draft(PRESETS[FIRST_PRESET])
    return Draft(config, preset if preset in PRESETS else FIRST_PRESET, name)


def load_draft() -> RunConfig:
    return read_draft().config


def draft_preset() -> str:
    return read_draft().preset


def draft_name() -> str:
    """The name that the run to be shall have; empty: none given."""
    return read_draft().name


def save_draft(config: RunConfig | None = None, *, preset: str | None = None, name: str | None = None) -> Draft:
    """Replace what is given, keep the rest. ValueError: the name cannot be a run's.

    Where the disk refuses, the draft stays as it was, and pages say so until a change can be saved again.
    """
    now = read_draft()
    draft = Draft(
        config=now.config if config is None else config,
        preset=now.preset if preset is None else preset,
        name=now.name if name is None else check_name(name),
    )
    raw = {"config": draft.config.model_dump(mode="json"), "preset": draft.preset, "name": draft.name}
    try:
        write_atomically(draft_path(), json.dumps(raw, ensure_ascii=False, indent=2) + "\n")
    except OSError as error:
        st.session_state[FAULT] = (
            f"The change could not be saved ({error.strerror}): make room in {data_home()}, or let it be written to, "
            "and try again. Everything stays as it was."
        )
        return now
    st.session_state.pop(FAULT, None)
    return draft


def edit_draft(**sections: dict[str, Any]) -> None:
    """Replace some fields of some sections; pydantic's ValidationError where the whole would be impossible."""
    save_draft(load_draft().with_fields(**sections))


def from_preset(name: str, config: RunConfig) -> RunConfig:
    """The preset on the text, the device and the prompts that ``config`` has: those are people's own choices."""
    return PRESETS[name].with_fields(
        data={"corpus": config.data.corpus}, train={"device": config.train.device, "prompts": config.train.prompts}
    )


def choose_preset(name: str) -> None:
    save_draft(from_preset(name, load_draft()), preset=name)


def choose_corpus(reference: str | tuple[str, ...]) -> None:
    edit_draft(data={"corpus": reference})


def choose_reference_exercise(corpus: str) -> None:
    """The published exercise exactly, on ``corpus`` (The Verdict); only the device stays as it was chosen."""
    config = PRESETS[REFERENCE_PRESET].with_fields(data={"corpus": corpus}, train={"device": load_draft().train.device})
    save_draft(config, preset=REFERENCE_PRESET)
