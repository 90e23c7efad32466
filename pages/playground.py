"""What does it say, and why? A trained model continues a prompt, is compared, looked into, and quizzed."""

from __future__ import annotations

from collections.abc import Callable

import streamlit as st

from gptlab.runs import Run
from pages.shared import inside, quiz, score, time_machine, writing
from pages.shared.checkpoint_picker import pick_checkpoint, weights_line
from pages.shared.decoding import FIELDS as DECODING
from pages.shared.lessons import chosen_lesson, lesson_page
from pages.shared.look import escape, page_header
from pages.shared.model_cache import memory_line, warm_up
from pages.shared.run_picker import no_run_yet, pick_run
from pages.shared.store import store
from pages.shared.url_field import Field, one_of
from pages.shared.url_state import mirror, restore

VIEW = "playground.view"
SECTIONS: dict[str, tuple[str, Callable[[Run, str | None], None]]] = {
    "write": ("Write", writing.write_section),
    "compare": ("Compare", time_machine.compare_section),
    "inside": ("Inside", inside.inside_section),
    "score": ("Score a text", score.score_section),
    "quiz": ("Quiz", quiz.quiz_section),
}
FIELDS = (
    Field("view", VIEW, one_of(*SECTIONS), "write"),
    *writing.FIELDS,
    *DECODING,
    *time_machine.FIELDS,
    *inside.FIELDS,
    *score.FIELDS,
    *quiz.FIELDS,
)


def main() -> None:
    warm_up()
    if lesson := chosen_lesson():
        lesson_page(lesson)
        return
    page_header("Playground", "What does it say, and why?")
    if not store().list():
        no_run_yet()
        return
    for refused in restore("playground", FIELDS):
        st.toast(escape(refused), icon=":material/link_off:", duration="long")
    which, weights = st.columns(2)
    with which:
        run = pick_run(store())
    if run is None:
        return
    with weights:
        wanted = pick_checkpoint(run)
    weights_line(run, wanted)
    view = st.segmented_control(
        "View", list(SECTIONS), format_func=lambda name: SECTIONS[name][0], key=VIEW, required=True,
        persist_state="session", label_visibility="collapsed",
    )  # fmt: skip
    SECTIONS[view or "write"][1](run, wanted)
    memory_line()
    if mirror("playground", FIELDS):
        st.caption("The text is too long for an address: a link to this page leaves it out.")


main()
