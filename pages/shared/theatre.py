"""The same prompts, epoch after epoch: what the theatre component is given. Going through epochs asks nothing here."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from difflib import SequenceMatcher
from functools import lru_cache
from typing import Any

import streamlit as st

from gptlab.copying import Copied, distinct_2
from gptlab.events import Sampled
from gptlab.log import RunLog
from gptlab.runs import Run
from pages.shared.component import component
from pages.shared.copied import Copies
from pages.shared.epoch_samples import certainty, continuation, count_words, epoch_name, val_loss_at, written_ids
from pages.shared.look import number
from pages.shared.token_strip import trace

MOST_FRAMES = 160
MOST_KEPT = 8  # runs, as prepared for the browser
ASKED = "theatre.asked"  # how often an epoch was asked for by name
Frames = dict[int, list[Sampled]]  # by epoch, one sample for each prompt, in the order of the prompts
Same = list[tuple[int, int, int]]  # stretches that two samples share: where in one, where in the other, how long


def prompts_of(samples: Iterable[Sampled]) -> list[str]:
    return list(dict.fromkeys(sample.prompt for sample in samples))


def frames_of(samples: Sequence[Sampled], *, wanted: int | None = None, most: int = MOST_FRAMES) -> Frames:
    """The samples by epoch, of all prompts; of very many epochs so many, evenly, and the ``wanted`` one."""
    prompts = {prompt: place for place, prompt in enumerate(prompts_of(samples))}
    found: dict[int, dict[int, Sampled]] = {}
    for sample in samples:
        found.setdefault(sample.epoch, {})[prompts[sample.prompt]] = sample  # where there are two, the later one
    epochs = thinned(sorted(found), most, wanted)
    return {epoch: [found[epoch][place] for place in sorted(found[epoch])] for epoch in epochs}


def thinned(epochs: Sequence[int], most: int, wanted: int | None = None) -> list[int]:
    """``most`` of the epochs, evenly, the first and the last among them, and the ``wanted`` one."""
    if len(epochs) <= most:
        return list(epochs)
    kept = {epochs[round(k * (len(epochs) - 1) / (most - 1))] for k in range(most)}
    return sorted(kept | {epoch for epoch in epochs if epoch == wanted})


@lru_cache(maxsize=20_000)
def shared(ids: tuple[int, ...], others: tuple[int, ...]) -> Same:
    """The stretches of tokens that two samples have in common, in the same order."""
    blocks = SequenceMatcher(None, ids, others, autojunk=False).get_matching_blocks()
    return [(block.a, block.b, block.size) for block in blocks if block.size]


def wanted_epoch() -> int | None:
    """The epoch that the URL names."""
    named = st.query_params.get("epoch", "")
    return int(named) if named.isdecimal() and len(named) < 10 else None


def ask_for(epoch: int) -> None:
    """Have the theatre go to that epoch, wherever a person has gone meanwhile."""
    st.query_params["epoch"] = str(epoch)
    st.session_state[ASKED] = st.session_state.get(ASKED, 0) + 1


def theatre(
    run: Run, log: RunLog, frames: Frames, copies: Copies | None, *, key: str, wanted: int | None = None,
    layout: str = "wide", height: int | None = None,
) -> None:  # fmt: skip
    """Show the frames: ``wide`` with a scrubber and two samples side by side, as a ``feed`` one below the other."""
    held = (st.session_state.get(key) or {}).get("held") if layout == "wide" else None
    data = {
        "run": run.id,
        "layout": layout,
        "height": height,
        "asked": wanted if wanted in frames else None,
        "times": st.session_state.get(ASKED, 0),
        "prompts": prompts_of(log.samples),
        **_prepared(run, log, frames, copies),
        "held": {"epoch": held, "same": _against(frames, held)} if held in frames else None,
    }
    pressed = component("theatre", uses=("token_strip",))(
        key=key, data=data, default={"held": None}, on_held_change=lambda: None, on_pressed_change=lambda: None
    ).pressed
    if pressed:
        trace(int(pressed["id"]), pressed["after"])


@st.cache_resource(show_spinner=False)
def _kept() -> OrderedDict[tuple[object, ...], dict[str, Any]]:
    return OrderedDict()


def _prepared(run: Run, log: RunLog, frames: Frames, copies: Copies | None) -> dict[str, Any]:
    """The frames as the browser gets them; made again only when there is a new sample or more is known of it."""
    kept, newest = _kept(), log.samples[-1]
    state = copies.state if copies else ""
    key = (run.id, len(log.samples), newest.time, newest.token_ids, tuple(frames), state)
    if key not in kept:
        kept[key] = {
            "pieces": pieces_of(sample for samples in frames.values() for sample in samples),
            "frames": frame_data(frames, log, copies),
        }
        while len(kept) > MOST_KEPT:
            kept.popitem(last=False)
    return kept[key]


def pieces_of(samples: Iterable[Sampled]) -> dict[int, tuple[str, str]]:
    """Display text and bytes of every token that occurs."""
    from gptlab.tokenizer import get_tokenizer, token_pieces

    ids = sorted({token for sample in samples for token in sample.token_ids})
    known = get_tokenizer().n_vocab
    raw = [get_tokenizer().decode_single_token_bytes(i).hex(" ") if 0 <= i < known else "" for i in ids]
    return dict(zip(ids, zip(token_pieces(ids), raw, strict=True), strict=True))


def frame_data(frames: Frames, log: RunLog, copies: Copies | None) -> list[dict[str, Any]]:
    found = []
    before: list[Sampled] = []
    for epoch, samples in frames.items():
        earlier = {sample.prompt: sample for sample in before}
        same = [
            shared(written_ids(sample), written_ids(earlier[sample.prompt])) if sample.prompt in earlier else []
            for sample in samples
        ]
        shown = [_sample_data(sample, log, copies) for sample in samples]
        found.append({"epoch": epoch, "name": epoch_name(epoch), "samples": shown, "same": same})
        before = samples
    return found


def _sample_data(sample: Sampled, log: RunLog, copies: Copies | None) -> dict[str, Any]:
    written = written_ids(sample)
    copied = copies.of(written) if copies else None
    data: dict[str, Any] = {
        "ids": sample.token_ids,
        "prompt": len(sample.token_ids) - len(written),
        "p": [None if p is None else float(f"{p:.4g}") for p in sample.probabilities],
        "text": continuation(sample)[:160],
        "facts": facts_of(sample, log, copied),
    }
    if copies and copied and copied.matches:
        data |= {"copied": copied.inside, "passages": copies.passages(copied)}
    return data


def facts_of(sample: Sampled, log: RunLog, copied: Copied | None) -> list[tuple[str, str, str]]:
    """What can be counted about a sample: a name, the number, what it means."""
    figures = figures_of(sample, log, copied)
    return [(name, figures[name], help_) for name, help_ in MEANINGS if figures[name] != "–" or name == "copied"]


MEANINGS = (
    ("tokens", "What the model wrote after the prompt: the same number in every epoch."),
    ("words", "Words in those tokens: a comma is a token, but no word."),
    ("sure", "The mean probability that the model gave to what it wrote."),
    ("copied", "Share of the tokens that stand in the text in the same order, 5 or more in a row."),
    ("longest", "Tokens in the longest passage that stands word for word in the text."),
    ("distinct-2", "Share of neighbouring pairs of tokens that are different ones: low where it repeats itself."),
    ("validation loss", "The last one measured before this sample."),
)


def figures_of(sample: Sampled, log: RunLog, copied: Copied | None) -> dict[str, str]:
    written, sure, variety = written_ids(sample), certainty(sample), distinct_2(written_ids(sample))
    return {
        "tokens": number(len(written)),
        "words": number(count_words(continuation(sample))),
        "sure": "–" if sure is None else f"{100 * sure:.0f} %",
        "copied": f"{100 * copied.share:.0f} %" if copied and copied.inside else "–",
        "longest": number(copied.longest if copied else None),
        "distinct-2": number(variety, 2),
        "validation loss": number(val_loss_at(log, sample), 3),
    }


def _against(frames: Frames, epoch: int | None) -> list[list[Same]]:
    """For each frame and prompt what it shares with the held epoch."""
    held = {sample.prompt: sample for sample in frames.get(epoch or 0, [])}
    return [
        [shared(written_ids(s), written_ids(held[s.prompt])) if s.prompt in held else [] for s in samples]
        for samples in frames.values()
    ]
