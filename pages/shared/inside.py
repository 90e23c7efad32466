"""Inside one prediction: attention, what each layer would say, the next token, and the surprise of what was read."""

from __future__ import annotations

from collections.abc import Callable

import streamlit as st

from gptlab.runs import Run
from pages.shared.asked import attention, lens, next_logits, token_surprise, weights_of
from pages.shared.attention_map import attention_map
from pages.shared.decoding import chosen_device
from pages.shared.generation import Generation, read_prompt
from pages.shared.lens_table import lens_table
from pages.shared.look import escape
from pages.shared.next_token import bits
from pages.shared.surprise import surprise_strip
from pages.shared.token_bars import bars_of, token_bars
from pages.shared.url_field import Field, flag, number_in
from pages.shared.writing import ANSWER, PROMPT, context_of, prompt_area

PANELS, HEAD, WITH_ANSWER = "playground.panels", "playground.head", "playground.with_answer"
NAMES = ("attention", "layers", "next", "surprise")
TITLES = {"attention": "Attention", "layers": "Each layer’s guess", "next": "Next token", "surprise": "Surprise"}
TOP = 20
LENS_FROM = "playground.lens_from"
LENS_PLACES = 16  # shown at once: of 256 tokens of a 124M model all of them would take several seconds


def _read_panels(raw: str) -> list[str]:
    if not set(wanted := raw.split(".")) <= set(NAMES):
        raise ValueError(f"{raw[:40]!r} names a panel that is not there")
    return wanted


def _read_head(raw: str) -> tuple[int, int]:
    layer, _, head = raw.partition(".")
    if not (layer.isdecimal() and head.isdecimal() and 0 < int(layer) < 1000 and 0 < int(head) < 1000):
        raise ValueError(f"{raw[:40]!r} is no layer and head as in 2.1, counted from 1")
    return int(layer) - 1, int(head) - 1


FIELDS = (
    Field("panels", PANELS, _read_panels, ["attention"], ".".join),
    Field("head", HEAD, _read_head, (0, 0), lambda at: f"{at[0] + 1}.{at[1] + 1}"),
    Field("with_answer", WITH_ANSWER, flag, False),
    Field("lens_from", LENS_FROM, number_in(1, 10**6, int)),
)


def inside_section(run: Run, wanted: str | None) -> None:
    prompt_area(run)
    with st.container(horizontal=True, vertical_alignment="center"):
        st.segmented_control(
            "Show", NAMES, selection_mode="multi", format_func=TITLES.__getitem__, key=PANELS,
            persist_state="session", label_visibility="collapsed", wrap=True,
        )  # fmt: skip
        answer: Generation | None = st.session_state.get(ANSWER)
        written = answer is not None and not answer.active and bool(answer.tokens)
        st.toggle(
            "With the answer", key=WITH_ANSWER, persist_state="session", disabled=not written,
            help="Look at the prompt and the answer of Write together.",
        )  # fmt: skip
    if wanted is None:
        st.info("Nothing is saved yet: there is no model to look into.", icon=":material/hourglass_top:")
        return
    prompt = read_prompt(st.session_state.get(PROMPT) or "")
    ids = prompt.ids
    if written and answer is not None and st.session_state.get(WITH_ANSWER):
        ids = (*answer.prompt.ids, *(token.id for token in answer.tokens))
    context = context_of(run) or len(ids)
    read = ids[-context:]
    said = "from the mark that stands before every text" if prompt.from_nothing and len(ids) == 1 else ""
    dropped = f"; the first {len(ids) - len(read):,} do not fit into its context" if len(read) < len(ids) else ""
    st.caption(f"The model reads {len(read):,} token{'' if len(read) == 1 else 's'}{dropped}{said and ', ' + said}.")
    shown = [name for name in NAMES if name in (st.session_state.get(PANELS) or ())]
    if not shown:
        st.info("Choose above what to look at: nothing is computed before.", icon=":material/visibility:")
    for name in shown:
        try:
            _DRAW[name](run, wanted, read)
        except ValueError as error:
            st.error(escape(str(error)), icon=":material/error:")
            return


def _attention(run: Run, wanted: str, ids: tuple[int, ...]) -> None:
    from gptlab.tokenizer import token_pieces

    st.subheader("Where each token looks", anchor=False)
    with st.spinner("Reading …", show_time=True):
        weights = attention(weights_of(run, wanted), ids, chosen_device())
    layer, head = st.session_state.get(HEAD) or (0, 0)
    at = (min(layer, weights.shape[0] - 1), min(head, weights.shape[1] - 1))
    pressed = attention_map(token_pieces(ids), weights, key="attention", chosen=at)
    if pressed and pressed != at:
        st.session_state[HEAD] = pressed
        st.rerun()


def _layers(run: Run, wanted: str, ids: tuple[int, ...]) -> None:
    from gptlab.tokenizer import token_pieces

    st.subheader("What each layer would say", anchor=False)
    st.markdown(
        ":gray[The residual stream after each block, read as if the model ended there (the logit lens). Marked: what "
        "really comes next. The last row is the model’s own answer.]"
    )
    places = _lens_places(len(ids))
    with st.spinner("Reading …", show_time=True):
        found = lens(weights_of(run, wanted), ids, places, chosen_device())
    pieces = token_pieces(ids)
    rows = [(name, list(zip(token_pieces(row), chances, strict=True))) for name, row, chances in found]
    following = [*pieces[1:], ""][places.start : places.stop]
    shown = pieces[places.start : places.stop]
    lens_table(shown, rows[::-1], following, key="lens", label="The guess of each layer", corner="after")


def _lens_places(n: int) -> range:
    """The places looked at: all of a short text; of a longer one those from the slider on, at first the last."""
    last = n - LENS_PLACES + 1
    if last <= 1:
        return range(n)
    wanted = st.session_state.get(LENS_FROM)
    st.session_state[LENS_FROM] = last if wanted is None else min(wanted, last)
    first = st.slider(
        f"{LENS_PLACES} of {n:,} places, from place", 1, last, key=LENS_FROM, persist_state="session",
        help="Every layer is asked at each place shown: the places are chosen, so that long texts answer at once.",
    )  # fmt: skip
    return range(first - 1, first - 1 + LENS_PLACES)


def _next(run: Run, wanted: str, ids: tuple[int, ...]) -> None:
    from gptlab.distribution import entropy

    st.subheader("The next token", anchor=False)
    logits = next_logits(weights_of(run, wanted), ids, chosen_device())
    own = logits.softmax(-1)
    best = own.topk(min(TOP, len(own)))
    token_bars(
        bars_of(best.indices.tolist(), best.values.tolist()), key="top", label=f"The {TOP} likeliest next tokens"
    )
    rest = max(0.0, 1 - float(best.values.sum()))
    st.caption(f"All others together: {100 * rest:.1f} %. Entropy {bits(entropy(own))} bits.")


def _surprise(run: Run, wanted: str, ids: tuple[int, ...]) -> None:
    st.subheader("How it surprised the model", anchor=False)
    if len(ids) < 2:
        st.caption("One token alone cannot be scored: write more.")
        return
    losses = token_surprise(weights_of(run, wanted), ids, chosen_device())
    surprise_strip(ids, losses, key="inside-surprise", height=260)
    st.caption(f"Mean surprise: {float(losses.mean()):.3f} nats a token.")


_DRAW: dict[str, Callable[[Run, str, tuple[int, ...]], None]] = {
    "attention": _attention,
    "layers": _layers,
    "next": _next,
    "surprise": _surprise,
}
