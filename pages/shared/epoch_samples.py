"""What the model wrote after each epoch, newest on top, while it trains."""

from __future__ import annotations

import re

import streamlit as st

from gptlab.events import Sampled
from gptlab.log import RunLog
from pages.shared.token_strip import Token, token_strip, tokens_of

SHOWN = 12


def sample_tokens(sample: Sampled) -> list[Token]:
    """A sample as tokens for the strip: line breaks as spaces, the prompt marked."""
    chances = sample.probabilities or (None,) * len(sample.token_ids)
    prompt = next((at for at, chance in enumerate(chances) if chance is not None), len(chances))
    tokens = tokens_of(sample.token_ids, chances, prompt=prompt)
    for token in tokens:
        token["text"] = re.sub(r"\s*\n\s*", " ", token["text"])
    return tokens


def continuation(sample: Sampled) -> str:
    """What the model added to the prompt, on one line."""
    return " ".join(sample.text.removeprefix(sample.prompt).split())


def counts(sample: Sampled) -> str:
    """How long the continuation is: always the same number of tokens, but not of words."""
    known = [chance for chance in sample.probabilities if chance is not None]
    n_tokens = len(known) if sample.probabilities else len(sample.token_ids)
    n_words = count_words(continuation(sample))
    return f"{n_tokens} token{'' if n_tokens == 1 else 's'}, {n_words} word{'' if n_words == 1 else 's'}"


def count_words(text: str) -> int:
    """Runs of letters or digits, with inner apostrophes and hyphens; commas are no words."""
    return len(re.findall(r"[^\W_]+(?:['’-][^\W_]+)*", text))


def epoch_name(epoch: int) -> str:
    return "Before training" if epoch == 0 else f"After epoch {epoch}"


def epoch_samples(log: RunLog | None, *, height: int) -> None:
    """The newest sample of each prompt as coloured tokens, the earlier ones as text below."""
    st.subheader("What it writes", anchor=False)
    samples = log.samples if log else []
    with st.container(height=height, border=True, key="samples-feed"):
        if not samples:
            st.markdown(":gray[The first sample comes before the first step, then one after every epoch.]")
            return
        newest = [sample for sample in samples if sample.epoch == samples[-1].epoch]
        for place, sample in enumerate(newest):
            with st.container(gap="xxsmall"):
                st.markdown(f"**{epoch_name(sample.epoch)}** :gray[· {counts(sample)}]")
                token_strip(sample_tokens(sample), key=f"newest-{place}", label=epoch_name(sample.epoch))
        for sample in reversed(samples[: len(samples) - len(newest)][-SHOWN:]):
            with st.container(gap=None):
                st.markdown(f":gray[{epoch_name(sample.epoch)} · {counts(sample)}]")
                st.text(" ".join(sample.text.split()), width="stretch")
