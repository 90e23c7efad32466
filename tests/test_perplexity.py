from __future__ import annotations

import math

import pytest
import torch

from gptlab.loss import token_losses
from gptlab.perplexity import score_ids, score_text
from gptlab.tokenizer import text_to_token_ids
from tests.small_models import small_model, some_ids


@pytest.mark.parametrize("length", [2, 9, 17])
def test_a_text_within_one_window_has_that_windows_losses(length: int) -> None:
    model, ids = small_model(seed=3), some_ids(length)
    torch.testing.assert_close(score_ids(model, ids).losses, token_losses(model, ids), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("stride", [1, 5, 8, 16])
@pytest.mark.parametrize("length", [18, 23, 33, 100])
def test_each_later_token_is_scored_once_from_enough_of_what_stands_before_it(stride: int, length: int) -> None:
    model, ids = small_model(seed=3), some_ids(length)
    score = score_ids(model, ids, stride)
    assert score.losses.shape == (length - 1,)
    for place in range(1, length):
        ways = [token_losses(model, ids[begin : place + 1])[-1] for begin in range(max(0, place - 16), place)]
        enough = ways[:1] if place <= 16 else ways[: stride + 1]  # the fewest tokens before it: 16 - stride + 1
        assert min(abs(float(way - score.losses[place - 1])) for way in enough) < 1e-4


def test_a_stride_of_one_gives_every_token_the_whole_context() -> None:
    model, ids = small_model(seed=3), some_ids(40)
    right = [token_losses(model, ids[max(0, place - 16) : place + 1])[-1] for place in range(1, 40)]
    torch.testing.assert_close(score_ids(model, ids, 1).losses, torch.stack(right), rtol=1e-4, atol=1e-5)


def test_progress_rises_to_one() -> None:
    shares: list[float] = []
    score_ids(small_model(), some_ids(100), progress=shares.append)
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    assert len(shares) > 5


def test_uniform_guessing_has_the_vocabulary_as_its_perplexity_and_its_bits_over_the_characters() -> None:
    model = small_model(vocab_size=50257, emb_dim=6)
    torch.nn.init.zeros_(model.out_head.weight)
    text = "The river 👍 rose, and the book said so."
    score = score_text(model, text)
    n = text_to_token_ids(text).shape[1]
    assert score.loss == pytest.approx(math.log(50257), rel=1e-5)
    assert score.perplexity == pytest.approx(50257, rel=1e-3)
    assert score.characters == len(text) - len("The")
    assert score.bits_per_character == pytest.approx((n - 1) * math.log2(50257) / (len(text) - 3), rel=1e-5)


@pytest.mark.parametrize("text", ["", "The"])
def test_a_text_with_nothing_to_score_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="two tokens or more"):
        score_text(small_model(vocab_size=50257, emb_dim=6), text)


@pytest.mark.parametrize("stride", [0, 17])
def test_a_stride_out_of_bounds_is_refused_with_the_bounds(stride: int) -> None:
    with pytest.raises(ValueError, match=f"stride is {stride}: it must be 1 to context_length 16"):
        score_ids(small_model(), some_ids(40), stride)
