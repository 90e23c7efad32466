"""Drafts by 8-bit weights: the tokens are fp32's own, whatever was drafted."""

from __future__ import annotations

import pytest
import torch

from gptlab import sampling as sampling_module
from gptlab.config import ModelConfig, SamplingConfig
from gptlab.fast import speculative
from gptlab.fast.decoding import Reader
from gptlab.fast.speculative import DRAFTED, SpeculativeReader, pays
from gptlab.model import GPTModel
from gptlab.sampling import generate, generate_samples, generate_steps
from tests.small_models import small_model, some_ids

CONTEXT = 48


def spread_out() -> GPTModel:
    """A small model whose logits spread as those of a trained one."""
    model = small_model(seed=2, emb_dim=48, n_heads=4, context_length=CONTEXT)
    with torch.no_grad():
        model.out_head.weight.mul_(4)
    return model


@pytest.fixture
def readers(monkeypatch: pytest.MonkeyPatch) -> list[SpeculativeReader]:
    """Drafts pay for every model here; the readers that were made."""
    made: list[SpeculativeReader] = []

    class Kept(SpeculativeReader):
        def __init__(self, *arguments: object) -> None:
            super().__init__(*arguments)  # type: ignore[arg-type]
            self.drafts: list[int] = []  # their lengths
            self.right = self.counted = 0  # drafted tokens that were accepted, also before the last question
            made.append(self)

        def _n_drafted(self, length: int) -> int:
            self.right += self.accepted - self.counted
            self.drafts.append(super()._n_drafted(length))
            self.counted = self.accepted
            return self.drafts[-1]

    monkeypatch.setattr(sampling_module, "pays", lambda model, n_new: True)
    monkeypatch.setattr(sampling_module, "SpeculativeReader", Kept)
    return made


def without_drafts(model: GPTModel, ids: torch.Tensor, sampling: SamplingConfig) -> list[int]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sampling_module, "pays", lambda model, n_new: False)
        return list(generate(model, ids, sampling))


HOW = [
    SamplingConfig(),
    SamplingConfig(temperature=1.0, seed=3),
    SamplingConfig(temperature=0.8, top_k=5, seed=4, repetition_penalty=1.3),
    SamplingConfig(temperature=1.2, top_p=0.9, seed=5),
    SamplingConfig(temperature=1.0, min_p=0.1, seed=6),
]


@pytest.mark.parametrize("sampling", HOW)
def test_the_text_is_the_one_that_fp32_writes_alone_also_past_the_context(
    readers: list[SpeculativeReader], sampling: SamplingConfig
) -> None:
    model, ids = spread_out(), some_ids(5)
    long = sampling.model_copy(update={"max_new_tokens": 70, "stop_at_end": False})
    right = without_drafts(model, ids, long)
    assert not readers
    assert list(generate(model, ids, long)) == right
    (reader,) = readers
    assert reader.right > 0.7 * sum(reader.drafts) > 20  # and most drafts were right, or nothing would be gained


@pytest.mark.parametrize("sampling", HOW)
def test_wrong_drafts_change_nothing_and_are_given_up_for_a_while(
    readers: list[SpeculativeReader], sampling: SamplingConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, ids = spread_out(), some_ids(5)
    long = sampling.model_copy(update={"max_new_tokens": 40, "stop_at_end": False})
    right = without_drafts(model, ids, long)
    honest = sampling_module._chooser

    def at_first_wrong(*arguments: object) -> speculative.Chooser:
        choose = honest(*arguments)  # type: ignore[arg-type]
        return lambda logits, text: (choose(logits, text) + (len(text) < 18)) % len(logits)

    monkeypatch.setattr(sampling_module, "_chooser", at_first_wrong)
    monkeypatch.setattr(speculative, "_RESTED", 10)
    assert list(generate(model, ids, long)) == right
    (reader,) = readers
    tried = -(-speculative._TRIED // DRAFTED)  # drafts, each of which brings the one token that fp32 chooses
    assert reader.drafts[: tried + 11] == [*[DRAFTED] * tried, *[0] * 10, DRAFTED]
    assert reader.right > 0.7 * sum(reader.drafts[tried:])  # and then they are right


def test_each_token_is_told_with_the_probabilities_that_fp32_gives(readers: list[SpeculativeReader]) -> None:
    model, ids = spread_out(), some_ids(5)
    text = ids.tolist()
    for token in generate_steps(model, ids, SamplingConfig(max_new_tokens=30, temperature=1.0, seed=1)):
        with torch.inference_mode():
            right = model(torch.tensor([text]))[0, -1].softmax(-1)
        assert token.probability == pytest.approx(float(right[token.id]), abs=1e-5)
        text.append(token.id)
    assert readers


def test_a_text_that_goes_elsewhere_is_read_from_where_they_part() -> None:
    model, greedy = spread_out(), SamplingConfig()
    reader = SpeculativeReader(model, 20, lambda: sampling_module._chooser(greedy, torch.Generator()))
    with torch.inference_mode():
        for text in ([1, 2, 3], [1, 2, 3, 4], [1, 2, 9], [1, 2, 9], [1], [5, 6, 7, 8], list(range(20))):
            right = Reader(model, "fp32", 1, 20).read(torch.tensor([text]))[0]
            torch.testing.assert_close(reader(text), right, atol=1e-5, rtol=1e-5)


def test_nothing_is_drafted_beyond_the_longest_text(readers: list[SpeculativeReader]) -> None:
    model = spread_out()
    list(generate(model, some_ids(5), SamplingConfig(max_new_tokens=3, stop_at_end=False)))
    (reader,) = readers
    assert len(reader.ids) <= reader.room == 8


def test_several_texts_and_rounded_weights_are_not_drafted(readers: list[SpeculativeReader]) -> None:
    model, few = spread_out(), SamplingConfig(max_new_tokens=3)
    list(generate(model, some_ids(5), few, weights="int8"))
    list(generate(model, some_ids(5), few, weights="bf16"))
    list(generate_samples(model, some_ids(5), 2, few))
    assert not readers


def test_drafts_pay_by_the_sizes_of_model_and_text() -> None:
    with torch.device("meta"):
        large, small = GPTModel(ModelConfig()), GPTModel(ModelConfig(n_layers=2, n_heads=2, emb_dim=128))
    assert [pays(large, 200), pays(large, 20), pays(small, 200)] == [True, False, False]
