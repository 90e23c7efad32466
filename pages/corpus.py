"""Corpus: what is the model going to read?"""

from __future__ import annotations

import streamlit as st

from gptlab.corpus import Corpus, CorpusError, open_corpus
from gptlab.dataset import check_lengths
from pages.shared import corpus_sections as sections
from pages.shared.corpus_picker import pick_corpus, say_parts
from pages.shared.draft import load_draft
from pages.shared.look import escape
from pages.shared.page_top import page_top
from pages.shared.reading import read
from pages.shared.sanity import sanity_check


def main() -> None:
    page_top("Corpus", "What is the model going to read?", "Choose the size", "pages/hyperparameters.py")
    config = load_draft()
    corpus: Corpus | None = None
    fault = ""
    try:
        corpus = open_corpus(config.data.corpus, download=False)
    except CorpusError as error:
        fault = str(error)
    try:
        pick_corpus(corpus.sha256 if corpus else None, config)
    except CorpusError as error:  # even the built-in story cannot be kept: the data folder is full or read-only
        st.error(escape(str(error)))
        return
    if corpus is None:
        st.error(escape(fault) + " Choose a text above.")
        return

    st.header(escape(corpus.name), anchor=False)
    say_parts(corpus)
    reading = read(corpus, config.data.train_ratio)
    report = check_lengths(len(reading.train), len(reading.val), config)
    sections.figures(reading)
    sanity_check(len(reading.train), len(reading.val), config, report)
    sections.text_and_tokens(reading)
    sections.split(reading, config, report)
    sections.windows(reading, config)
    sections.batches(config, report)
    sections.frequencies(reading)


main()
