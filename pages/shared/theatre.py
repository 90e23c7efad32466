"""The same prompt, epoch after epoch: a scrubber, the difference to the neighbour, and a table of all."""

from __future__ import annotations

import streamlit as st

from gptlab.events import Sampled
from gptlab.log import RunLog
from pages.shared.epoch_samples import continuation, count_words, counts, epoch_name, sample_tokens
from pages.shared.look import number
from pages.shared.sample_diff import certainty, compare
from pages.shared.text_table import text_table
from pages.shared.token_strip import token_strip

AGAINST = {"before": "The epoch before", "after": "The epoch after", "off": "Nothing"}


def by_epoch(samples: list[Sampled], prompt: str) -> dict[int, Sampled]:
    """The samples of a prompt by epoch; where an epoch has two, the later one."""
    return dict(sorted((sample.epoch, sample) for sample in samples if sample.prompt == prompt))


def scrubber(epochs: list[int]) -> int:
    """The epoch to show: the newest, unless the URL (``?epoch=``) or a hand on the slider says otherwise."""
    wanted = st.query_params.get("epoch", "")
    chosen = int(wanted) if wanted.isdecimal() and int(wanted) in epochs else epochs[-1]
    place = epochs.index(chosen)
    st.session_state["epoch-slider"] = chosen
    with st.container(horizontal=True, vertical_alignment="bottom", key="scrubber"):
        back = {"disabled": place == 0, "help": "Previous epoch", "on_click": go_to, "args": (epochs, place - 1)}
        on = {
            "disabled": place == len(epochs) - 1,
            "help": "Next epoch",
            "on_click": go_to,
            "args": (epochs, place + 1),
        }
        st.button("Previous", icon=":material/chevron_left:", key="previous", **back)  # type: ignore[arg-type]
        if len(epochs) > 1:
            with st.container(width="stretch"):
                st.select_slider("Epoch", epochs, key="epoch-slider", on_change=_slid, args=(epochs,))
        st.button("Next", icon=":material/chevron_right:", icon_position="right", key="next", **on)  # type: ignore[arg-type]
    return chosen


def go_to(epochs: list[int], place: int) -> None:
    """Show the epoch at that place of the list. The newest needs no mention in the URL: it moves on by itself."""
    if not 0 <= place < len(epochs) - 1:
        st.query_params.pop("epoch", None)
    else:
        st.query_params["epoch"] = str(epochs[place])


def _slid(epochs: list[int]) -> None:
    go_to(epochs, epochs.index(st.session_state["epoch-slider"]))


def stage(found: dict[int, Sampled], epoch: int, log: RunLog) -> None:
    """The chosen epoch's sample, and its neighbour's, with what differs marked."""
    epochs = list(found)
    with st.container(horizontal=True, vertical_alignment="bottom", key="stage-options"):
        against = st.segmented_control(
            "Mark what differs from", list(AGAINST), default="before", format_func=AGAINST.__getitem__, required=True,
            key="against",
        )  # fmt: skip
        whitespace = st.toggle("Show whitespace", key="sample-whitespace")
    place = epochs.index(epoch) + {"before": -1, "after": 1}.get(against or "off", 10**9)
    neighbour = found[epochs[place]] if 0 <= place < len(epochs) else None
    now = found[epoch]
    compared = compare(now, neighbour) if neighbour else None
    tokens = compared.now if compared else sample_tokens(now)
    shown, other = st.columns(2, gap="medium")
    with shown, st.container(border=True):
        st.markdown(f"**{epoch_name(epoch)}**")
        token_strip(tokens, key="sample-now", show_whitespace=whitespace, label=epoch_name(epoch))
        st.caption(_figures(now, log, compared.changed if compared else None))
    with other, st.container(border=True):
        if compared and neighbour:
            st.markdown(f"**{epoch_name(neighbour.epoch)}**")
            token_strip(compared.then, key="sample-then", show_whitespace=whitespace, label=epoch_name(neighbour.epoch))
            st.caption(_figures(neighbour, log, None))
        else:
            st.markdown(":gray[Nothing to compare with: there is no such epoch, or comparing is off.]")
    token_strip([], key="sample-legend", legend=True, empty="", label="What the tints mean")
    st.caption(
        "Bold with a line above: not in the other sample. Struck through: gone. "
        "A sample has a fixed number of tokens, not of words: early ones are commas, later ones whole words."
    )


def _figures(sample: Sampled, log: RunLog, changed: float | None) -> str:
    sure = certainty(sample)
    parts = [counts(sample)]
    if sure is not None:
        parts.append(f"{100 * sure:.0f} % sure on average")
    if changed is not None:
        parts.append(f"{100 * changed:.0f} % of the tokens differ")
    loss = val_loss_at(log, sample)
    if loss is not None:
        parts.append(f"validation loss {loss:.3f}")
    return " · ".join(parts)


def val_loss_at(log: RunLog, sample: Sampled) -> float | None:
    """The last validation loss measured before the sample was taken; None before the first, or where it is unknown."""
    if sample.epoch == 0:
        return None
    known = [row.val_loss for row in log.evaluations if row.step <= sample.step and row.val_loss == row.val_loss]
    return known[-1] if known else None


def table(found: dict[int, Sampled], epoch: int, log: RunLog) -> None:
    """All epochs with their texts and their lengths; pressing an epoch shows it above."""
    epochs = list(found)
    rows = []
    for place, (at, sample) in enumerate(found.items()):
        sure = certainty(sample)
        new = compare(sample, found[epochs[place - 1]]).changed if place else None
        known = [chance for chance in sample.probabilities if chance is not None]
        rows.append(
            [
                "Before training" if at == 0 else f"Epoch {at}",
                continuation(sample) or "(only spaces)",
                number(len(known) if known else None),
                number(count_words(continuation(sample))),
                "–" if sure is None else f"{100 * sure:.0f} %",
                "–" if new is None else f"{100 * new:.0f} %",
                number(val_loss_at(log, sample), 3),
            ]
        )
    pressed = text_table(
        [
            ("Epoch", ""), ("What it wrote", "prose"), ("Tokens", "number"), ("Words", "number"), ("Sure", "number"),
            ("New", "number"), ("Validation loss", "number"),
        ],
        rows,
        key="all-epochs",
        label="Samples of all epochs",
        chosen=epochs.index(epoch),
    )  # fmt: skip
    if pressed is not None and 0 <= pressed < len(epochs) and epochs[pressed] != epoch:
        go_to(epochs, pressed)
        st.rerun()
