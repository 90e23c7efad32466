"""A passage of a person's own choice, pasted or a window of the text, scored by the weights that the run kept."""

from __future__ import annotations

from typing import TYPE_CHECKING

import streamlit as st

from gptlab.config import RunConfig
from gptlab.corpus import open_corpus
from gptlab.dataset import window_starts
from gptlab.probing import Passage
from gptlab.runs import CheckpointInfo, Run, live_runs
from pages.shared.look import escape
from pages.shared.model_cache import open_model
from pages.shared.scoring import Scoring, kept_epochs
from pages.shared.store import store

if TYPE_CHECKING:
    from gptlab.model import GPTModel

SCORING = "samples.scoring"
PASTED, WINDOW = "A text of your own", "A window of the text"


def other_passage(run: Run) -> Passage | None:
    """The inputs, and what was scored so far; None before anything was."""
    try:
        config = run.config
    except ValueError as error:
        st.info(escape(str(error)), icon=":material/broken_image:")
        return None
    kept = kept_epochs(run)
    if not kept:
        st.info(
            "This run kept no weights, so no other passage can be scored: keep checkpoints in the next one.",
            icon=":material/inventory_2:",
        )
        return None
    ids, part, start = _chosen(config)
    scoring: Scoring | None = st.session_state.get(SCORING)
    if scoring is not None and st.session_state.get(f"{SCORING}.run") != run.id:
        scoring = None
    longest = config.model.context_length + 1
    if len(ids) > longest:
        st.caption(
            f"Only the first {longest:,} of {len(ids):,} tokens fit into this model's context: those are scored."
        )
    with st.container(horizontal=True, vertical_alignment="center"):
        active = scoring is not None and scoring.active
        if st.button(
            f"Score it with {len(kept)} saved model{'s' * (len(kept) > 1)}", key="score", icon=":material/analytics:",
            disabled=len(ids) < 2 or active, help="Give two tokens or more." if len(ids) < 2 else None,
        ):  # fmt: skip
            scoring = _begin(run, Passage(part, start, tuple(ids[:longest])))
    if scoring is None:
        return None
    _progress(scoring)
    return scoring.passage


def _chosen(config: RunConfig) -> tuple[list[int], str, int]:
    """The token ids that the inputs name, and where they stand."""
    from gptlab.tokenizer import END_OF_TEXT, get_tokenizer

    how = st.radio("Which", [WINDOW, PASTED], horizontal=True, key="other.how", label_visibility="collapsed")
    if how == PASTED:
        text = st.text_area("Passage", key="other.text", height=100, max_chars=20_000,
                            placeholder="Paste or type a passage")  # fmt: skip
        return get_tokenizer().encode(text or "", allowed_special={END_OF_TEXT}, disallowed_special=()), "pasted", 0
    try:
        parts = open_corpus(config.data.corpus, download=False).split_ids(config.data.train_ratio)
    except (OSError, ValueError) as error:
        st.warning(f"The text of this run is no longer there: paste a passage instead. {escape(str(error))}")
        return [], "training", 0
    with st.container(horizontal=True, vertical_alignment="bottom"):
        part = st.segmented_control(
            "Part", ["training", "validation"], default="training", required=True, key="other.part",
            format_func=str.capitalize,
        )  # fmt: skip
        tokens = parts[part == "validation"]
        starts = window_starts(len(tokens), config.model.context_length, config.stride)
        if not starts:
            st.caption("That part is shorter than one window: all of it is taken.")
            return tokens.tolist(), part or "training", 0
        window = st.number_input(
            f"Window, of {len(starts):,}", 1, len(starts), 1, key=f"other.window.{part}", width=180
        )
    start = starts[int(window) - 1]
    return tokens[start : start + config.model.context_length + 1].tolist(), part or "training", start


def _begin(run: Run, passage: Passage) -> Scoring:
    if isinstance(before := st.session_state.get(SCORING), Scoring):
        before.stop()

    def open_weights(item: CheckpointInfo) -> GPTModel:
        return open_model(item.weights)

    busy = any(other.log().device in (None, "cpu") for other in live_runs(store()))
    scoring = Scoring(passage, kept_epochs(run), open_weights, sparing=busy).start()
    scoring.wait(0.4)  # a tiny model is done by then
    st.session_state[SCORING], st.session_state[f"{SCORING}.run"] = scoring, run.id
    return scoring


def _progress(scoring: Scoring) -> None:
    """How far the thread is, looked at again and again; the section is drawn anew once it has ended."""
    was_active = scoring.active

    @st.fragment(run_every=0.5 if was_active else None)
    def watch() -> None:
        scoring.watch()
        if was_active and not scoring.active:
            st.rerun()
        n = len(scoring.kept)
        if scoring.active:
            st.progress(scoring.done / n, text=f"Scored by {scoring.done} of {n} saved models …")
        elif scoring.fault:
            st.error(escape(scoring.fault), icon=":material/error:")
        else:
            st.caption(f"Scored by {scoring.done} saved model{'s' * (scoring.done != 1)} in {scoring.seconds:.1f} s.")

    watch()
