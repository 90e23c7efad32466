"""How long a run will take: from a timed step, made in a process of its own while the page goes on.

One step is timed at a time, and only of settings that a page shows now: a page asks again every second.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import streamlit as st

from gptlab.config import PRESETS, RunConfig
from gptlab.estimate import estimate
from gptlab.prediction import predicted_seconds, rough_seconds, settled
from gptlab.step_timing import measure_step_seconds
from pages.shared.draft import REFERENCE_PRESET
from pages.shared.look import duration, escape, roughly

MOST_PARAMETERS = 60_000_000  # larger models are timed when a person asks
PATIENCE = 300.0  # seconds that timing a few steps may take
VERDICT_TOKENS = (4_612, 534)

WHY = "Makes a few real steps of this model, in a process of its own."

State = Literal["known", "measuring", "failed", "unmeasured"]


@dataclass(frozen=True)
class Prediction:
    """Seconds that a run will take, if ``known``; why there are none, if ``failed``."""

    state: State
    seconds: float | None = None
    reason: str = ""


class _Bench:
    """The one step that is being timed, and the reasons of those that could not be."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.busy_with: str | None = None
        self.failed: dict[str, str] = {}

    def start(self, config: RunConfig) -> None:
        """Time ``config`` if nothing else is being timed."""
        key = _what_matters(config)
        with self.lock:
            if self.busy_with is not None:
                return
            self.busy_with = key
            self.failed.pop(key, None)
        threading.Thread(target=self._work, args=(config, key), name="time-a-step", daemon=True).start()

    def _work(self, config: RunConfig, key: str) -> None:
        try:
            measure_step_seconds(config, timeout=PATIENCE)
        except (ValueError, OSError) as error:
            self.failed[key] = str(error)
        finally:
            with self.lock:
                self.busy_with = None


@st.cache_resource(show_spinner=False)
def _bench() -> _Bench:
    return _Bench()


def _what_matters(config: RunConfig) -> str:
    facts = [
        config.model.model_dump(exclude={"init"}),
        config.data.batch_size,
        config.train.model_dump(include={"device", "precision", "compile"}),
    ]
    return json.dumps(facts, sort_keys=True)


def predict(config: RunConfig, n_train: int, n_val: int, *, asked: bool = False, idle: bool = True) -> Prediction:
    """What is known of the run's time now. Small models are timed at once, if ``idle``; others only when ``asked``."""
    config = settled(config, n_train)
    bench, key = _bench(), _what_matters(config)
    seconds = predicted_seconds(config, n_train, n_val)
    if seconds is not None and not asked and bench.busy_with != key:
        return Prediction("known", seconds)
    small = estimate(config, n_train, n_val).n_parameters <= MOST_PARAMETERS
    if asked or (small and idle and key not in bench.failed):
        bench.start(config)
    if bench.busy_with == key or (bench.busy_with is not None and small and key not in bench.failed):
        return Prediction("measuring")
    if key in bench.failed:
        return Prediction("failed", reason=bench.failed[key])
    return Prediction("unmeasured")


def preset_seconds(name: str, config: RunConfig, n_train: int, n_val: int) -> float | None:
    """What a preset takes on a text of that length and on the draft's device; None while not known."""
    return predicted_seconds(_on_its_device(name, config), n_train, n_val)


def rough_preset_seconds(name: str, config: RunConfig, n_train: int, n_val: int) -> float | None:
    """The same by the sizes alone, for a preset that has not been timed; None where that says nothing."""
    return rough_seconds(_on_its_device(name, config), n_train, n_val)


def _on_its_device(name: str, config: RunConfig) -> RunConfig:
    return PRESETS[name].with_fields(train={"device": config.train.device})


def when_known(config: RunConfig, n_train: int, n_val: int, draw: Callable[[Prediction], bool], *, idle: bool) -> None:
    """``draw`` the prediction, again each second while a step is being timed. ``draw`` returns: time a step now."""
    measuring = predict(config, n_train, n_val, idle=idle).state == "measuring"

    @st.fragment(run_every=1.0 if measuring else None)
    def watch() -> None:
        latest = predict(config, n_train, n_val, idle=idle)
        if measuring and latest.state != "measuring":
            st.rerun()
        if draw(latest):
            predict(config, n_train, n_val, asked=True)
            st.rerun()

    watch()


def reference_time(config: RunConfig) -> None:
    """What the reference exercise takes on this machine: roughly, with a button that finds out, or as timed."""
    exercise = _on_its_device(REFERENCE_PRESET, config)

    def draw(now: Prediction) -> bool:
        if now.state == "known":
            st.markdown(f":gray[:material/timer: About {duration(now.seconds)} on this machine.]")
        elif now.state == "measuring":
            st.markdown(":gray[:material/timer: Timing a few steps …]")
        else:
            if now.reason:
                st.markdown(f":gray[{escape(now.reason)}]")
            guess = rough_seconds(exercise, *VERDICT_TOKENS)
            if guess is not None:
                st.markdown(f":gray[:material/timer: Roughly {roughly(guess)} on this machine.]")
            label = "Time a few steps" if guess else "How long on this machine?"
            return st.button(label, key="time-reference", icon=":material/timer:", type="tertiary", help=WHY)
        return False

    when_known(exercise, *VERDICT_TOKENS, draw, idle=False)
