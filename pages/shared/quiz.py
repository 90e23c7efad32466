"""A cloze quiz: a token of the corpus is hidden, a person guesses, then sees what the model guessed at each epoch."""

from __future__ import annotations

import random

import streamlit as st

from gptlab.cloze import ClozeQuestion, cloze_question
from gptlab.corpus import open_corpus
from gptlab.runs import Run
from pages.shared.asked import epoch_label, guesses, some_steps, weights_of
from pages.shared.look import escape, number
from pages.shared.text_table import text_table
from pages.shared.token_strip import token_strip, tokens_of
from pages.shared.url_field import Field, number_in, one_of

PLACE, PART, SHOWN, TALLY = (f"playground.quiz_{name}" for name in ("place", "part", "shown", "tally"))
PARTS = {"train": "Text it trained on", "val": "Text it never saw"}
FIELDS = (Field("quiz", PLACE, number_in(1, 10**9, int)), Field("part", PART, one_of(*PARTS), "val"))
SHOWN_BEFORE, SHOWN_AFTER = 60, 12  # tokens around the hidden one


def quiz_section(run: Run, wanted: str | None) -> None:
    st.session_state.setdefault(PART, "val")
    with st.container(horizontal=True, vertical_alignment="bottom"):
        part = st.segmented_control(
            "From", list(PARTS), format_func=PARTS.__getitem__, required=True, key=PART, persist_state="session",
            on_change=_another,
        )  # fmt: skip
        st.button("Another token", icon=":material/casino:", on_click=_another)
        _say_tally()
    if wanted is None:
        st.info("Nothing is saved yet: the quiz needs a checkpoint.", icon=":material/hourglass_top:")
        return
    try:
        riddle = _question(run, str(part))
    except (ValueError, OSError) as error:
        st.error(escape(str(error)), icon=":material/error:")
        return
    st.caption("One word is hidden: which? The model is given only what stands before it.")
    revealed = st.session_state.get(SHOWN) == st.session_state.get(PLACE)
    hidden = tokens_of([riddle.answer])[0] | {"here": True} if revealed else {"text": " ▁▁▁▁▁", "id": -1, "here": True}
    after = [token | {"mark": "prompt"} for token in tokens_of(riddle.after[:SHOWN_AFTER])]
    shown = [*tokens_of(riddle.before[-SHOWN_BEFORE:]), hidden, *after]
    token_strip(shown, key="quiz-tokens", label="The text, one token hidden", press="nothing", hint="")
    with st.form("quiz", border=False), st.container(horizontal=True, vertical_alignment="bottom"):
        guess = st.text_input("Your guess", key=f"quiz.guess.{st.session_state[PLACE]}", max_chars=60)
        sent = st.form_submit_button("Reveal", type="primary", icon=":material/visibility:", disabled=revealed)
    if sent:
        st.session_state[SHOWN] = st.session_state[PLACE]
        right = guess.strip().casefold() == _piece(riddle.answer).strip().casefold() and bool(guess.strip())
        tally = st.session_state.get(TALLY, (0, 0))
        st.session_state[TALLY] = (tally[0] + right, tally[1] + 1)
        st.rerun()
    if revealed:
        _reveal(run, riddle, guess)


def _say_tally() -> None:
    right, asked = st.session_state.get(TALLY, (0, 0))
    if asked:
        st.caption(f"You: {right} of {asked} right.")


def _another() -> None:
    st.session_state[PLACE] = random.randrange(1, 10**9)


def _question(run: Run, part: str) -> ClozeQuestion:
    config = run.config
    train, val = open_corpus(config.data.corpus, download=False).split_ids(config.data.train_ratio)
    if not st.session_state.get(PLACE):
        _another()
    seed = int(st.session_state[PLACE])
    return cloze_question(train if part == "train" else val, config.model.context_length, seed)


def _piece(id_: int) -> str:
    from gptlab.tokenizer import token_pieces

    return token_pieces([id_])[0]


def _reveal(run: Run, riddle: ClozeQuestion, guess: str) -> None:
    truth = _piece(riddle.answer)
    said = guess.strip()
    if said and said.casefold() == truth.strip().casefold():
        st.success(f"Right: “{escape(truth)}”.", icon=":material/check_circle:")
    else:
        yours = f" You said “{escape(said)}”." if said else ""
        st.info(f"It was “{escape(truth)}”.{yours}", icon=":material/lightbulb:")
    names = some_steps(run)
    rows = []
    bar = st.progress(0.0, text="Asking every epoch …")
    for number_, name in enumerate(names):
        try:
            found = guesses(weights_of(run, name), riddle.before, riddle.answer)
        except ValueError as error:
            rows.append([epoch_label(run, name), f"({error})", "–", "–", "–"])
            continue
        rows.append(
            [
                epoch_label(run, name), " ".join(f"“{_piece(id_)}”" for id_, _ in found.likeliest[:3]),
                f"{100 * found.likeliest[0][1]:.1f} %", f"{100 * found.chance:.2g} %", number(found.rank),
            ]
        )  # fmt: skip
        bar.progress((number_ + 1) / len(names), text="Asking every epoch …")
    bar.empty()
    text_table(
        [
            ("Weights", ""), ("Its three guesses", "prose"), ("Sure of the first", "number"),
            (f"Chance of “{truth.strip() or truth}”", "number"), ("Its rank", "number"),
        ],
        rows, key="quiz-table", pressable=False, label="What the model guessed at each epoch",
    )  # fmt: skip
