"""What is read off a model against the plain forward pass."""

from __future__ import annotations

import math
import threading

import pytest
import torch

from gptlab.inspection import Trace, attention_maps, logit_lens, next_token_distribution, read_passage
from gptlab.loss import token_losses
from gptlab.model import GPTModel
from tests.small_models import VOCABULARY, small_model, some_ids

SHAPES = [{}, {"qkv_bias": True}, {"tie_weights": True}, {"init": "gpt2", "n_layers": 4}, {"context_length": 200}]


def sharp_model(**changes: object) -> GPTModel:
    """Logits that spread as a trained model's, dropout that would show, and norms that are not the identity."""
    model = small_model(seed=5, **{"drop_rate": 0.5, **changes})
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(("scale", "shift", "bias")):
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(len(name))))
        model.out_head.weight.mul_(3)
    return model


@pytest.mark.parametrize("changes", SHAPES, ids=str)
def test_logits_equal_the_plain_forward_at_every_length_up_to_the_full_context(changes: dict[str, object]) -> None:
    model = sharp_model(**changes)
    longest = model.config.context_length
    for length in (1, 2, longest - 1, longest):
        ids = some_ids(length)
        with torch.no_grad():
            plain = model(ids[None])[0]
        torch.testing.assert_close(Trace(model, ids).logits(), plain, rtol=0, atol=1e-5)
        torch.testing.assert_close(next_token_distribution(model, ids).logits, plain[-1], rtol=0, atol=1e-5)
        torch.testing.assert_close(read_passage(model, ids).logits, plain[-1], rtol=0, atol=1e-5)


def test_dropout_is_off_and_the_mode_stays_as_it_was() -> None:
    model, ids = sharp_model(), some_ids(16)
    plain = Trace(model.eval(), ids).logits()
    torch.testing.assert_close(Trace(model.train(), ids).logits(), plain, rtol=0, atol=0)
    assert all(module.training for module in model.modules())


@pytest.mark.parametrize("changes", SHAPES, ids=str)
def test_attention_rows_sum_to_one_and_never_look_ahead(changes: dict[str, object]) -> None:
    model = sharp_model(**changes)
    T = model.config.context_length
    maps = attention_maps(model, some_ids(T))
    assert maps.shape == (model.config.n_layers, model.config.n_heads, T, T)
    torch.testing.assert_close(maps.sum(-1), torch.ones(maps.shape[:-1]), rtol=0, atol=1e-5)
    assert maps.triu(1).abs().max() == 0
    assert float(maps.tril().min()) >= 0


def test_attention_is_what_the_layer_gathers_by() -> None:
    """Values weighted by the maps, projected, are the output of each layer's own attention."""
    model, ids = sharp_model(qkv_bias=True), some_ids(16)
    trace = Trace(model, ids)
    for layer, block in enumerate(model.trf_blocks):
        with torch.no_grad():
            x = block.norm1(trace.streams[layer])[None]
            values = block.att.W_value(x).view(1, 16, model.config.n_heads, -1).transpose(1, 2)
            gathered = (trace.attention(layer)[None] @ values).transpose(1, 2).reshape(1, 16, -1)
            torch.testing.assert_close(block.att.out_proj(gathered), block.att(x), rtol=0, atol=1e-5)


def test_some_layers_and_some_positions_are_parts_of_the_whole() -> None:
    model, ids = sharp_model(n_layers=4), some_ids(16)
    trace, whole = Trace(model, ids), attention_maps(model, ids)
    torch.testing.assert_close(attention_maps(model, ids, layers=[3, 1]), whole[[3, 1]])
    for position in (0, 7, -1):
        torch.testing.assert_close(trace.attention_from(position), whole[:, :, position])
    everywhere, some = logit_lens(model, ids), logit_lens(model, ids, positions=[3, -1])
    assert some.positions.tolist() == [3, 15]
    assert torch.equal(some.top_ids, everywhere.top_ids[:, [3, 15]])
    torch.testing.assert_close(some.top_probabilities, everywhere.top_probabilities[:, [3, 15]])


@pytest.mark.parametrize("changes", SHAPES, ids=str)
def test_the_lens_at_the_last_layer_is_the_models_own_answer(changes: dict[str, object]) -> None:
    model = sharp_model(**changes)
    ids = some_ids(model.config.context_length)
    lens = logit_lens(model, ids, top=4)
    with torch.no_grad():
        chances = model(ids[None])[0].softmax(-1)
    best = chances.topk(4)
    assert lens.top_ids.shape == (model.config.n_layers + 1, len(ids), 4)
    assert torch.equal(lens.top_ids[-1], best.indices)
    torch.testing.assert_close(lens.top_probabilities[-1], best.values, rtol=1e-4, atol=1e-6)
    actual = chances[:-1].gather(-1, ids[1:, None])[:, 0]
    torch.testing.assert_close(lens.actual_probability[-1, :-1], actual, rtol=1e-4, atol=1e-6)
    assert lens.actual_probability[:, -1].isnan().all()


def test_the_lens_of_each_layer_is_the_model_cut_off_behind_that_layer() -> None:
    model, ids = sharp_model(n_layers=3), some_ids(16)
    lens, trace = logit_lens(model, ids, top=VOCABULARY + 5), Trace(model, ids)
    assert lens.top_ids.shape[-1] == VOCABULARY
    for layer in range(4):
        shorter = sharp_model(n_layers=3)
        shorter.trf_blocks = shorter.trf_blocks[:layer]
        with torch.no_grad():
            right = shorter.eval()(ids[None])[0]
        torch.testing.assert_close(trace.logits(layer), right, rtol=0, atol=1e-5)
        assert torch.equal(lens.top_ids[layer, :, 0], right.argmax(-1))


@pytest.mark.parametrize("length", [2, 16, 150])
def test_surprise_sums_to_the_loss_of_the_window(length: int) -> None:
    model, ids = sharp_model(context_length=200), some_ids(length)
    reading = read_passage(model, ids, top=3)
    with torch.no_grad():
        whole = torch.nn.functional.cross_entropy(model(ids[None, :-1])[0], ids[1:], reduction="sum")
    assert reading.surprise.sum().item() == pytest.approx(whole.item(), rel=1e-5)
    torch.testing.assert_close(reading.surprise, token_losses(model, ids), rtol=1e-4, atol=1e-5)


def test_rank_guesses_and_entropy_belong_to_the_distribution_at_their_position() -> None:
    model, ids = sharp_model(context_length=80), some_ids(80)
    reading = read_passage(model, ids, top=3)
    with torch.no_grad():
        chances = model(ids[None])[0].softmax(-1)
    for position in (0, 40, 78):
        row, told = chances[position], int(ids[position + 1])
        assert reading.rank[position] == int((row > row[told]).sum())
        assert [guess.id for guess in reading.guesses(position)] == row.topk(3).indices.tolist()
        assert reading.guesses(position)[0].probability == pytest.approx(row.max().item(), rel=1e-4)
        assert reading.entropy[position].item() == pytest.approx(-(row * row.log()).sum().item(), rel=1e-4)
    assert reading.top_ids.shape == (80, 3)


def test_the_next_token_has_its_likeliest_first_and_no_more_than_there_are() -> None:
    model, ids = sharp_model(), some_ids(5)
    told = next_token_distribution(model, ids, top=4)
    chances = told.logits.softmax(-1)
    assert [guess.id for guess in told.top] == chances.topk(4).indices.tolist()
    assert told.entropy == pytest.approx(-(chances * chances.log()).sum().item(), rel=1e-5)
    assert sum(guess.probability for guess in next_token_distribution(model, ids, top=999).top) == pytest.approx(1)


def test_no_more_logits_exist_at_once_than_a_few_positions_of_one_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    model, rows = sharp_model(context_length=600), []
    head = model.out_head.forward
    monkeypatch.setattr(model.out_head, "forward", lambda x: (rows.append(x.numel() // x.shape[-1]), head(x))[1])
    read_passage(model, some_ids(600))
    logit_lens(model, some_ids(600))
    assert sum(rows) == 600 + 600 * 3
    assert max(rows) <= 256


def test_an_empty_passage_is_the_end_of_text() -> None:
    model = small_model(vocab_size=50257, emb_dim=6)
    torch.testing.assert_close(read_passage(model, []).logits, read_passage(model, [50256]).logits)


@pytest.mark.parametrize(
    ("ids", "told"),
    [
        (some_ids(17), "17 tokens is more than context_length 16: give its last 16"),
        ([VOCABULARY], f"token id {VOCABULARY}"),
        ([], "no <|endoftext|>"),
        (torch.zeros(2, 3, dtype=torch.long), r"shape \[2, 3\]"),
    ],
    ids=["long", "foreign", "empty", "batch"],
)
def test_a_passage_that_cannot_be_read_is_refused_in_a_sentence(ids: object, told: str) -> None:
    with pytest.raises(ValueError, match=told.replace("|", r"\|")):
        Trace(sharp_model(), ids)  # type: ignore[arg-type]


def test_two_threads_may_look_into_one_model_at_once() -> None:
    model, texts = sharp_model(n_layers=4).eval(), [some_ids(16, seed=seed) for seed in range(4)]
    right = [attention_maps(model, ids) for ids in texts]
    wrong: list[int] = []

    def look(number: int) -> None:
        for _ in range(10):
            if not torch.allclose(attention_maps(model, texts[number]), right[number], atol=1e-6):
                wrong.append(number)

    threads = [threading.Thread(target=look, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert not math.isnan(float(right[0].sum()))
