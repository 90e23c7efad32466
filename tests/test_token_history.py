"""Where a token comes from, against the tokenizer and the data loader themselves."""

from __future__ import annotations

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gptlab.config import RunConfig
from gptlab.dataset import create_dataloader
from gptlab.token_history import occurrences, token_makeup, token_places, windows_with
from gptlab.tokenizer import END_OF_TEXT_ID, _read_vocabulary, encode_text, get_tokenizer

TEXT = "The river rose 👍🏽, é and e\u0301; 日本語のテキスト. The rivers rose again.<|endoftext|>The end\n\n"


def test_every_token_of_the_vocabulary_is_built_from_its_bytes_by_merges_learnt_one_after_another() -> None:
    for token in range(END_OF_TEXT_ID):
        made = token_makeup(token)
        if token < 256:
            assert len(made.bytes) == 1
            assert made.merges == ()
            continue
        pieces = tuple(made.bytes[i : i + 1] for i in range(len(made.bytes)))
        for merge in made.merges:
            assert merge.left + merge.right in merge.pieces
            assert len(merge.pieces) == len(pieces) - 1
            assert b"".join(merge.pieces) == made.bytes
            pieces = merge.pieces
        assert pieces == (made.bytes,)
        assert made.merges[-1].rank == token - 255  # the first merge ever learnt made token 256
        assert max(merge.rank for merge in made.merges) == made.merges[-1].rank


def test_each_last_merge_is_the_one_that_gpt_2s_own_list_has_on_that_line() -> None:
    files, tokenizer = _read_vocabulary(), get_tokenizer()
    table = json.loads(files["encoder.json"])
    lines = files["vocab.bpe"].decode("utf-8").splitlines()[1:]
    for rank, line in enumerate((line for line in lines if line), start=1):
        left, right = (tokenizer.decode_single_token_bytes(table[piece]) for piece in line.split(" "))
        last = token_makeup(255 + rank).merges[-1]
        assert (last.left, last.right, last.rank) == (left, right, rank)


def test_the_merges_of_a_word_from_its_bytes_on() -> None:
    made = token_makeup(get_tokenizer().encode_single_token(" the"))
    assert made.bytes == b" the"
    assert [merge.pieces for merge in made.merges] == [(b" t", b"h", b"e"), (b" t", b"he"), (b" the",)]
    assert [merge.rank for merge in made.merges] == [1, 3, 7]


def test_the_end_of_text_is_special_and_has_no_merges() -> None:
    made = token_makeup(END_OF_TEXT_ID)
    assert made.special
    assert (made.bytes, made.merges) == (b"<|endoftext|>", ())


@pytest.mark.parametrize("token", [-1, 50257])
def test_a_token_that_does_not_exist_is_refused_with_the_range(token: int) -> None:
    with pytest.raises(ValueError, match="0 to 50,256"):
        token_makeup(token)


def test_places_are_the_characters_of_the_text() -> None:
    ids = encode_text(TEXT)
    the = get_tokenizer().encode_single_token("The")
    found = occurrences(ids, the)
    assert found.count == 2
    assert [TEXT[place.start : place.end] for place in found.places] == ["The", "The"]
    assert [place.index for place in found.places] == [0, ids.tolist().index(END_OF_TEXT_ID) + 1]
    assert occurrences(ids, the, most_places=1).count == 2
    assert len(occurrences(ids, the, most_places=1).places) == 1
    assert occurrences(ids, 4711).places == ()


@settings(max_examples=80, deadline=None)
@given(st.text(st.sampled_from("ab 👍🏽é\u0301日本\n<|\u200d"), max_size=40))
def test_every_token_lies_on_the_characters_that_its_bytes_are_a_part_of(text: str) -> None:
    ids, tokenizer = encode_text(text), get_tokenizer()
    places = token_places(ids, range(len(ids)))
    position = 0
    for token, place in zip(ids.tolist(), places, strict=True):
        raw = tokenizer.decode_single_token_bytes(token)
        begins = [len(text[:i].encode()) for i in range(len(text) + 1)]
        touched = [i for i in range(len(text)) if begins[i] < position + len(raw) and begins[i + 1] > position]
        assert (place.start, place.end) == (touched[0], touched[-1] + 1)
        position += len(raw)


@pytest.mark.parametrize(
    "data",
    [
        {"batch_size": 3},
        {"batch_size": 3, "drop_last": False},
        {"batch_size": 2, "stride": 3},
        {"batch_size": 2, "stride": 11},
        {"batch_size": 4, "shuffle": False},
    ],
    ids=str,
)
def test_windows_and_batches_are_those_of_the_loader(data: dict[str, object]) -> None:
    config = RunConfig().with_fields(
        model={"context_length": 8}, data=data, train={"seed": 5}, optim={"grad_accumulation": 2}
    )
    ids, epochs = torch.arange(100), (1, 2)  # a token's id is its index
    stride, options = config.stride, config.data
    loader = create_dataloader(
        ids, options.batch_size, 8, options.stride, options.shuffle, options.drop_last, seed=config.train.seed
    )
    inputs: set[tuple[int, int, int, int, int]] = set()
    targets: set[tuple[int, int, int, int]] = set()
    for epoch in epochs:
        loader.sampler.set_epoch(epoch)  # type: ignore[attr-defined]
        for batch, (read, asked) in enumerate(loader):
            for row in range(len(read)):
                window = int(read[row, 0]) // stride
                inputs |= {(epoch, window, batch, row, int(token)) for token in read[row]}
                targets |= {(epoch, window, batch, int(token)) for token in asked[row]}
    ours_inputs, ours_targets = set(), set()
    for index in range(100):
        for found in windows_with(index, 100, config, epochs):
            for place in found.batches:
                if place.batch is None:
                    assert options.drop_last
                    continue
                assert place.row is not None
                per_epoch = -(-len(loader) // 2)
                assert place.step == (place.epoch - 1) * per_epoch + place.batch // 2
                if found.position is not None:
                    assert index == found.window * stride + found.position
                    ours_inputs.add((place.epoch, found.window, place.batch, place.row, index))
                if found.is_target:
                    ours_targets.add((place.epoch, found.window, place.batch, index))
    assert ours_inputs == inputs
    assert ours_targets == targets


def test_a_text_shorter_than_a_window_has_none() -> None:
    assert windows_with(3, 8, RunConfig().with_fields(model={"context_length": 8})) == ()
