"""Choosing the text: the built-in story, The Verdict, own files, texts used earlier, and the reference exercise."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st
from streamlit.runtime.uploaded_file_manager import UploadedFile

from gptlab.config import RunConfig
from gptlab.corpus import (
    BUILTIN,
    THE_VERDICT,
    THE_VERDICT_SHA256,
    Corpus,
    CorpusError,
    add_corpus,
    known_corpora,
    open_corpus,
)
from pages.shared.draft import choose_corpus
from pages.shared.exercise import exercise_button, fetch_verdict
from pages.shared.look import escape, number
from pages.shared.predicted import reference_time

UPLOADS = "corpus.uploads"
EARLIER = "corpus.earlier"
CHARACTERS = 20_479  # in The Verdict


def pick_corpus(chosen: str | None, config: RunConfig) -> None:
    """The cards. ``chosen``: SHA-256 of the draft's text, None where that is not here."""
    faults: list[str] = []
    builtin = open_corpus(BUILTIN)
    title = builtin.name.partition(": ")[2]
    with st.grid(min_column_width=260, gap="small"):
        with st.container(border=True, height="stretch", key="card-builtin"):
            _title("Built-in story", chosen == builtin.sha256)
            st.markdown(
                f":gray[“{escape(title)}”, {number(builtin.characters)} characters. Always here, no network needed.]"
            )
            st.space("stretch")
            if _choose("Choose the built-in story", chosen == builtin.sha256):
                _take(BUILTIN)
        with st.container(border=True, height="stretch", key="card-verdict"):
            _title("The Verdict", chosen == THE_VERDICT_SHA256)
            st.markdown(
                f":gray[Edith Wharton, 1908, {number(CHARACTERS)} characters. The text of the reference exercise.]"
            )
            st.space("stretch")
            here = verdict_here()
            if _choose("Choose The Verdict" if here else "Download The Verdict", chosen == THE_VERDICT_SHA256, here):
                faults += _fetch_verdict()
        with st.container(border=True, height="stretch", key="card-own"):
            _title("Your own text", chosen not in (None, builtin.sha256, THE_VERDICT_SHA256))
            faults += _uploads(chosen)
    _say(faults)
    with st.container(border=True, key="card-exercise"):
        left, right = st.columns([3, 1], vertical_alignment="center")
        left.markdown("**Run the reference exercise**")
        left.markdown(
            ":gray[The Verdict read ten times by a model of GPT-2’s own shape, with 162 million parameters: "
            "90 steps from commas to borrowed prose.]"
        )
        with left:
            reference_time(config)
        with right:
            exercise_button("Run the exercise")


def _title(name: str, chosen: bool) -> None:
    st.markdown(f"**{name}**" + (" :primary[:material/check_circle:]" if chosen else ""))


def verdict_here() -> bool:
    try:
        open_corpus(THE_VERDICT, download=False)
    except CorpusError:
        return False
    return True


def _choose(label: str, chosen: bool, here: bool = True) -> bool:
    if chosen:
        return st.button("Chosen", key=label, disabled=True)
    return st.button(label, key=label, icon=None if here else ":material/download:")


def _take(reference: str) -> None:
    choose_corpus(reference)
    st.rerun()


def _fetch_verdict() -> list[str]:
    """Have The Verdict and go on with it, or return why it could not be had."""
    faults = fetch_verdict()
    if not faults:
        _take(THE_VERDICT)
    return faults


def _say(faults: list[str]) -> None:
    if faults:
        st.error("  \n".join(escape(fault) for fault in faults), icon=":material/error:")


def _uploads(chosen: str | None) -> list[str]:
    """The uploader and the texts used earlier. Returns what is wrong with uploads."""
    limit = st.get_option("server.maxUploadSize")
    st.markdown(":gray[UTF-8 text. Several files are joined.]")
    files: Sequence[UploadedFile] = st.file_uploader(
        "Text files",
        accept_multiple_files=True,
        key=UPLOADS,
        label_visibility="collapsed",
        help=f"UTF-8 text, up to {limit} MB a file. Several files are joined by <|endoftext|>.",
        on_change=_use_uploads,
    )
    faults = [fault for file in files if (fault := _keep(file.file_id, file.name, file)[1])]
    if faults:
        faults.append("The other files are used." if len(faults) < len(files) else "The text chosen before stays.")
    earlier = {corpus.sha256: corpus for corpus in known_corpora()[1:] if corpus.sha256 != THE_VERDICT_SHA256}
    if earlier:
        st.session_state[EARLIER] = chosen if chosen in earlier else None
        st.selectbox(
            "Texts used earlier",
            list(earlier),
            key=EARLIER,
            format_func=lambda sha256: f"{earlier[sha256].name} ({number(earlier[sha256].characters)} characters)",
            placeholder="Texts used earlier",
            label_visibility="collapsed",
            on_change=_use_earlier,
        )
    return faults


@st.cache_data(max_entries=64, show_spinner=False)
def _keep(file_id: str, name: str, _file: UploadedFile) -> tuple[str | None, str | None]:
    """An upload put into the store: its reference, or the sentence that says why not."""
    try:
        return add_corpus(name, _file.getvalue()).reference, None
    except CorpusError as error:
        return None, str(error)
    except OSError as error:
        return None, f"{name} could not be kept ({error.strerror}): free some disk space and try again."


def _use_uploads() -> None:
    kept = [_keep(file.file_id, file.name, file)[0] for file in st.session_state[UPLOADS] or ()]
    references = [reference for reference in kept if reference]
    if references:
        choose_corpus(open_corpus(references).reference)


def _use_earlier() -> None:
    if sha256 := st.session_state[EARLIER]:
        choose_corpus(f"sha256:{sha256}")


def say_parts(corpus: Corpus) -> None:
    """The files that a text was joined from, in their order."""
    if len(corpus.parts) > 1:
        lines = [f"{n}. {part.name}, {number(part.characters)} characters" for n, part in enumerate(corpus.parts, 1)]
        st.markdown("  \n".join(f":gray[{escape(line)}]" for line in lines))
