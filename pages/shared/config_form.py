"""The form of a configuration. An input that is possible goes to the draft at once; one that is not stays as typed,
with a sentence below it, and the draft stays as it was.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import streamlit as st
from pydantic import ValidationError

from gptlab.config import RunConfig
from gptlab.device import available_devices, pick_device, resolve_precision
from gptlab.fork import FREE
from gptlab.parsing import explain_validation_error
from gptlab.runs import check_name
from gptlab.tokenizer import get_tokenizer
from pages.shared.draft import base_of, edit_draft, load_draft, read_draft, save_draft
from pages.shared.fields import FormField, Place, field_help, form_fields, held_back, settle
from pages.shared.look import escape

DEVICE, NAME, MOST_PROMPTS = "train.device", "run.name", 5
BASIC: tuple[Place, ...] = (
    ("train", "num_epochs"),
    ("data", "batch_size"),
    ("optim", "learning_rate"),
    ("model", "context_length"),
    ("model", "emb_dim"),
    ("model", "n_heads"),
    ("model", "n_layers"),
)
SECTIONS = {"model": "Model", "data": "Data", "optim": "Optimiser", "train": "Run"}
STEPS = {"emb_dim": 16, "context_length": 16, "warmup_steps": 5, "sample_tokens": 10}


@dataclass(frozen=True)
class Inputs:
    """The state of the inputs: sentences on those held back, and which were given the draft's value just now."""

    held: dict[Place, str]
    given: frozenset[Place]


def basic_fields() -> Inputs:
    """The few fields that most people change."""
    inputs = _prepare()
    _grid(BASIC, inputs, then=_device_picker)
    _name_input()
    _prompt_inputs()
    return inputs


def advanced_fields(inputs: Inputs) -> None:
    """Every other field, section by section."""
    for section, title in SECTIONS.items():
        places = [place for place in form_fields() if place[0] == section and place not in BASIC]
        st.markdown(f"**{title}**")
        _grid(places, inputs)


def changed_fields(config: RunConfig, base: RunConfig) -> list[FormField]:
    """Fields that are not what ``base`` says."""
    return [field for field in form_fields().values() if field.of(config) != field.of(base)]


def _typed() -> dict[Place, Any]:
    """What the inputs hold that are on the page."""
    return {
        place: st.session_state[field.key] for place, field in form_fields().items() if field.key in st.session_state
    }


def _prepare() -> Inputs:
    """Give every input the draft's value, but those whose content is held back: they keep what was typed."""
    config, typed = load_draft(), _typed()
    held = held_back(config, typed)
    given = set()
    for place, field in form_fields().items():
        value = field.of(config)
        clearable = field.kind == "whole" and field.optional
        stale = place in typed and place not in held and field.typed(typed[place]) != value
        if stale or (clearable and place not in typed):
            st.session_state[field.key] = field.shown(value)
            given.add(place)
    return Inputs(held, frozenset(given))


def _edited(place: Place) -> None:
    """An input was changed: take it, together with those held back if they have become possible by it."""
    config, typed = load_draft(), _typed()
    wanted = {place: typed[place], **{other: typed[other] for other in held_back(config, typed)}}
    settled, _ = settle(config, wanted)
    if settled != config:
        save_draft(settled)


def _reset(field: FormField, value: Any) -> None:
    st.session_state[field.key] = field.shown(value)
    _edited(field.place)


def _grid(places: Sequence[Place], inputs: Inputs, then: Callable[[], None] | None = None) -> None:
    draft = read_draft()
    base, base_name = base_of(draft)
    said: set[str] = set()
    with st.grid(min_column_width=200, gap=("small", "medium")):
        for place in places:
            field = form_fields()[place]
            with st.container(gap="xsmall"):
                wanted = field.of(base)
                changed = place in inputs.held or field.of(draft.config) != wanted
                with st.container(horizontal=True, vertical_alignment="bottom", gap="xsmall", wrap=False):
                    fixed = draft.fork is not None and field.section == "model" and field.name not in FREE
                    _input(field, draft.config, place in inputs.given, fixed)
                    if changed:
                        st.button(
                            escape(field.said(wanted)),
                            key=f"reset.{field.key}",
                            icon=":material/undo:",
                            type="tertiary",
                            help=f"Back to {field.said(wanted)}, as in {base_name}",
                            on_click=_reset,
                            args=(field, wanted),
                        )
                if (sentence := inputs.held.get(place)) and sentence not in said:
                    said.add(sentence)
                    st.markdown(f":red[{escape(sentence)}]")
        if then:
            with st.container():
                then()


def _input(field: FormField, config: RunConfig, given: bool, fixed: bool) -> None:
    """``given``: the input's value was set on this run of the page, so it must not be stated a second time.

    ``fixed``: it cannot be changed, because the weights of a fork depend on it.
    """
    common: dict[str, Any] = {"key": field.key, "help": field.help, "on_change": _edited, "args": (field.place,)}
    common["disabled"] = fixed
    shown = field.shown(field.of(config))
    if field.kind == "choice":
        if not given:
            common["index"] = field.options.index(shown)
        st.selectbox(field.title, field.options, format_func=lambda option: _option(field, option, config), **common)
        return
    if not given:
        common["value"] = shown
    if field.kind == "switch":
        st.toggle(field.title, **common)
        return
    common["placeholder"] = _placeholder(field, config)
    if field.kind == "whole":
        if field.optional:
            common["value"] = None  # an input that can be emptied
        st.number_input(field.title, step=STEPS.get(field.name, 1), **common)
    else:
        st.text_input(field.title, **common)


def _placeholder(field: FormField, config: RunConfig) -> str:
    if not field.optional:
        return ""
    meant = {"stride": f"{config.model.context_length:,}, no overlap", "keep_checkpoints": "all"}
    return meant.get(field.name, "no limit" if field.name == "max_steps" else "never")


def _option(field: FormField, option: str, config: RunConfig) -> str:
    """A choice, and what "auto" comes to here."""
    if option != "auto":
        return option
    if field.name == "compile":
        return "auto (with bf16, where it pays)"
    try:
        return f"auto ({resolve_precision('auto', pick_device(config.train.device))})"
    except ValueError:
        return option


def _device_picker() -> None:
    config = load_draft()
    devices = {device.name: device.label for device in available_devices()}
    automatic = next(iter(devices.values()))
    labels: dict[str, str] = {"auto": f"Automatic: {automatic}", **devices}
    wanted: str = "cuda:0" if config.train.device == "cuda" and "cuda:0" in devices else config.train.device
    labels.setdefault(wanted, f"{wanted}, not on this machine")
    st.session_state[DEVICE] = wanted
    st.selectbox(
        "Device",
        list(labels),
        key=DEVICE,
        format_func=lambda name: labels.get(name, name),
        help=field_help("train", "device"),
        on_change=_device_edited,
    )
    if wanted != "auto" and wanted not in devices:
        st.markdown(f":red[There is no device {escape(wanted)} on this machine: choose another.]")


def _device_edited() -> None:
    edit_draft(train={"device": st.session_state[DEVICE]})


def _name_input() -> None:
    fault = ""
    name = read_draft().name
    if NAME in st.session_state:
        try:
            if check_name(st.session_state[NAME]) != name:
                st.session_state[NAME] = name
        except ValueError as error:
            fault = str(error)
    else:
        st.session_state[NAME] = name
    st.text_input(
        "Name of the run",
        key=NAME,
        placeholder="optional",
        help="What you will call the run. It can be changed later.",
        on_change=_name_edited,
    )
    if fault:
        st.markdown(f":red[{escape(fault)}]")


def _name_edited() -> None:
    try:
        save_draft(name=st.session_state[NAME])
    except ValueError:
        return  # the sentence stands below the input


def _prompts_typed() -> tuple[str, ...]:
    rows = (st.session_state.get(f"prompt.{row}") or "" for row in range(MOST_PROMPTS))
    return tuple(row for row in rows if row.strip())


def _prompts_fault(prompts: tuple[str, ...]) -> str:
    if not prompts:
        return "Every prompt is empty: write at least one beginning."
    try:
        load_draft().with_fields(train={"prompts": prompts})
    except ValidationError as error:
        return explain_validation_error(error)
    return ""


def _prompts_edited() -> None:
    prompts = _prompts_typed()
    if not _prompts_fault(prompts):
        edit_draft(train={"prompts": prompts})


def _prompt_inputs() -> None:
    config = load_draft()
    here = "prompt.0" in st.session_state
    typed = _prompts_typed()
    fault = _prompts_fault(typed) if here else ""
    if not fault and (not here or typed != config.train.prompts):
        for row in range(MOST_PROMPTS):
            prompts = config.train.prompts
            st.session_state[f"prompt.{row}"] = prompts[row] if row < len(prompts) else ""
    count = len(config.train.prompts)
    with st.expander(f"Sample prompts ({count})"):
        st.markdown(":gray[After every epoch the model continues these. One to five; empty rows are not used.]")
        for row in range(MOST_PROMPTS):
            draw = st.text_area if "\n" in st.session_state[f"prompt.{row}"] else st.text_input
            draw(f"Prompt {row + 1}", key=f"prompt.{row}", on_change=_prompts_edited, placeholder="not used")
        for sentence in filter(None, [fault, *_too_long(config)]):
            st.markdown(f":red[{escape(sentence)}]" if sentence == fault else f":orange[{escape(sentence)}]")


def _too_long(config: RunConfig) -> list[str]:
    length = config.model.context_length
    counts = [len(get_tokenizer().encode(prompt, allowed_special="all")) for prompt in config.train.prompts]
    return [
        f"Prompt {place} has {count:,} tokens, more than context_length {length:,}: only its last {length:,} are read."
        for place, count in enumerate(counts, 1)
        if count > length
    ]
