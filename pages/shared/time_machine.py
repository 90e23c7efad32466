"""Compare: the same prompt and the same seed at two epochs, of two runs, or at two temperatures, side by side."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import TYPE_CHECKING

import streamlit as st

from gptlab.config import SamplingConfig
from gptlab.runs import Run
from pages.shared.answer import answer_tokens, status
from pages.shared.asked import epoch_label, next_logits, saved_steps, weights_of
from pages.shared.decoding import chosen_device, chosen_sampling
from pages.shared.generation import Generation, read_prompt
from pages.shared.look import escape
from pages.shared.model_cache import open_model
from pages.shared.run_picker import run_label
from pages.shared.store import kept, store
from pages.shared.token_bars import bars_of, token_bars
from pages.shared.token_strip import token_strip
from pages.shared.url_field import Field, number_in
from pages.shared.writing import PROMPT, busy_cpu, context_of, prompt_area

if TYPE_CHECKING:
    from gptlab.model import GPTModel

PAIR = "playground.pair"
OTHER_RUN, OTHER_CHECKPOINT, OTHER_TEMPERATURE = "playground.b_run", "playground.b_checkpoint", "playground.b_heat"
FIELDS = (
    Field("b_run", OTHER_RUN, str),
    Field("b_checkpoint", OTHER_CHECKPOINT, str),
    Field("b_temperature", OTHER_TEMPERATURE, number_in(0.0, 2.0)),
)
SHOWN = 10


@dataclass(frozen=True)
class Side:
    """Who writes: a run, one of its checkpoints, a temperature."""

    run: Run
    checkpoint: str
    sampling: SamplingConfig

    @property
    def title(self) -> str:
        return f"{self.run.name}, {epoch_label(self.run, self.checkpoint)}"


def compare_section(run: Run, wanted: str | None) -> None:
    """Two columns, one prompt. Nothing is written before the button is pressed."""
    prompt_area(run)
    if wanted is None:
        st.info("Nothing is saved yet: the comparison needs a checkpoint.", icon=":material/hourglass_top:")
        return
    sides = _sides(run, wanted)
    pair: tuple[Generation, Generation] | None = st.session_state.get(PAIR)
    active = pair is not None and any(one.active for one in pair)
    with st.container(horizontal=True, vertical_alignment="center"):
        st.button(
            "Write both", type="primary", icon=":material/compare_arrows:", disabled=active or sides is None,
            on_click=_write_both, args=(sides,),
        )  # fmt: skip
        st.button("Stop", icon=":material/stop:", disabled=not active, on_click=_stop, args=(pair,))
    st.fragment(_answers, run_every=0.3 if active else None)(pair, active)
    if sides is not None:
        _next_tokens(sides)


def _sides(run: Run, wanted: str) -> tuple[Side, Side] | None:
    sampling = chosen_sampling()
    left, right = st.columns(2, gap="medium")
    with left, st.container(border=True):
        st.markdown("**A** · the run and the weights chosen above")
        st.caption(escape(f"{run.name} · {epoch_label(run, wanted)} · temperature {sampling.temperature:g}"))
        st.slider("Temperature of A", 0.0, 2.0, step=0.05, key="playground.temperature", persist_state="session")
    with right, st.container(border=True):
        st.markdown("**B** · compared with")
        runs = {other.id: other for other in store().list() if other.checkpoints()}
        if st.session_state.get(OTHER_RUN) not in runs:
            st.session_state[OTHER_RUN] = run.id if run.id in runs else next(iter(runs), None)
        who, when = st.columns(2)
        with who:
            labels = {id_: run_label(other) for id_, other in runs.items()}
            chosen = st.selectbox(
                "Run of B", list(runs), format_func=lambda id_: labels.get(id_, id_), key=OTHER_RUN,
                persist_state="session",
            )  # fmt: skip
        other = kept(runs[chosen]) if chosen in runs else None
        with when:
            names = saved_steps(other) if other else []
            if st.session_state.get(OTHER_CHECKPOINT) not in names:
                st.session_state[OTHER_CHECKPOINT] = names[0] if names else None
            epochs = {name: epoch_label(other, name) for name in names} if other else {}
            checkpoint = st.selectbox(
                "Weights of B", names, format_func=lambda name: epochs.get(name, name), key=OTHER_CHECKPOINT,
                persist_state="session",
            )  # fmt: skip
        if st.session_state.get(OTHER_TEMPERATURE) is None:
            st.session_state[OTHER_TEMPERATURE] = sampling.temperature
        heat = st.slider("Temperature of B", 0.0, 2.0, step=0.05, key=OTHER_TEMPERATURE, persist_state="session")
    if other is None or checkpoint is None:
        return None
    return Side(run, wanted, sampling), Side(
        other, checkpoint, sampling.model_copy(update={"temperature": float(heat)})
    )


def _write_both(sides: tuple[Side, Side]) -> None:
    _stop(st.session_state.get(PAIR))
    prompt = read_prompt(st.session_state.get(PROMPT) or "")
    seed = sides[0].sampling.seed
    seed = secrets.randbelow(10_000) if seed is None else seed  # the same one for both
    device, sparing = chosen_device(), busy_cpu()
    pair = []
    for side in sides:

        def open_weights(side: Side = side) -> GPTModel:
            return open_model(side.run.checkpoint(side.checkpoint).weights, device)

        sampling = side.sampling.model_copy(update={"seed": seed})
        pair.append(Generation(open_weights, prompt, sampling, title=side.title, sparing=sparing).start())
    for generation in pair:
        generation.wait(0.4)
    st.session_state[PAIR] = tuple(pair)


def _stop(pair: tuple[Generation, Generation] | None) -> None:
    for generation in pair or ():
        generation.stop()


def _answers(pair: tuple[Generation, Generation] | None, was_active: bool) -> None:
    for generation in pair or ():
        generation.watch()
    if was_active and pair and not any(one.active for one in pair):
        st.rerun()
    found = [answer_tokens(generation) for generation in pair or ()]
    if found and not was_active:
        mark_differences(*(tokens[shown:] for tokens, shown in found))
    for name, column, place in zip("AB", st.columns(2, gap="medium"), (0, 1), strict=True):
        with column:
            one = pair[place] if pair else None
            st.caption(f"**{name}** · {status(one)}")
            with st.container(border=True, height=240, key=f"pair-{name}", autoscroll=was_active):
                if one and one.state == "failed":
                    st.error(escape(one.fault), icon=":material/error:")
                token_strip(
                    found[place][0] if found else [], key=f"pair-tokens-{name}", label=f"The answer of {name}",
                    empty="The answer appears here.",
                )  # fmt: skip
    if found and not was_active:
        st.caption("Bold with a line above: only A wrote it. Struck through: only B did.")


def mark_differences(ours: list[dict[str, object]], theirs: list[dict[str, object]]) -> None:
    """Mark what only one of two answers has, ``added`` in the first and ``removed`` in the second."""
    matcher = SequenceMatcher(None, [t["id"] for t in ours], [t["id"] for t in theirs], autojunk=False)
    for change, a, b, c, d in matcher.get_opcodes():
        if change != "equal":
            for token in ours[a:b]:
                token["mark"] = "added"
            for token in theirs[c:d]:
                token["mark"] = "removed"


def _next_tokens(sides: tuple[Side, Side]) -> None:
    """The first new token: what each side thinks of it, the same tokens in both charts."""
    st.subheader("The first token after the prompt", anchor=False)
    ids = read_prompt(st.session_state.get(PROMPT) or "").ids
    found = []
    for side in sides:
        try:
            logits = next_logits(weights_of(side.run, side.checkpoint), ids, chosen_device())
            found.append(logits.softmax(-1))
        except ValueError as error:
            st.caption(f"{escape(side.title)}: {escape(str(error))}")
            return
    if len(found[0]) != len(found[1]):
        st.caption("The two models have different vocabularies.")
        return
    rows = list(dict.fromkeys(i for own in found for i in own.topk(SHOWN // 2).indices.tolist()))
    for name, column, side, own in zip("AB", st.columns(2, gap="medium"), sides, found, strict=True):
        with column:
            st.caption(f"**{name}** · {escape(side.title)}")
            token_bars(
                bars_of(rows, [float(own[i]) for i in rows]), key=f"pair-bars-{name}",
                label=f"The likeliest next tokens of either side, as {name} sees them",
            )  # fmt: skip
    context = context_of(sides[0].run)
    if context and len(ids) > context:
        st.caption(f"The prompt is longer than the context of {context:,}: only its end is read.")
