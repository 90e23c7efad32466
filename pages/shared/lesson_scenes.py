"""What each lesson shows, and its question: the right answer is always worked out from the real text and model."""

from __future__ import annotations

from dataclasses import dataclass

import streamlit as st

from gptlab.config import SamplingConfig
from gptlab.corpus import open_corpus
from gptlab.dataset import window_starts
from gptlab.runs import Run
from pages.shared.asked import attention, epoch_label, next_logits, saved_steps, token_surprise, weights_of
from pages.shared.attention_map import attention_map
from pages.shared.decoding import decoding_controls
from pages.shared.generation import read_prompt
from pages.shared.look import number
from pages.shared.loss_panel import loss_panel
from pages.shared.next_token import bits, draw, sampling_or_greedy
from pages.shared.run_status import config_of, run_extent
from pages.shared.surprise import surprise_strip
from pages.shared.token_strip import token_strip, tokens_of
from pages.shared.window_strip import window_strip

SENTENCE = "The river rose, and the book said so."


@dataclass(frozen=True)
class Question:
    """``right`` is one of ``options``; ``because`` is said once it has been chosen."""

    asked: str
    options: tuple[str, ...]
    right: str
    because: str


def tokens(run: Run) -> Question:
    from gptlab.tokenizer import get_tokenizer

    st.session_state.setdefault("lesson.text", "A river, a River, a RIVER: unbelievable!")
    text = st.text_input("Text", key="lesson.text")
    found = read_prompt(text).ids if text else ()
    token_strip(tokens_of(found), key="lesson-tokens", label="The text as tokens", show_whitespace=True)
    st.caption(f"{len(text):,} characters, {len(found):,} token{'' if len(found) == 1 else 's'}.")
    words = (" unbelievable", "unbelievable", " UNBELIEVABLE")
    counts = {word: len(get_tokenizer().encode(word)) for word in words}
    right = min(counts, key=lambda word: counts[word])
    shown = {word: f"“{word.replace(' ', '␣')}”" for word in words}
    told = ", ".join(f"{shown[word]} takes {n}" for word, n in counts.items())
    return Question(
        "Which of these is a single token? (␣ is a space.)",
        tuple(shown.values()),
        shown[right],
        f"Right: {told}. The frequent spelling has an entry of its own; the rare ones are put together.",
    )


def windows(run: Run) -> Question:
    from gptlab.tokenizer import token_pieces

    config = run.config
    ids, _ = open_corpus(config.data.corpus, download=False).split_ids(config.data.train_ratio)
    length = config.model.context_length
    start = window_starts(len(ids), length, config.stride)[0]
    chunk = [int(i) for i in ids[start : start + length + 1]]
    pieces = list(zip(chunk, token_pieces(chunk), strict=True))
    window_strip(pieces[:-1], pieces[1:], key="lesson-window")
    asked = 9  # the place, counted from 0
    right = pieces[asked + 1][1]
    options = list(dict.fromkeys([pieces[asked - 1][1], pieces[asked][1], right, pieces[asked + 3][1]]))
    shown = [f"“{piece.replace(' ', '␣')}”" for piece in options]
    return Question(
        f"What must the model predict at place {asked + 1} of this window?",
        tuple(shown),
        f"“{right.replace(' ', '␣')}”",
        f"Right. The target is the text shifted by one: a window of {length} tokens asks {length} such questions, "
        "and the model answers all of them in one go.",
    )


def loss(run: Run) -> Question:
    names = saved_steps(run)
    labels = {name: epoch_label(run, name) for name in names}
    st.session_state.setdefault("lesson.epoch", names[0])
    if len(names) > 1:
        chosen = st.select_slider("Weights", names, format_func=lambda name: labels[name], key="lesson.epoch")
    else:
        chosen = names[0]
    config = run.config
    train, _ = open_corpus(config.data.corpus, download=False).split_ids(config.data.train_ratio)
    # The beginning of the first window: at these very places every epoch read these words.
    ids = tuple(train[: min(24, config.model.context_length)].tolist())
    surprise_strip(ids, token_surprise(weights_of(run, chosen), ids), key="lesson-surprise")
    options = list(dict.fromkeys([names[0], names[len(names) // 2], names[-1]]))
    means = {name: float(token_surprise(weights_of(run, name), ids).mean()) for name in options}
    right = min(means, key=lambda name: means[name])
    told = ", ".join(f"{number(means[name], 2)} {labels[name]}" for name in options)
    return Question(
        "Which of these weights is least surprised by these words?",
        tuple(labels[name] for name in options),
        labels[right],
        f"Right: {told}. Guessing blindly among all 50,257 tokens would cost 10.82.",
    )


def overfitting(run: Run) -> Question | None:
    log = run.log()
    loss_panel(run, log, run_extent(run, log, config_of(run)), config_of(run))
    best, rows = log.best, log.evaluations
    if best is None or len(rows) < 3:
        return None
    options = sorted({rows[0].step + 1, rows[len(rows) // 3].step + 1, best.step + 1, rows[-1].step + 1})
    last = rows[-1]
    return Question(
        "After how many steps was the validation loss lowest?",
        tuple(f"{step:,}" for step in options),
        f"{best.step + 1:,}",
        f"Right: {number(best.val_loss, 2)} there. Afterwards training went on down to {number(last.train_loss, 2)}, "
        f"while validation came to {number(last.val_loss, 2)}: from then on the model learnt this text by heart.",
    )


def decoding(run: Run) -> Question:
    ids = read_prompt("The river").ids
    logits = next_logits(weights_of(run, "last"), ids)
    left, right = st.columns(2, gap="large")
    with left, st.container(border=True):
        decoding_controls()
    with right:
        st.caption("After “The river”, the model’s next token:")
        draw(logits, ids, sampling_or_greedy())
    from gptlab.distribution import filtered_distribution

    cold, hot = (filtered_distribution(logits, ids, SamplingConfig(temperature=t)).entropy_after for t in (0.5, 1.5))
    options = ("It grows", "It shrinks", "It stays as it is")
    truth = options[0] if hot > cold else options[1] if hot < cold else options[2]
    return Question(
        "What happens to the entropy when the temperature goes from 0.5 up to 1.5?",
        options,
        truth,
        f"Right: from {bits(cold)} to {bits(hot)} bits. A higher temperature evens the probabilities out, "
        "and what is drawn is less certain.",
    )


def attention_question(run: Run) -> Question:
    import numpy as np

    from gptlab.tokenizer import token_pieces

    ids = read_prompt(SENTENCE).ids
    weights = attention(weights_of(run, "last"), ids)
    L, H = weights.shape[:2]
    at = st.session_state.setdefault("lesson.head", (0, 0))
    pressed = attention_map(token_pieces(ids), weights, key="lesson-attention", chosen=at)
    if pressed and pressed != at:
        st.session_state["lesson.head"] = pressed
        st.rerun()
    before = np.diagonal(weights, offset=-1, axis1=-2, axis2=-1).mean(-1)  # [L, H]: how much goes to the token before
    order = np.argsort(-before.reshape(-1))
    picked = sorted({int(order[0]), int(order[len(order) // 2]), int(order[-1]), int(order[-2])})
    names = {flat: f"Layer {flat // H + 1}, head {flat % H + 1}" for flat in range(L * H)}
    best = int(order[0])
    return Question(
        "Which of these heads looks most at the token just before?",
        tuple(names[flat] for flat in picked),
        names[best],
        f"Right: on average {100 * before.reshape(-1)[best]:.0f} % of its attention goes there, a line just below the "
        "diagonal. Such heads are found in nearly every trained model.",
    )
