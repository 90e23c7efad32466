"""What several runs wrote, side by side: after the same epoch, or after the same number of tokens."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import streamlit as st

from gptlab.events import Sampled
from gptlab.log import RunLog
from gptlab.runs import Run
from pages.shared.epoch_samples import continuation, count_words, epoch_name, prompt_length, written_ids
from pages.shared.look import escape, number
from pages.shared.token_strip import Token, token_strip, tokens_of

MOST = 12  # samples that are shown at once
EQUAL = {"epoch": "Epoch", "tokens": "Tokens seen"}


@dataclass(frozen=True)
class Placed:
    """A sample, and how many tokens had been trained on when it was written."""

    sample: Sampled
    tokens: int


def placed(log: RunLog, prompt: str) -> list[Placed]:
    """The samples of a prompt, earliest first."""
    found = []
    for sample in log.samples:
        if sample.prompt == prompt:
            made = log.steps.count_until(sample.step) if sample.epoch else 0
            found.append(Placed(sample, log.steps[made - 1].tokens_seen if made else 0))
    return found


def at_epoch(samples: Sequence[Placed], epoch: int) -> Placed | None:
    """The sample after that epoch; None where the run did not get there."""
    return next((item for item in reversed(samples) if item.sample.epoch == epoch), None)


def at_tokens(samples: Sequence[Placed], tokens: int) -> Placed | None:
    """The last sample written before more than so many tokens had been seen."""
    return next((item for item in reversed(samples) if item.tokens <= tokens), None)


def compare_samples(names: Sequence[str], runs: Sequence[Run]) -> None:
    """The section. Runs that have no sample of the chosen prompt at that point say so."""
    prompts = list(dict.fromkeys(sample.prompt for run in runs for sample in run.log().samples))
    if len(runs) < 2 or not prompts:
        return
    st.markdown("**What they wrote**")
    prompt = prompts[0]
    if len(prompts) > 1:
        prompt = st.selectbox("Prompt", prompts, key="runs.prompt")
    rows = [(name, placed(run.log(), prompt)) for name, run in zip(names, runs, strict=True)]
    with st.container(horizontal=True, vertical_alignment="bottom"):
        equal = st.segmented_control(
            "At the same", list(EQUAL), default="epoch", format_func=EQUAL.__getitem__, required=True, key="runs.equal"
        )
        points, chosen = _points([found for _, found in rows], equal or "epoch")
        if len(points) > 1:
            with st.container(width="stretch"):
                chosen = st.select_slider(
                    EQUAL[equal or "epoch"], points, value=chosen, format_func=lambda n: f"{n:,}",
                    key=f"runs.at.{equal}.{points[-1]}.{len(points)}",
                )  # fmt: skip
    pick = at_epoch if equal == "epoch" else at_tokens
    with st.grid(3, min_column_width=260, gap="small"):
        for place, (name, found) in enumerate(rows[:MOST]):
            with st.container(border=True, gap="xxsmall"):
                st.markdown(f"**{escape(name)}**")
                _one(pick(found, chosen), place)
    if len(rows) > MOST:
        st.caption(f"The first {MOST} of {len(rows)} ticked runs.")


def _points(rows: Sequence[Sequence[Placed]], equal: str) -> tuple[list[int], int]:
    """Where the slider can stand, every epoch or number of tokens at which one of the runs wrote, and where it begins:
    as far as all of them came.
    """
    found = [[item.sample.epoch if equal == "epoch" else item.tokens for item in row] for row in rows]
    points = sorted({point for row in found for point in row})
    common = min(max(row) for row in found if row)
    return points, max(point for point in points if point <= common)


def _one(item: Placed | None, place: int) -> None:
    if item is None:
        st.markdown(":gray[Nothing of this prompt at that point.]")
        return
    sample = item.sample
    token_strip(sample_tokens(sample), key=f"runs.sample.{place}", label=epoch_name(sample.epoch))
    st.caption(f"{epoch_name(sample.epoch)} · {number(item.tokens)} tokens seen · {counts(sample)}")


def sample_tokens(sample: Sampled) -> list[Token]:
    """A sample as tokens for the strip: line breaks as spaces, the prompt marked."""
    tokens = tokens_of(sample.token_ids, sample.probabilities, prompt=prompt_length(sample))
    for token in tokens:
        token["text"] = re.sub(r"\s*\n\s*", " ", token["text"])
    return tokens


def counts(sample: Sampled) -> str:
    """How long the continuation is: always the same number of tokens, but not of words."""
    n_tokens, n_words = len(written_ids(sample)), count_words(continuation(sample))
    return f"{n_tokens} token{'' if n_tokens == 1 else 's'}, {n_words} word{'' if n_words == 1 else 's'}"
