"""The chain of one token, the same on every page: a dialog that ``?token=<id>`` opens, from bytes to attention."""

from __future__ import annotations

from dataclasses import dataclass

import streamlit as st

from gptlab.config import RunConfig
from gptlab.corpus import Corpus, open_corpus
from gptlab.runs import Run
from gptlab.token_history import TokenMakeup, token_makeup
from pages.shared.chain_links import attention_link, losses_link, neighbours_link
from pages.shared.chain_places import Found, found_in, places_link
from pages.shared.draft import read_draft
from pages.shared.look import escape, plain
from pages.shared.store import kept, store
from pages.shared.text_table import text_table
from pages.shared.token_strip import AFTER, CONTEXT, PLACE, TRACED
from pages.shared.url_state import change_url

LINKS = {"losses": "Its loss at each epoch", "neighbours": "Its neighbours", "attention": "What predicted it"}


@dataclass(frozen=True)
class Setting:
    """What the token is looked up in: a text, how it is cut, and a run that learnt from it, if there is one."""

    corpus: Corpus
    config: RunConfig
    run: Run | None


def token_dialog() -> None:
    """Open the dialog where the URL names a token. Called once a page, after everything else."""
    raw = st.query_params.get(TRACED)
    if raw is None:
        return
    try:
        makeup = token_makeup(int(raw))
    except ValueError:
        _close()
        st.toast(f"There is no token {escape(raw[:20])}: the link is wrong.", icon=":material/link_off:")
        return
    st.dialog("Where this token comes from", width="large", on_dismiss=_close)(_chain)(makeup)


def _after() -> tuple[int, ...]:
    """What the URL says of the tokens before it; nothing where that makes no sense."""
    raw = st.query_params.get(AFTER, "").split(".")[-CONTEXT:]
    return tuple(map(int, raw)) if all(id_.isdecimal() and len(id_) < 10 for id_ in raw) else ()


def _close() -> None:
    change_url(dict.fromkeys((TRACED, PLACE, AFTER)))


def _chain(makeup: TokenMakeup) -> None:
    shown = makeup.bytes.decode("utf-8", "backslashreplace")
    with st.container(horizontal=True, vertical_alignment="center", key="chain-head"):
        st.code(_visible(shown), language=None, width="content")
        plain(f"id {makeup.id:,} · bytes {makeup.bytes.hex(' ')}", tone="muted")
    _merges(makeup)
    try:
        setting = _setting()
        found = found_in(setting.corpus, setting.config, makeup.id, _after())
    except (ValueError, OSError) as error:
        st.caption(escape(str(error)))
        return
    place = places_link(setting.corpus, setting.config, found, _epochs(setting.run, setting.config))
    if setting.run is None:
        st.info("No run has learnt from this text yet: train one to see how it came to know the token.")
        return
    _learnt(setting.run, makeup.id, found, place)


def _learnt(run: Run, token: int, found: Found, place: int | None) -> None:
    plain(f"As the run “{run.name}” learnt it", tone="strong")
    link = st.segmented_control(
        "Show", list(LINKS), format_func=LINKS.__getitem__, default="losses", required=True, key="chain.link",
        label_visibility="collapsed",
    )  # fmt: skip
    try:
        if link == "neighbours":
            neighbours_link(run, token)
        elif place is None:
            st.caption("It stands nowhere in the text, so there is nothing that it was predicted from.")
        else:
            if found.before(place):
                st.caption(found.manner(place))
            if link == "attention":
                attention_link(run, found.before(place))
            else:
                losses_link(run, found.passage(place))
    except (ValueError, OSError) as error:
        st.error(escape(str(error)), icon=":material/error:")


def _setting() -> Setting:
    """The run in the URL; on a page without one, the text being prepared and the newest run that learnt from it."""
    runs = [run for run in store().list() if run.config_error is None]
    named = next((run for run in runs if run.id == st.query_params.get("run")), None)
    if named is not None:
        config = named.config
        corpus = open_corpus(config.data.corpus, download=False)
        return Setting(corpus, config, kept(named) if named.checkpoints() else None)
    config = read_draft().config
    corpus = open_corpus(config.data.corpus, download=False)
    learnt = next((run for run in runs if run.config.data.corpus == corpus.reference and run.checkpoints()), None)
    return Setting(corpus, learnt.config if learnt else config, kept(learnt) if learnt else None)


def _epochs(run: Run | None, config: RunConfig) -> tuple[int, ...]:
    """The first and the last epoch, of a run that still trains the last that it has begun."""
    last = config.train.num_epochs
    if run is not None and (steps := run.log().steps):
        last = max(1, steps[-1].epoch)
    return (1, last) if last > 1 else (1,)


def _merges(makeup: TokenMakeup) -> None:
    if makeup.special:
        st.caption("A special token: it stands for itself and is not built from bytes.")
        return
    if not makeup.merges:
        st.caption("A single byte: the tokenizer begins with these, nothing was merged.")
        return
    st.caption("How byte pair encoding builds it: of the neighbours that can merge, the pair learnt first goes first.")
    rows = [
        [
            f"{number}. merge {merge.rank:,}",
            f"{_piece(merge.left)} + {_piece(merge.right)}  →  " + " | ".join(_piece(piece) for piece in merge.pieces),
        ]
        for number, merge in enumerate(makeup.merges, 1)
    ]  # fmt: skip
    text_table(
        [("Step", ""), ("Joined, and how it then reads", "prose")], rows, key="chain.merges", label="Merges",
        pressable=False,
    )  # fmt: skip


def _piece(raw: bytes) -> str:
    return _visible(raw.decode("utf-8", "backslashreplace"))


def _visible(text: str) -> str:
    for mark, glyph in ((" ", "·"), ("\n", "↵"), ("\t", "⇥"), ("\r", "␍")):
        text = text.replace(mark, glyph)
    return text or "(empty)"
