"""What was copied from the corpus: every match of five tokens or more, exact, and with its place."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gptlab.config import RunConfig
from gptlab.copying import SHORTEST, CorpusIndex, Match, distinct_2, suffix_order
from gptlab.corpus import Corpus, add_corpus
from gptlab.tokenizer import get_tokenizer

WORDS = ["the", "boat", "went", "down", "river", "and", "she", "said", "nothing", "at", "all", "about", "it"]


def config(ratio: float = 0.5, context: int = 4, stride: int | None = None) -> RunConfig:
    return RunConfig().with_fields(
        model={"context_length": context}, data={"train_ratio": ratio, "stride": stride}
    )  # fmt: skip


def encode(text: str) -> list[int]:
    return get_tokenizer().encode(text)


def corpus_of(text: str) -> Corpus:
    return add_corpus("a text", text)


def in_a_row(needle: list[int], hay: list[int]) -> int | None:
    """Where ``needle`` first stands in ``hay``: the plain way."""
    return next((k for k in range(len(hay) - len(needle) + 1) if hay[k : k + len(needle)] == needle), None)


@settings(max_examples=60, deadline=None)
@given(
    words=st.lists(st.sampled_from(WORDS[:4]), min_size=12, max_size=60),
    sample=st.lists(st.sampled_from(WORDS[:4]), max_size=20),
    ratio=st.sampled_from([0.3, 0.5, 0.8]),
)
def test_every_match_is_found_and_no_other(words: list[str], sample: list[str], ratio: float) -> None:
    corpus = corpus_of(" ".join(["", *words]))
    parts = [part.tolist() for part in corpus.split_ids(ratio)]
    ids = encode(" ".join(["", *sample])) if sample else []
    found = CorpusIndex(corpus, config(ratio)).find(ids)

    inside = set()
    for start in range(len(ids)):
        for end in range(start + SHORTEST, len(ids) + 1):
            if any(in_a_row(ids[start:end], part) is not None for part in parts):
                inside |= set(range(start, end))
    assert {place for place, match in enumerate(found.inside) if match is not None} == inside
    for match in found.matches:
        needle = ids[match.start : match.start + match.length]
        part = parts[match.part == "validation"]
        assert in_a_row(needle, part) == match.token  # the first of its places
        assert match.times == sum(part[k : k + len(needle)] == needle for k in range(len(part)))
        longer = ids[match.start : match.start + match.length + 1]
        if len(longer) > match.length:
            assert all(in_a_row(longer, part) is None for part in parts)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 3), max_size=80))
def test_suffixes_come_in_their_order(ids: list[int]) -> None:
    order = suffix_order(np.array(ids, dtype=np.int32)).tolist()
    assert order == sorted(range(len(ids)), key=lambda start: ids[start:])


def test_sorting_stops_at_the_depth_that_is_asked_for() -> None:
    ids = np.array([1, 1, 1, 1, 1, 0], dtype=np.int32)
    order = suffix_order(ids, depth=2).tolist()
    assert [ids[k : k + 2].tolist() for k in order] == [[0], [1, 0], [1, 1], [1, 1], [1, 1], [1, 1]]


def test_a_match_is_told_with_its_part_its_character_and_its_window() -> None:
    training = "The lamp stood by the window, and nobody had touched it since May. "
    validation = "Anna closed the ledger, put out the light and went home without a word."
    text = training + validation
    index = CorpusIndex(corpus_of(text), config(len(training) / len(text)))
    found = index.find(encode("Then closed the ledger, put out the light quickly"))
    (match,) = found.matches
    assert match.part == "validation"
    assert text[match.character :].startswith(" closed the ledger, put out the light")
    tokens = encode(validation)
    assert tokens[match.token : match.token + match.length] == encode(" closed the ledger, put out the light")
    assert match.window == 1
    before, copied, after = index.passage(match)
    assert (before, copied) == ("Anna", " closed the ledger, put out the light")
    assert after.startswith(" and went home")
    assert found.longest == match.length
    assert found.share == pytest.approx(match.length / len(found.inside))


@pytest.mark.parametrize(
    ("stride", "context", "token", "window"),
    [(4, 4, 0, 1), (4, 4, 4, 1), (4, 4, 5, 2), (2, 4, 7, 3), (8, 4, 6, None), (8, 4, 9, 2), (4, 4, 19, None)],
)
def test_the_window_is_the_first_that_reads_the_token(
    stride: int, context: int, token: int, window: int | None
) -> None:
    ids = encode(" " + " ".join(f"word{n}" for n in range(40)))[:18]
    corpus = corpus_of(get_tokenizer().decode(ids) + " end" * 3)
    index = CorpusIndex(corpus, config(0.9, context, stride))
    n_tokens = 18
    starts = range(0, n_tokens - context, stride)
    readers = [n + 1 for n, start in enumerate(starts) if start <= token <= start + context]
    assert index._window(token, n_tokens) == window == (readers[0] if readers else None)


def test_characters_are_counted_as_characters_also_among_emoji() -> None:
    text = "🙂é… " * 30 + "nobody had touched it since the month of May. " + "x" * 40
    match = CorpusIndex(corpus_of(text), config(0.95)).find(encode(" had touched it since the month of")).matches[0]
    assert text[match.character :].startswith(" had touched it")


def test_of_equal_matches_the_training_part_is_named() -> None:
    text = "one two three four five six seven. " * 4
    match = CorpusIndex(corpus_of(text), config(0.5)).find(encode(" two three four five six")).matches[0]
    assert match.part == "training"
    assert match.times == 2


def test_four_tokens_in_a_row_are_no_copy() -> None:
    index = CorpusIndex(corpus_of("one two three four five six seven. " * 4), config())
    assert index.find(encode(" two three four five")).matches == ()
    assert index.find([]).longest == 0
    assert math.isnan(index.find([]).share)


def test_the_order_is_kept_on_disk_and_made_again_where_it_is_damaged(tmp_path: Path) -> None:
    corpus = corpus_of("one two three four five six seven. " * 4)
    ids = encode(" two three four five six seven")
    first = CorpusIndex(corpus, config()).find(ids)
    kept = sorted(corpus.folder.glob("order-*.npy"))
    assert len(kept) == 2
    written = kept[0].stat().st_mtime_ns
    assert CorpusIndex(corpus, config()).find(ids) == first
    for damage in (b"", b"garbage", kept[1].read_bytes()[:-4]):
        kept[0].write_bytes(damage)
        assert CorpusIndex(corpus, config()).find(ids) == first
    assert kept[0].stat().st_mtime_ns > written


def test_a_part_without_tokens_is_no_fault() -> None:
    index = CorpusIndex(corpus_of("one two three four five six seven."), config(0.999999))
    assert isinstance(index.find(encode("one two three four five six")).matches[0], Match)


def test_distinct_2_counts_different_neighbours() -> None:
    assert distinct_2([7, 7, 7, 7, 7]) == pytest.approx(1 / 4)
    assert distinct_2([1, 2, 3, 1, 2]) == pytest.approx(3 / 4)
    assert math.isnan(distinct_2([1]))
