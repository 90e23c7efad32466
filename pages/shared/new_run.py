"""Before a run: what the draft amounts to, what speaks against it, and Start."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import streamlit as st

from gptlab.config import RunConfig
from gptlab.device import pick_device
from gptlab.metrics import Extent
from gptlab.parsing import parse_config
from gptlab.prediction import predicted_seconds, rough_seconds
from gptlab.preflight import Preflight, check
from gptlab.runs import Run, RunStore, live_runs
from pages.shared.draft import Draft, drop_fork, read_draft
from pages.shared.exercise import exercise_ready
from pages.shared.forking import fork_banner, fork_fault
from pages.shared.look import duration, escape, number, roughly, size
from pages.shared.run_picker import just_started, run_label, starts
from pages.shared.starting import start_once
from pages.shared.status_card import Fact, Standing, status_card
from pages.shared.store import kept, store


@dataclass(frozen=True)
class Checked:
    """What is known before the start. ``ready`` is None where the text cannot even be opened."""

    ready: Preflight | None
    faults: tuple[str, ...]
    warnings: tuple[str, ...] = ()
    device: str = "–"


@st.cache_resource(ttl=20, max_entries=4, show_spinner="Checking text, disk and device …")
def _checked(config_json: str, root: str) -> Checked:
    config = parse_config(config_json)
    try:
        ready = check(config, RunStore(root), download=False)
    except (ValueError, OSError) as error:
        return Checked(None, tuple(str(error).splitlines()))
    try:
        device = str(pick_device(config.train.device))
    except ValueError:
        device = "–"  # a fault says so
    return Checked(ready, ready.faults, ready.warnings, device)


def new_run() -> tuple[Extent, RunConfig]:
    """Show the draft and Start. Returns how far the run would go, for the axes that wait below."""
    if (begun := just_started()) and st.query_params.get("run") != begun:
        st.query_params["run"] = begun
        st.rerun()
    live = live_runs(store())  # looked at once: what is said and what a press means must not differ
    st.fragment(_news, run_every=2)(live)
    draft = read_draft()
    config = draft.config
    checked = _checked(config.to_json(), str(store().root))
    if fault := fork_fault(draft):
        checked = replace(checked, faults=(fault, *checked.faults))
    seen = tuple(sorted(run.id for run in live))
    busy = _busy(live, checked.device)
    with st.container(horizontal=True, vertical_alignment="bottom", key="player"):
        name = st.text_input(
            "Name",
            value=draft.name,
            max_chars=120,
            placeholder="Name of the run (optional)",
            label_visibility="collapsed",
            key="new-name",
            width=320,
        )
        agreed = not busy or st.checkbox("Start beside it all the same", key=f"agreed/{','.join(busy)}")
        why = (
            "Not possible as it stands: see below."
            if checked.faults
            else ""
            if agreed
            else "Another run trains: agree first."
        )
        # The key names the runs that this page has seen: a press that comes after another start counts for nothing.
        pressed = st.button(
            "Start",
            type="primary",
            icon=":material/play_arrow:",
            disabled=bool(why),
            help=why or None,
            key=f"start/{','.join(seen)}",
        )
    fork_banner(draft)
    exercise_ready(draft)
    if pressed:
        _start(draft, name, seen)
    for said in busy.values():
        st.warning(f"{said} Two runs share the device: each will be slower.", icon=":material/hourglass_top:")
    for fault in checked.faults:
        st.error(escape(fault), icon=":material/block:")
    if checked.faults:
        with st.container(horizontal=True):
            st.page_link("pages/corpus.py", label="Choose another text", icon=":material/menu_book:")
            st.page_link("pages/hyperparameters.py", label="Change the settings", icon=":material/tune:")
    for warning in checked.warnings:
        st.warning(escape(warning), icon=":material/warning:")
    status_card(_standing(config, draft.preset, checked), key="status")
    if checked.ready is None:
        return Extent(), config
    expected = checked.ready.estimate
    tokens = config.data.batch_size * config.model.context_length * config.optim.grad_accumulation
    return Extent(expected.total_steps, expected.steps_per_epoch, tokens), config


def _news(seen: list[Run]) -> None:
    """A run that another tab, a terminal or the queue begins, or one that ends, is said before Start is pressed."""
    if {run.id for run in live_runs(store())} != {run.id for run in seen}:
        st.rerun()


def _start(draft: Draft, name: str, seen: tuple[str, ...]) -> None:
    mine = starts()
    try:
        with st.spinner("Starting …"):
            started = start_once(store(), draft.config, name=name, seen=seen, fork_of=draft.fork)
            mine[started.run.id] = time.monotonic()
            if draft.fork is not None:
                drop_fork()  # the run after this one begins afresh
    except (ValueError, OSError) as error:
        st.error(escape(str(error)), icon=":material/error:")
        return
    st.rerun()


def _busy(live: list[Run], device: str) -> dict[str, str]:
    """Of the runs that train now those on the device that this one would use (or that do not say yet where)."""
    found = {}
    for run in live:
        where = kept(run).log().device
        if where in (None, device):
            found[run.id] = escape(run_label(run)) + (f" on {where}." if where else ".")
    return found


def _time(config: RunConfig, ready: Preflight) -> Fact:
    seconds = predicted_seconds(config, ready.n_train_tokens, ready.n_val_tokens)
    if seconds:
        return "Time", duration(seconds), "predicted"
    guess = rough_seconds(config, ready.n_train_tokens, ready.n_val_tokens)
    return ("Time", f"≈ {roughly(guess)}", "a rough guess") if guess else ("Time", "–", "not measured yet")


def _standing(config: RunConfig, preset: str, checked: Checked) -> Standing:
    model, data, ready = config.model, config.data, checked.ready
    if ready is None:
        return Standing("Not ready", "bad", f"from the preset {preset}")
    expected = ready.estimate
    corpus = ready.corpus.name if len(ready.corpus.name) <= 60 else ready.corpus.name[:59] + "…"
    shape = f"{model.n_layers} layers, width {model.emb_dim}, {model.n_heads} heads"
    automatic = "chosen automatically" if config.train.device == "auto" else ""
    facts = (
        ("Parameters", number(expected.n_parameters), shape),
        ("Epochs", number(config.train.num_epochs), f"{number(expected.total_steps)} steps"),
        ("Batch", f"{data.batch_size} × {model.context_length}", "windows × tokens"),
        ("Learning rate", f"{config.optim.learning_rate:g}", config.optim.schedule),
        ("Device", checked.device, automatic),
        ("Memory", size(expected.memory_bytes), "estimated"),
        ("Disk", size(expected.disk_bytes), "for its checkpoints"),
        _time(config, ready),
    )
    line = f"{preset} on {corpus}"
    if checked.faults:
        return Standing("Not ready", "bad", line, done=0.0, facts=facts)
    return Standing("Ready", "good", line, done=0.0, facts=facts)
