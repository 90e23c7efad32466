"""What does it say, and why? A trained model continues a prompt, token by token."""

from __future__ import annotations

from typing import TYPE_CHECKING

import streamlit as st

from gptlab.runs import Run, live_runs
from pages.shared.answer import answer, prompt_tokens
from pages.shared.checkpoint_picker import chosen_checkpoint, pick_checkpoint, weights_line
from pages.shared.decoding import chosen_device, chosen_sampling, decoding_controls
from pages.shared.generation import Generation, read_prompt
from pages.shared.look import page_header
from pages.shared.model_cache import open_model, warm_up
from pages.shared.run_picker import no_run_yet, pick_run
from pages.shared.store import store

if TYPE_CHECKING:
    from gptlab.model import GPTModel

PROMPT, ANSWER = "playground.prompt", "playground.answer"


def generate(run: Run) -> None:
    """Begin an answer to what stands in the page's inputs at this click; one that is still being written ends."""
    if isinstance(before := st.session_state.get(ANSWER), Generation):
        before.stop()
    wanted, device = chosen_checkpoint(), chosen_device()

    def open_weights() -> GPTModel:
        return open_model(run.checkpoint(wanted).weights, device)

    try:
        title = f"{run.name}, after {run.checkpoint(wanted).step:,} steps"
    except (OSError, ValueError):
        title = run.name  # the thread says what is wrong
    busy = any(other.log().device in (None, "cpu") for other in live_runs(store()))
    prompt = read_prompt(st.session_state.get(PROMPT) or "")
    generation = Generation(open_weights, prompt, chosen_sampling(), title=title, sparing=busy).start()
    generation.wait(0.35)  # a tiny model is done by then, undisturbed, and the page is drawn once
    st.session_state[ANSWER] = generation


def stop(generation: Generation) -> None:
    generation.stop()
    generation.wait(0.5)


def context_of(run: Run) -> int | None:
    try:
        return run.config.model.context_length
    except ValueError:
        return None  # the weights themselves still know


def main() -> None:
    page_header("Playground", "What does it say, and why?")
    if not store().list():
        no_run_yet()
        return
    warm_up()
    which, weights = st.columns(2)
    with which:
        run = pick_run(store())
    if run is None:
        return
    with weights:
        wanted = pick_checkpoint(run)
    weights_line(run, wanted)

    writing, choosing = st.columns([2.4, 1], gap="large")
    with choosing, st.container(border=True):
        decoding_controls()
    with writing:
        first = run.config.train.prompts[0] if run.config_error is None else ""
        st.session_state.setdefault(PROMPT, first)
        text = st.text_area(
            "Prompt", key=PROMPT, height=110, persist_state="session", placeholder="Nothing: it begins on its own"
        )
        prompt_tokens(read_prompt(text or ""), context_of(run))
        generation: Generation | None = st.session_state.get(ANSWER)
        active = generation is not None and generation.active
        with st.container(horizontal=True):
            st.button(
                "Generate", type="primary", icon=":material/edit_note:", disabled=wanted is None or active,
                help=None if wanted else "Nothing is saved yet.",
                on_click=generate, args=(run,),
            )  # fmt: skip
            st.button("Stop", icon=":material/stop:", disabled=not active, on_click=stop, args=(generation,))
        answer(generation)


main()
