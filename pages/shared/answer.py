"""The answer of the playground: streamed while a thread writes it, then coloured, with what else it might have said."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from pages.shared.decoding import in_words
from pages.shared.generation import Generation, Prompt, alternative_pieces
from pages.shared.look import escape, number
from pages.shared.token_strip import Token, token_strip, tokens_of, trace

WHITESPACE = "playground.whitespace"
CHOSEN = "playground.chosen"  # (text, place) of the token of the answer that was pressed
ANSWER_HEIGHT = 300
SHOWN_PROMPT = 400  # of its last tokens, in front of the answer
SHOWN_DROPPED = 60  # tokens before the context that are still shown, struck out


def prompt_tokens(prompt: Prompt, context_length: int | None) -> None:
    """The prompt as the model reads it, token by token, and a sentence about what it cannot read."""
    beyond = prompt.beyond(context_length)
    st.caption(_about_prompt(prompt, context_length))
    first = max(0, beyond - SHOWN_DROPPED)
    tokens = tokens_of(prompt.ids[first:])
    for token in tokens[: beyond - first]:
        token |= {"mark": "removed", "plain": True, "title": "before the context: the model does not see it"}
    token_strip(tokens, key="prompt-tokens", height=96, label="The prompt as tokens")


def _about_prompt(prompt: Prompt, context_length: int | None) -> str:
    if prompt.from_nothing:
        return r"The prompt is empty: the model starts from \<|endoftext|\>, the mark that stands before every text."
    n = len(prompt.ids)
    said = f"{n:,} token{'' if n == 1 else 's'}"
    beyond = prompt.beyond(context_length)
    if prompt.cut_characters:
        said = f"The first {prompt.cut_characters:,} characters are left out; the rest is {said}"
    if beyond:
        return (
            f"{said}, more than this model's context of {context_length:,}: "
            f"the first {beyond:,} {'is' if beyond == 1 else 'are'} dropped."
        )
    return f"{said}; this model reads at most {context_length:,} at once." if context_length else f"{said}."


def answer(generation: Generation | None) -> None:
    """The panel of the answer. While it is being written a fragment redraws it, and the page once it is complete."""
    active = generation is not None and generation.active
    if generation is not None and active:
        generation.watch()
    st.fragment(_panel, run_every=0.25 if active else None)(generation, active)


def _panel(generation: Generation | None, was_active: bool) -> None:
    if generation is not None:
        generation.watch()
        if was_active and not generation.active:
            st.rerun()
    st.caption(status(generation))
    show_whitespace = bool(st.session_state.get(WHITESPACE))
    with st.container(border=True, height=ANSWER_HEIGHT, key="answer", autoscroll=was_active):
        if generation is not None and generation.state == "failed":
            st.error(escape(generation.fault), icon=":material/error:")
        _texts(generation, show_whitespace)
    legend, foot = st.columns([3, 2], vertical_alignment="center")
    with legend:
        token_strip([], key="answer-legend", legend=True, empty="", label="What the tints mean", press="nothing")
    with foot, st.container(horizontal=True, horizontal_alignment="right", vertical_alignment="center"):
        st.toggle("White space", key=WHITESPACE, persist_state="session", help="Show spaces and line ends as · and ↵.")
        with st.popover("Copy", icon=":material/content_copy:", disabled=_empty(generation)):
            if generation is not None and not _empty(generation):
                for place in range(len(generation.texts)):
                    st.code(generation.text(place), language=None, wrap_lines=True)


def _texts(generation: Generation | None, show_whitespace: bool) -> None:
    texts = range(len(generation.texts)) if generation else range(1)
    for place in texts:
        if len(texts) > 1 and generation is not None:
            st.caption(_heading(generation, place))
        tokens, shown = answer_tokens(generation, place) if generation else ([], 0)
        chosen = st.session_state.get(CHOSEN)
        if chosen and chosen[0] == place and shown + chosen[1] < len(tokens):
            tokens[shown + chosen[1]]["here"] = True
        pressed = token_strip(
            tokens,
            key="answer-tokens" if place == 0 else f"answer-tokens-{place}",
            label="The answer, each token tinted by its probability",
            empty="The answer appears here.",
            show_whitespace=show_whitespace,
            press="nothing" if generation is None or generation.active else "choose",
            hint="Press: what else might have stood here",
        )
        if pressed is not None and pressed >= shown:
            st.session_state[CHOSEN] = (place, pressed - shown)
            st.rerun()
        elif pressed is not None:
            trace(tokens[pressed]["id"], [token["id"] for token in tokens[:pressed]])


def _heading(generation: Generation, place: int) -> str:
    if generation.notes:
        return f"Beam {place + 1}, {generation.notes[place]}"
    same = len(set(generation.prompts)) == 1
    seed = generation.sampling.seed
    kind = "Sample" if same else "Prompt"
    return f"{kind} {place + 1}" + (f", seed {seed + place}" if same and seed is not None else "")


def _empty(generation: Generation | None) -> bool:
    return generation is None or generation.active or not any(generation.texts)


def answer_tokens(generation: Generation, place: int = 0) -> tuple[list[Token], int]:
    """The prompt, faint, and the answer, and how many of the tokens are the prompt. What else was likely comes once
    the answer is complete."""
    seen: Sequence[int] = generation.prompts[place].ids[-SHOWN_PROMPT:]
    written = list(generation.texts[place])
    chances = [*[None] * len(seen), *[token.probability for token in written]]
    tokens = tokens_of([*seen, *(token.id for token in written)], chances, prompt=len(seen))
    if not generation.active:
        for token, others in zip(tokens[len(seen) :], alternative_pieces(written), strict=True):
            token["alternatives"] = others
    return tokens, len(seen)


def status(generation: Generation | None) -> str:
    """One line about an answer: who writes, how, how much and how fast."""
    if generation is None:
        return "Nothing written yet."
    n, rate = generation.n_written, generation.tokens_per_second
    speed = f" in {generation.seconds:.2f} s, {number(rate)} tokens a second" if rate else ""
    written = f"{n:,} token{'' if n == 1 else 's'}{speed}"
    by = f"{escape(generation.title)} · {generation.manner or in_words(generation.sampling)} · "
    most = generation.sampling.max_new_tokens * len(generation.texts)
    match generation.state:
        case "loading":
            return f"{by}opening the weights …"
        case "writing":
            return f"{by}{n:,} of {most:,} tokens, {number(rate)} a second"
        case "stopped":
            return f"{by}stopped after {written}"
        case "left":
            return f"{by}{n:,} tokens, then the page was left"
        case "failed":
            return f"{by}broken off after {n:,} tokens"
    ended = n < most and not generation.manner
    return f"{by}{written}" + (r", ended by \<|endoftext|\>" if ended else "")
