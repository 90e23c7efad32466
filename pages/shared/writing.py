"""Write: a prompt, how the next token is chosen, and the answer with everything that can be done to it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import streamlit as st

from gptlab.runs import Run, live_runs
from pages.shared.answer import CHOSEN, answer, prompt_tokens
from pages.shared.branches import branches, piece_of
from pages.shared.checkpoint_picker import chosen_checkpoint
from pages.shared.chosen_token import chosen_token
from pages.shared.continuations import Tree, put
from pages.shared.decoding import (
    MOST_TEXTS,
    chosen_beams,
    chosen_device,
    chosen_samples,
    chosen_sampling,
    decoding_controls,
)
from pages.shared.generation import Generation, Prompt, read_prompt
from pages.shared.model_cache import open_model
from pages.shared.next_token import next_token
from pages.shared.store import store
from pages.shared.url_field import Field, flag

if TYPE_CHECKING:
    from gptlab.model import GPTModel
    from gptlab.sampling import GeneratedToken

PROMPT, ANSWER, LINES, TREE = "playground.prompt", "playground.answer", "playground.lines", "playground.tree"
FIELDS = (Field("prompt", PROMPT, str), Field("lines", LINES, flag, False))


def tree_of_session() -> Tree:
    return st.session_state.setdefault(TREE, Tree())


def prompt_area(run: Run) -> str:
    """The prompt's text area, the same one in every section."""
    first = run.config.train.prompts[0] if run.config_error is None and run.config.train.prompts else ""
    st.session_state.setdefault(PROMPT, first)
    return (
        st.text_area(
            "Prompt", key=PROMPT, height=110, persist_state="session", placeholder="Nothing: it begins on its own"
        )
        or ""
    )


def context_of(run: Run) -> int | None:
    try:
        return run.config.model.context_length
    except ValueError:
        return None  # the weights themselves still know


def prompts_now() -> list[Prompt]:
    """What stands in the text area: one prompt, or one a line where that is wished, at most ``MOST_TEXTS``."""
    text = st.session_state.get(PROMPT) or ""
    if st.session_state.get(LINES):
        lines = [line for line in text.splitlines() if line.strip()][:MOST_TEXTS]
        return [read_prompt(line) for line in lines] or [read_prompt("")]
    return [read_prompt(text)]


def busy_cpu() -> bool:
    """Whether something trains on the processor now."""
    return any(run.log().device in (None, "cpu") for run in live_runs(store()))


def write(run: Run, checkpoint: str, prompts: list[Prompt], *, kept: list[GeneratedToken] | None = None) -> Generation:
    """Start to continue ``prompts`` with the panel's settings."""
    device = chosen_device()

    def open_weights() -> GPTModel:
        return open_model(run.checkpoint(checkpoint).weights, device)

    try:
        title = f"{run.name}, after {run.checkpoint(checkpoint).step:,} steps"
    except (OSError, ValueError):
        title = run.name  # the thread says what is wrong
    generation = Generation(
        open_weights, prompts[0], chosen_sampling(), kept=kept or (), more=prompts[1:], beams=chosen_beams(),
        title=title, sparing=busy_cpu(),
    ).start()  # fmt: skip
    generation.wait(0.35)  # a tiny model is done by then, undisturbed, and the page is drawn once
    return generation


def generate(run: Run) -> None:
    """Begin an answer to what stands in the page's inputs at this click; one that is still being written ends."""
    prompts = prompts_now()
    if len(prompts) == 1:
        prompts *= chosen_samples()
    st.session_state.pop(CHOSEN, None)
    tree = tree_of_session()
    tree.stop()
    tree.begin(write(run, chosen_checkpoint(), prompts))
    st.session_state[ANSWER] = tree.branches[0].generation


def fork(run: Run, text: int, place: int, alternative: int | None) -> None:
    """Go on from a place of the current answer, with an alternative or with what is drawn now."""
    tree = tree_of_session()
    branch = tree.current
    if branch is None:
        return
    before = branch.generation
    word = "" if alternative is None else piece_of(tree, text, place, alternative)
    kept = put(before.texts[text], place, alternative)
    generation = write(run, chosen_checkpoint(), [before.prompts[text]], kept=kept)
    tree.grow(generation, place, text, word)
    st.session_state[ANSWER] = generation
    st.session_state.pop(CHOSEN, None)


def go_on(run: Run) -> None:
    """Continue at the end of the current answer (of its first text)."""
    if branch := tree_of_session().current:
        fork(run, 0, len(branch.generation.tokens), None)


def stop(generation: Generation) -> None:
    generation.stop()
    generation.wait(0.5)


def write_section(run: Run, wanted: str | None) -> None:
    writing, choosing = st.columns([1.75, 1], gap="large")
    tree = tree_of_session()
    with choosing, st.container(border=True):
        decoding_controls()
    with writing:
        prompt_area(run)
        prompts = prompts_now()
        prompt_tokens(prompts[0], context_of(run))
        generation = tree.current.generation if tree.current else None
        active = generation is not None and generation.active
        with st.container(horizontal=True, vertical_alignment="center"):
            st.button(
                "Generate", type="primary", icon=":material/edit_note:", disabled=wanted is None or active,
                help=None if wanted else "Nothing is saved yet.", on_click=generate, args=(run,),
            )  # fmt: skip
            st.button("Stop", icon=":material/stop:", disabled=not active, on_click=stop, args=(generation,))
            nothing = generation is None or active or not generation.tokens or wanted is None
            st.button(
                "Continue", icon=":material/arrow_forward:", disabled=nothing, on_click=go_on, args=(run,),
                help="Write on from the end of the answer.",
            )  # fmt: skip
            st.toggle(
                "A prompt a line", key=LINES, persist_state="session",
                help=f"Each line is a prompt of its own, the first {MOST_TEXTS} of them answered side by side.",
            )  # fmt: skip
        answer(generation)
        chosen_token(tree, lambda text, place, alternative: fork(run, text, place, alternative))
        branches(tree)
    with choosing, st.container(border=True):
        next_token(run, wanted, prompts[0].ids)
