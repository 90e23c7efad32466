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
from gptlab.runs import Run, check_name
from pages.shared.store import store

FIRST_PRESET = "tiny"
REFERENCE_PRESET = "gpt2-124m"
FAULT = "draft.fault"


@dataclass(frozen=True)
class Draft:
    """What would be trained if Start were pressed now, the preset that it began from, and the name for the run.

    ``fork``: (run id, checkpoint) whose weights it begins with; None: random ones.
    """

    config: RunConfig
    preset: str = FIRST_PRESET
    name: str = ""
    fork: tuple[str, str] | None = None


def draft_path() -> Path:
    return data_home() / "draft.json"


def read_draft() -> Draft:
    """The draft on disk; the first preset on the built-in story where there is none, or a damaged one."""
    try:
        raw = json.loads(draft_path().read_text(encoding="utf-8"))
        config, preset, name = parse_config(raw["config"]), str(raw["preset"]), check_name(str(raw.get("name", "")))
        run, checkpoint = raw.get("fork") or ("", "")
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return Draft(PRESETS[FIRST_PRESET])
    fork = (str(run), str(checkpoint)) if run else None
    return Draft(config, preset if preset in PRESETS else FIRST_PRESET, name, fork)


def load_draft() -> RunConfig:
    return read_draft().config


def draft_preset() -> str:
    return read_draft().preset


def draft_name() -> str:
    """The name that the run to be shall have; empty: none given."""
    return read_draft().name


def save_draft(
    config: RunConfig | None = None,
    *,
    preset: str | None = None,
    name: str | None = None,
    fork: tuple[str, str] | None = None,
) -> Draft:
    """Replace what is given, keep the rest. A preset begins with random weights, unless ``fork`` is given with it.

    ValueError: the name cannot be a run's.
    Where the disk refuses, the draft stays as it was, and pages say so until a change can be saved again.
    """
    now = read_draft()
    if now.fork is not None and preset is not None and fork is None:
        name = name or ""  # it was the fork's
    draft = Draft(
        config=now.config if config is None else config,
        preset=now.preset if preset is None else preset,
        name=now.name if name is None else check_name(name),
        fork=fork or (now.fork if preset is None else None),
    )
    raw = {
        "config": draft.config.model_dump(mode="json"), "preset": draft.preset, "name": draft.name, "fork": draft.fork
    }  # fmt: skip
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


def base_of(draft: Draft) -> tuple[RunConfig, str]:
    """What the draft is a change of, and its name: the preset, or for a fork its parent's settings."""
    if draft.fork is not None:
        try:
            parent = store().get(draft.fork[0]).config
        except ValueError:
            return draft.config, "the parent, which is gone"
        own = {"device": draft.config.train.device, "prompts": draft.config.train.prompts}
        return parent.with_fields(data={"corpus": draft.config.data.corpus}, train=own), "the parent run"
    return from_preset(draft.preset, draft.config), draft.preset


def back_to_base() -> None:
    """Undo every change but those of text, device and prompts."""
    save_draft(base_of(read_draft())[0])


def choose_fork(run: Run, checkpoint: str) -> None:
    """Draft a run from a checkpoint's weights: its settings are the run's own, to be changed from there."""
    name = f"{run.name[:100]}, continued"
    preset = next((name for name, config in PRESETS.items() if config.model == run.config.model), FIRST_PRESET)
    save_draft(run.config, preset=preset, name=name, fork=(run.id, checkpoint))


def drop_fork() -> None:
    """Begin with random weights after all; every setting stays."""
    save_draft(preset=read_draft().preset)


def choose_preset(name: str) -> None:
    save_draft(from_preset(name, load_draft()), preset=name)


def choose_corpus(reference: str | tuple[str, ...]) -> None:
    edit_draft(data={"corpus": reference})


def choose_reference_exercise(corpus: str) -> None:
    """The published exercise exactly, on ``corpus`` (The Verdict); only the device stays as it was chosen."""
    config = PRESETS[REFERENCE_PRESET].with_fields(data={"corpus": corpus}, train={"device": load_draft().train.device})
    save_draft(config, preset=REFERENCE_PRESET)
