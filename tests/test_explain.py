"""The chain of one token on a small model and a small text."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from gptlab.config import RunConfig
from gptlab.corpus import add_corpus
from gptlab.explain import corpus_occurrences, explain_token, losses_over_epochs, nearest_tokens
from gptlab.inspection import attention_maps
from gptlab.loss import token_losses
from gptlab.tokenizer import encode_text, get_tokenizer
from tests.small_models import small_model, some_ids


def test_what_the_model_expected_belongs_to_the_position_before_the_token() -> None:
    model, ids = small_model(seed=3), some_ids(12)
    chain = explain_token(model, ids, 7, top=4)
    with torch.no_grad():
        chances = model(ids[None, :7])[0, -1].softmax(-1)
    assert chain.position == 7
    assert chain.loss == pytest.approx(token_losses(model, ids)[6].item(), rel=1e-4)
    assert chain.rank == int((chances > chances[ids[7]]).sum())
    assert [guess.id for guess in chain.guesses] == chances.topk(4).indices.tolist()
    assert chain.attention is not None
    torch.testing.assert_close(chain.attention, attention_maps(model, ids)[:, :, 6, :7])
    assert chain.attention_start == 0
    assert chain.makeup is not None
    assert chain.makeup.id == int(ids[7])


def test_far_into_a_text_the_model_reads_the_context_before_the_token() -> None:
    model, ids = small_model(seed=3), some_ids(40)
    chain = explain_token(model, ids, 30)
    assert chain.attention is not None
    assert chain.attention.shape == (2, 3, 16)
    assert chain.attention_start == 14
    assert chain.loss == pytest.approx(token_losses(model, ids[14:31])[-1].item(), rel=1e-4)
    assert explain_token(model, ids, -1).position == 39


def test_the_first_token_was_not_predicted() -> None:
    chain = explain_token(small_model(), some_ids(4), 0, models=[(1, small_model())])
    assert (chain.loss, chain.rank, chain.guesses, chain.attention, chain.losses) == (None, None, (), None, ())
    assert len(chain.neighbours) == 8


def test_a_position_outside_the_passage_is_refused_with_the_range() -> None:
    with pytest.raises(ValueError, match="no token 4 in a passage of 4: ask for 0 to 3"):
        explain_token(small_model(), some_ids(4), 4)
    with pytest.raises(ValueError, match="Token 0 of a passage of 4 was not predicted: ask for 1 to 3"):
        losses_over_epochs([(1, small_model())], some_ids(4), 0)


def test_losses_over_epochs_read_the_models_one_by_one() -> None:
    ids, opened = some_ids(9), []

    def models():  # type: ignore[no-untyped-def]
        for epoch in (1, 3, 9):
            opened.append(epoch)
            yield epoch, small_model(seed=epoch)

    told = losses_over_epochs(models(), ids, 8, top=2)
    assert opened == [told_.epoch for told_ in told] == [1, 3, 9]
    for row in told:
        assert row.loss == pytest.approx(token_losses(small_model(seed=row.epoch), ids)[7].item(), rel=1e-4)
        assert len(row.guesses) == 2
    assert len({row.loss for row in told}) == 3


@pytest.mark.parametrize("by", ["embedding", "head"])
def test_the_nearest_tokens_are_those_of_the_smallest_angle(by: str) -> None:
    model = small_model()
    weight = (model.tok_emb if by == "embedding" else model.out_head).weight.detach()
    with torch.no_grad():
        weight[9] = 3 * weight[5] + 0.01  # same direction, another length
    near = nearest_tokens(model, 5, n=4, by=by)  # type: ignore[arg-type]
    cosines = torch.nn.functional.cosine_similarity(weight[5][None], weight)
    cosines[5] = -2
    assert near[0].id == 9
    assert [neighbour.id for neighbour in near] == cosines.topk(4).indices.tolist()
    assert [neighbour.cosine for neighbour in near] == pytest.approx(cosines.topk(4).values.tolist(), abs=1e-5)
    assert len(nearest_tokens(model, 5, n=999)) == 60
    with pytest.raises(ValueError, match="token id 61"):
        nearest_tokens(model, 61)


def test_places_in_the_corpus_are_characters_of_the_whole_text_with_their_windows(home: Path) -> None:
    text = "".join(f"The river rose {number} times, he said 👍. " for number in range(60))
    corpus = add_corpus("mine.txt", text)
    config = RunConfig().with_fields(model={"context_length": 8}, data={"train_ratio": 0.5})
    river = get_tokenizer().encode_single_token(" river")
    found = corpus_occurrences(corpus, config, river, epochs=(1, 2), most_places=50)
    assert found.training + found.validation in (59, 60)  # the split may fall into one
    assert {place.part for place in found.places} == {"training", "validation"}
    for place in found.places:
        assert corpus.text[place.place.start : place.place.end] == " river"
        assert (place.windows != ()) == (place.part == "training")
    train_ids = encode_text(text[: len(text) // 2])
    first = found.places[0]
    assert train_ids[first.place.index] == river
    assert first.windows[0].window == first.place.index // 8
    assert [seat.epoch for seat in first.windows[0].batches] == [1, 2]
    model = small_model(vocab_size=50257, emb_dim=6)
    chain = explain_token(model, train_ids.tolist(), first.place.index, corpus=corpus, config=config)
    assert chain.corpus == corpus_occurrences(corpus, config, river)
