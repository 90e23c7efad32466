"""The sections of the Corpus page: one idea each, from the text to what the model must predict."""

from __future__ import annotations

import streamlit as st

from gptlab.config import RunConfig
from gptlab.dataset import LengthReport, window_starts
from gptlab.tokenizer import Ids, get_tokenizer, token_pieces
from pages.shared.corpus_charts import SplitPart, frequency_figure, rank_figure, split_html, visible
from pages.shared.look import number
from pages.shared.reading import Reading, ranks
from pages.shared.token_strip import token_strip, tokens_of
from pages.shared.window_strip import window_strip

TOKENS_A_PAGE = 400
MOST_PLACES = 512
STILL = {"displayModeBar": False}


def figures(reading: Reading) -> None:
    """The text in numbers."""
    found = reading.statistics
    with st.grid(4, min_column_width=140, gap="small"):
        st.metric("Characters", number(found.characters))
        st.metric("Bytes", number(found.bytes), help="In UTF-8. More than the characters: some take two to four bytes.")
        st.metric("Lines", number(found.lines))
        st.metric("Words", number(found.words), help="What stands between white space.")
        st.metric("Tokens", number(found.tokens), help="Pieces that GPT-2’s tokenizer makes of it.")
        st.metric("Characters per token", number(found.characters_per_token, 2), help="English prose: about 4.")
        st.metric("Distinct tokens", number(found.distinct_tokens), help="Of the 50,257 that the tokenizer knows.")


@st.fragment
def text_and_tokens(reading: Reading) -> None:
    """A page of the text beside its tokens. Only the tokens of that page are read."""
    st.subheader("The text and its tokens", anchor=False)
    st.markdown(
        ":gray[The model never sees letters. The tokenizer cuts the text into tokens, each a number: point at one.]"
    )
    n_pages = max(1, -(-len(reading.whole) // TOKENS_A_PAGE))
    with st.container(horizontal=True, vertical_alignment="bottom"):
        page = st.number_input(f"Page, of {n_pages:,}", 1, n_pages, key=f"page.{reading.corpus.sha256[:8]}", width=170)
        whitespace = st.toggle("Show white space", value=True)
    ids = reading.whole[(page - 1) * TOKENS_A_PAGE : page * TOKENS_A_PAGE].tolist()
    with st.grid(2, min_column_width=300, gap="medium"):
        with st.container():
            st.caption("Text")
            with st.container(height=400, border=True, key="text-pane"):
                st.text(get_tokenizer().decode_bytes(ids).decode("utf-8", errors="backslashreplace"))
        with st.container():
            first = (page - 1) * TOKENS_A_PAGE
            st.caption(f"Tokens {first + 1:,} to {first + len(ids):,}")
            token_strip(tokens_of(ids), key="corpus-tokens", height=380, show_whitespace=whitespace)


def split(reading: Reading, config: RunConfig, report: LengthReport) -> None:
    """The two parts of the text, to scale."""
    st.subheader("Training and validation", anchor=False)
    st.markdown(
        ":gray[The model learns from the first part only. The second shows whether it has learnt the language or just "
        "this text. Each cell is a window; hatched is the rest, too short for one.]"
    )
    characters = reading.statistics.characters
    used = [
        _tokens_read(len(ids), config, windows)
        for ids, windows in ((reading.train, report.train_windows), (reading.val, report.val_windows))
    ]
    st.html(
        split_html(
            [
                SplitPart("Training", reading.cut, len(reading.train), report.train_windows, used[0]),
                SplitPart("Validation", characters - reading.cut, len(reading.val), report.val_windows, used[1]),
            ]
        )
    )


def _tokens_read(n_tokens: int, config: RunConfig, windows: int) -> int:
    """Tokens that at least one window reads, at most all."""
    if not windows:
        return 0
    return min(n_tokens, (windows - 1) * min(config.stride, config.model.context_length) + config.model.context_length)


@st.fragment
def windows(reading: Reading, config: RunConfig) -> None:
    """One window: input and target, shifted by one."""
    length = config.model.context_length
    st.subheader("What the model must predict", anchor=False)
    st.markdown(
        f":gray[A window is {length:,} tokens in a row. At each place the model reads everything up to there and must "
        "predict the next token: the target is the input shifted by one. Choose a place.]"
    )
    with st.container(horizontal=True, vertical_alignment="bottom"):
        part = st.segmented_control(
            "Part", ["Training", "Validation"], default="Training", required=True, label_visibility="collapsed"
        )
        ids: Ids = reading.val if part == "Validation" else reading.train
        starts = window_starts(len(ids), length, config.stride)
        index = 0
        if len(starts) > 1:
            index = st.slider(f"Window, of {len(starts):,}", 1, len(starts), width="stretch", key=f"window.{part}") - 1
    if not starts:
        st.info(f"The {str(part).lower()} part is shorter than one window of {length:,} tokens and the one after it.")
        return
    start = starts[min(index, len(starts) - 1)]
    shown = min(length, MOST_PLACES)
    chunk = ids[start : start + shown + 1].tolist()
    pieces = list(zip(chunk, token_pieces(chunk), strict=True))
    window_strip(pieces[:-1], pieces[1:], key="window-strip", more=length - shown)


def batches(config: RunConfig, report: LengthReport) -> None:
    """What both loaders give, as a table."""
    length, size = config.model.context_length, config.data.batch_size
    st.subheader("Batches", anchor=False)
    st.markdown(
        ":gray[Windows go through the model several at a time, as a batch. Inputs and targets have the same shape: "
        "windows by tokens.]"
    )
    columns = {
        "": ["Windows", "Batches in an epoch", "Shape of a batch", "Shape of the last batch", "Tokens in an epoch"]
    }
    for name, n_windows, n, drop_last in (
        ("Training", report.train_windows, report.train_batches, config.data.drop_last),
        ("Validation", report.val_windows, report.val_batches, False),
    ):
        used = n * size if drop_last else n_windows
        full, last = (f"[{min(size, used)}, {length}]", f"[{used - (n - 1) * size}, {length}]") if n else ("–", "–")
        columns[name] = [f"{n_windows:,}", f"{n:,}", full, last, f"{used * length:,}"]
    st.table(columns, hide_index=True, border="horizontal", alt="Batches of the training and the validation loader")
    if config.data.drop_last and report.train_windows % size:
        left = report.train_windows % size
        st.caption(f"{left} training window{'' if left == 1 else 's'} left out in each epoch: not a full batch.")


def frequencies(reading: Reading) -> None:
    """Which tokens are frequent, and how fast that falls."""
    st.subheader("Frequent tokens", anchor=False)
    found = reading.statistics
    rows = ranks(reading.corpus.sha256, reading.whole)
    with st.grid(2, min_column_width=300, gap="medium"):
        with st.container():
            st.caption("The 20 most frequent")
            st.plotly_chart(
                frequency_figure(found.most_frequent[:20], found.tokens),
                config=STILL,
                key="frequent",
                alt="Bars: the 20 most frequent tokens; the table below has the numbers",
            )
        with st.container():
            st.caption("Rank and frequency: nearly a straight line on logarithmic axes (Zipf’s law)")
            st.plotly_chart(
                rank_figure(rows, token_pieces([id_ for _, _, id_ in rows])),
                config=STILL,
                key="ranks",
                alt="Curve: how often the n-th most frequent token occurs, falling from left to right",
            )
    with st.expander("As a table"):
        st.dataframe(
            {
                "token": [visible(token.text) for token in found.most_frequent],
                "id": [token.id for token in found.most_frequent],
                "times": [token.occurrences for token in found.most_frequent],
                "share": [f"{token.occurrences / max(1, found.tokens):.2%}" for token in found.most_frequent],
            },
            hide_index=True,
        )
