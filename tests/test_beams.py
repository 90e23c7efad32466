from __future__ import annotations

import itertools

import pytest
import torch

from gptlab.beams import beam_search
from gptlab.config import SamplingConfig
from gptlab.model import GPTModel
from gptlab.sampling import generate
from gptlab.tokenizer import END_OF_TEXT_ID
from tests.small_models import small_model, some_ids


def sharp_model(**changes: object) -> GPTModel:
    model = small_model(seed=4, **changes)
    with torch.no_grad():
        model.out_head.weight.mul_(4)
    return model


def logprob(model: GPTModel, prompt: list[int], new: tuple[int, ...]) -> float:
    """The log probability of ``new`` after ``prompt``, token by token, by the plain forward pass."""
    total, text = 0.0, list(prompt)
    for token in new:
        with torch.no_grad():
            logits = model(torch.tensor([text[-model.config.context_length :]]))[0, -1]
        total += float(logits.double().log_softmax(-1)[token])
        text.append(token)
    return total


@pytest.mark.parametrize("prompt_length", [1, 9, 40])
def test_one_beam_is_greedy_far_past_the_context(prompt_length: int) -> None:
    model, ids = sharp_model(), some_ids(prompt_length).tolist()
    (beam,) = beam_search(model, ids, n_beams=1, max_new_tokens=30)
    assert list(beam.ids) == list(generate(model, ids, SamplingConfig(max_new_tokens=30)))


def test_as_many_beams_as_there_are_texts_find_the_best_of_all_texts() -> None:
    model = sharp_model(vocab_size=7)
    everything = {new: logprob(model, [1, 2], new) for new in itertools.product(range(7), repeat=3)}
    best = sorted(everything, key=lambda new: -everything[new])
    found = beam_search(model, [1, 2], n_beams=49, max_new_tokens=3)
    assert [beam.ids for beam in found[:10]] == best[:10]
    assert [beam.logprob for beam in found] == pytest.approx([everything[beam.ids] for beam in found], abs=1e-4)


@pytest.mark.parametrize("prompt_length", [3, 30])
def test_a_beams_log_probability_is_that_of_its_tokens_also_past_the_context(prompt_length: int) -> None:
    model, ids = sharp_model(), some_ids(prompt_length).tolist()
    beams = beam_search(model, ids, n_beams=3, max_new_tokens=24)
    assert len({beam.ids for beam in beams}) == 3
    for beam in beams:
        assert beam.logprob == pytest.approx(logprob(model, ids, beam.ids), abs=1e-3)
        assert beam.score == pytest.approx(beam.logprob / 24)
    assert [beam.score for beam in beams] == sorted((beam.score for beam in beams), reverse=True)


def test_more_beams_find_a_text_at_least_as_likely_as_greedy() -> None:
    for seed in range(4):
        model, ids = sharp_model(), some_ids(5, seed=seed).tolist()
        greedy, wide = (beam_search(model, ids, n, 8)[0].logprob for n in (1, 5))
        assert wide >= greedy - 1e-6


def ending_model(ends: float) -> GPTModel:
    """Says <|endoftext|> or token 5 next, whatever stands before, with scores ``ends`` and 1."""
    model = small_model(vocab_size=50257, emb_dim=8, n_heads=2, n_layers=1)
    with torch.no_grad():
        for part in (model.tok_emb.weight, model.pos_emb.weight, model.final_norm.scale, model.out_head.weight):
            part.zero_()
        model.final_norm.shift.fill_(1.0)
        model.out_head.weight[END_OF_TEXT_ID], model.out_head.weight[5] = ends * 5, 5.0
    return model


def test_a_text_that_ends_leaves_the_beam_and_the_length_penalty_weighs_it() -> None:
    model = ending_model(0.98)
    beams = beam_search(model, [1], n_beams=2, max_new_tokens=10, length_penalty=0.0)
    assert all(beam.ids[-1] == END_OF_TEXT_ID for beam in beams)
    assert [len(beam.ids) for beam in beams] == [1, 2]
    longer = beam_search(model, [1], n_beams=2, max_new_tokens=10, length_penalty=2.0)
    assert [len(beam.ids) for beam in longer] == [2, 1]
    through = beam_search(model, [1], n_beams=2, max_new_tokens=4, stop_at_end=False)
    assert all(len(beam.ids) == 4 for beam in through)


def test_one_beam_stops_where_greedy_does() -> None:
    for ends in (0.9, 1.1):
        (beam,) = beam_search(ending_model(ends), [1], n_beams=1, max_new_tokens=6)
        assert list(beam.ids) == list(generate(ending_model(ends), [1], SamplingConfig(max_new_tokens=6)))


def test_no_new_tokens_leave_one_empty_beam() -> None:
    assert [(beam.ids, beam.logprob) for beam in beam_search(sharp_model(), [1], max_new_tokens=0)] == [((), 0.0)]


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"n_beams": 0}, "n_beams is 0: it must be 1 to 64"),
        ({"n_beams": 65}, "n_beams is 65: it must be 1 to 64"),
        ({"max_new_tokens": 1_000_000}, "max_new_tokens is 1,000,000: it must be 0 to 100,000"),
        ({"weights": "fp8"}, "no weights 'fp8'"),
    ],
)
def test_impossible_searches_are_refused_with_their_bounds(settings: dict[str, int], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        beam_search(sharp_model(), [1], **settings)  # type: ignore[arg-type]
