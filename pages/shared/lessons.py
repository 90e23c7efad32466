"""Six short lessons, each a link (``?lesson=tokens``): a sentence, a thing to do, a question answered by doing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import streamlit as st

from gptlab.lesson_run import find_lesson_run
from gptlab.runs import Run
from pages.shared import lesson_scenes as scenes
from pages.shared.lesson_training import train_first
from pages.shared.look import escape
from pages.shared.store import kept, store

LESSON = "lesson"  # its name in the URL


@dataclass(frozen=True)
class Lesson:
    """``scene`` draws what the lesson needs and returns its question, worked out from what is really there."""

    name: str
    title: str
    sentence: str
    task: str
    scene: Callable[[Run], scenes.Question | None]


LESSONS = (
    Lesson(
        "tokens",
        "Tokens",
        "The model never sees letters. A text is cut into tokens, pieces that were frequent when GPT-2’s tokenizer was "
        "made, and each is a number.",
        "Change the text: put a space before a word, write it in capitals, invent one. Point at the pieces.",
        scenes.tokens,
    ),
    Lesson(
        "windows",
        "Windows",
        "The story is cut into windows. At every place of a window the model has read all tokens up to there and must "
        "say which comes next: one window asks many questions at once.",
        "Press one place after another and read what the model sees there, and what it must predict.",
        scenes.windows,
    ),
    Lesson(
        "loss",
        "The loss",
        "The loss is the mean surprise: minus the logarithm of the probability that the model gave to the token that "
        "really came. Less ink below means less surprise.",
        "Move through the epochs and watch the surprise of these words of the story, token by token.",
        scenes.loss,
    ),
    Lesson(
        "overfitting",
        "Overfitting",
        "The training loss keeps falling, for the model can learn its text by heart. The validation loss is measured "
        "on text that it never trains on: where that turns round, it stops learning the language.",
        "Find the lowest point of the validation curve: point at the chart.",
        scenes.overfitting,
    ),
    Lesson(
        "decoding",
        "Decoding",
        "The model only gives probabilities. How a token is drawn from them is for you to decide, and it changes "
        "everything that is written.",
        "Move the temperature from one end to the other, and watch what the thick bars do to the thin ones.",
        scenes.decoding,
    ),
    Lesson(
        "attention",
        "Attention",
        "To say what comes next, each token looks back at earlier ones. Every head of every layer looks in a way of "
        "its own: nobody told it where.",
        "Press the heads one by one, then point at a token to see where it looks.",
        scenes.attention_question,
    ),
)


def chosen_lesson() -> Lesson | None:
    """The lesson that the URL names; None: none, or one that does not exist."""
    return next((lesson for lesson in LESSONS if lesson.name == st.query_params.get(LESSON)), None)


def lesson_page(lesson: Lesson) -> None:
    """All that the page shows while a lesson is open."""
    place = LESSONS.index(lesson)
    with st.container(horizontal=True, vertical_alignment="center"):
        st.caption(f"Lesson {place + 1} of {len(LESSONS)}", width="stretch")
        st.page_link("pages/playground.py", label="Leave the lessons", icon=":material/close:")
    _contents(place)
    st.title(lesson.title, anchor=False)
    st.markdown(f"##### {lesson.sentence}")
    found = find_lesson_run(store())
    run = kept(found) if found else None
    if run is None or run.status() != "finished":
        train_first(run)
        return
    st.markdown(f":material/touch_app: **Do this.** {lesson.task}")
    try:
        with st.spinner("Opening the small model …"):
            question = lesson.scene(run)
    except (ValueError, OSError) as error:
        st.error(escape(str(error)), icon=":material/error:")
        return
    if question is not None:
        _ask(lesson, question, place)


def _contents(place: int) -> None:
    titles = {lesson.name: f"{number}. {lesson.title}" for number, lesson in enumerate(LESSONS, 1)}
    st.session_state["lesson.list"] = LESSONS[place].name
    st.segmented_control(
        "Lessons", list(titles), format_func=titles.__getitem__, key="lesson.list", required=True,
        label_visibility="collapsed", on_change=_follow,
    )  # fmt: skip


def _follow() -> None:
    st.query_params[LESSON] = st.session_state["lesson.list"]


def _ask(lesson: Lesson, question: scenes.Question, place: int) -> None:
    with st.container(border=True, key="lesson-question"):
        answer = st.radio(
            f"**{question.asked}**", question.options, index=None, key=f"lesson.{lesson.name}.answer",
            format_func=escape,
        )  # fmt: skip
        if answer is None:
            return
        if answer != question.right:
            st.warning("Not that one. Look again, then choose another.", icon=":material/undo:")
            return
        st.success(question.because, icon=":material/check_circle:")
        if place + 1 < len(LESSONS):
            following = LESSONS[place + 1]
            st.page_link(
                "pages/playground.py", label=f"Next: {following.title}", icon=":material/arrow_forward:",
                query_params={LESSON: following.name},
            )  # fmt: skip
        else:
            st.page_link(
                "pages/playground.py", label="Now play by yourself", icon=":material/arrow_forward:",
            )  # fmt: skip
