"""What was learnt when: the loss of each token of a passage, epoch by epoch, and what became of it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import streamlit as st

from gptlab.events import Probed
from gptlab.log import RunLog
from gptlab.probing import KNOWN, Change, Passage, by_kind, changes, learnt_when, passages
from gptlab.runs import Run
from pages.shared.component import component
from pages.shared.look import number
from pages.shared.other_passage import other_passage
from pages.shared.text_table import text_table
from pages.shared.theatre import thinned, wanted_epoch

OTHER = "Another passage"
MOST_ROWS = 60  # epochs in the heat strip
MOST_EPOCHS = 160  # that the lists look at
LISTED = 8  # tokens in each list
CONTEXT = 20  # characters shown before a token in a list


def learning(run: Run) -> None:
    """The section of the page, drawn again by itself while the run trains."""
    live = run.is_locked()
    st.fragment(_show, run_every=3 if live else None)(run)


def _show(run: Run) -> None:
    log = run.log()
    watched = passages(log.probes, MOST_EPOCHS)
    if not log.samples:
        return
    st.subheader("What was learnt when", anchor=False)
    names = {_name(passage, watched): passage for passage in watched}
    chosen = st.segmented_control(
        "Passage", [*names, OTHER], default=next(iter(names), OTHER), required=True, key="passage"
    )
    passage = names.get(chosen or "") or other_passage(run)
    if not watched and chosen == OTHER:
        st.caption(
            "This run kept no losses of single tokens: its watching is off (probe_windows 0), or it was trained "
            "by an earlier version. A passage can still be scored with the weights that it kept."
        )
    if passage is None or not passage.losses:
        return
    heat_strip(run, passage, key="heat")
    if chosen != OTHER:
        st.caption(cost_of(log.probes, log))
    _told(passage)


def _name(passage: Passage, among: Sequence[Passage]) -> str:
    alone = sum(other.part == passage.part for other in among) == 1
    return f"{passage.part.capitalize()}, " + ("first window" if alone else f"from token {passage.start:,}")


def cost_of(probes: Sequence[Probed], log: RunLog) -> str:
    """What the watching took of the run's time, in a sentence."""
    seconds = sum(probe.seconds for probe in probes if math.isfinite(probe.seconds))
    whole = log.seconds_trained()
    share = f", {100 * seconds / whole:.1f} % of the run" if whole > 0 else ""
    looks = f"{len(probes):,} looks" if len(probes) != 1 else "one look"
    return f"The worker noted these losses as it trained: {looks}, {seconds:.2f} s in all{share}."


def heat_strip(run: Run, passage: Passage, *, key: str) -> None:
    """Tokens from left to right, epochs from top to bottom; the more ink, the more surprising the token."""
    from pages.shared.token_strip import tokens_of, trace

    epochs = thinned(passage.epochs, MOST_ROWS)
    rows = [[round(x, 3) if math.isfinite(x) else None for x in passage.losses[epoch]] for epoch in epochs]
    pressed = component("heat", uses=("token_strip",))(
        key=key,
        on_pressed_change=lambda: None,
        data={
            "run": run.id,
            "asked": wanted_epoch(),
            "tokens": tokens_of(passage.token_ids),
            "epochs": epochs,
            "losses": rows,
            "means": [
                round(passage.mean(epoch), 3) if math.isfinite(passage.mean(epoch)) else None for epoch in epochs
            ],
        },
    ).pressed
    if pressed:
        trace(int(pressed["id"]), pressed["after"])


def _told(passage: Passage) -> None:
    """What was learnt when, by token and by kind, and what improved most and least between two epochs."""
    kinds, when = st.columns(2, gap="medium")
    with kinds:
        st.markdown("**Kinds of token**, the earliest learnt first")
        _kinds_table(passage)
    with when:
        st.markdown(f"**Learnt after epoch**: given {100 * KNOWN:.0f} % or more from then on")
        _when_table(passage)
    epochs = passage.epochs
    if len(epochs) < 2:
        return
    with st.container(horizontal=True, vertical_alignment="bottom"):
        st.markdown("**What changed between**", width="content")
        first = st.selectbox("From epoch", epochs[:-1], key="changes-from", label_visibility="collapsed", width=140,
                             format_func=_short)  # fmt: skip
        later = [epoch for epoch in epochs if epoch > first]
        last = st.selectbox("To epoch", later, index=len(later) - 1, key="changes-to", label_visibility="collapsed",
                            width=140, format_func=_short)  # fmt: skip
    found = changes(passage, first, last)
    most, least = st.columns(2, gap="medium")
    with most:
        _changes_table(passage, found[:LISTED], "Improved most", key="improved-most")
    with least:
        _changes_table(passage, found[::-1][:LISTED], "Improved least, or got worse", key="improved-least")


def _short(epoch: int) -> str:
    return "before" if epoch == 0 else f"epoch {epoch:,}"


def _kinds_table(passage: Passage) -> None:
    epochs = passage.epochs
    rows = []
    for row in by_kind(passage):
        half = "not yet" if row.learnt is None else _short(row.learnt)
        loss = " → ".join(number(row.means[epoch], 2) for epoch in dict.fromkeys((epochs[0], epochs[-1])))
        rows.append([row.kind, number(len(row.places)), loss, half])
    text_table(
        [("Kind", ""), ("Tokens", "number"), ("Mean loss", "number"), ("Half known", "number")],
        rows, key="kinds", label="Kinds of token and when they were learnt", pressable=False,
    )  # fmt: skip


def _when_table(passage: Passage) -> None:
    pieces = _pieces(passage)
    found = learnt_when(passage)
    rows = []
    for epoch in [*sorted(e for e in found if e is not None), None]:
        if places := found.get(epoch):
            distinct = list(dict.fromkeys(pieces[place] for place in places))
            more = f" … and {len(distinct) - 24} more" if len(distinct) > 24 else ""
            text = "  ·  ".join(distinct[:24]) + more
            rows.append(["never" if epoch is None else _short(epoch), number(len(places)), text])
    text_table(
        [("From", ""), ("Tokens", "number"), ("Which", "prose")],
        rows, key="when", label="Tokens by the epoch from which they are known", pressable=False,
    )  # fmt: skip


def _changes_table(passage: Passage, found: Sequence[Change], title: str, *, key: str) -> None:
    st.markdown(f"**{title}**")
    pieces = _pieces(passage)
    told = _pieces(passage, spaces=True)
    rows = [
        [
            pieces[change.place],
            "…" + "".join(told[max(0, change.place - 6) : change.place])[-CONTEXT:],
            number(change.before, 2),
            number(change.after, 2),
            f"{-change.gain:+.2f}",
        ]
        for change in found
    ]
    text_table(
        [("Token", ""), ("After", ""), ("Loss then", "number"), ("Loss now", "number"), ("Change", "number")],
        rows, key=key, label=title, pressable=False,
    )  # fmt: skip


def _pieces(passage: Passage, *, spaces: bool = False) -> list[str]:
    """The tokens as they are shown in tables: a line break as ↵, other white space as it is or as ·."""
    from gptlab.tokenizer import token_pieces

    pieces = [piece.replace("\n", "↵") for piece in token_pieces(passage.token_ids)]
    return pieces if spaces else [piece.strip() or piece.replace(" ", "·") for piece in pieces]
