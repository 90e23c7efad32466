"""Decoding from prepared weights against the textbook model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from operator import attrgetter

import pytest
import torch
import torch.nn.functional as F

from gptlab.config import SamplingConfig
from gptlab.epoch_look import EpochLook
from gptlab.fast import decoding, products
from gptlab.fast.decoding import Reader, check_weights, weights_of
from gptlab.fast.precision import onednn_products, without_onednn
from gptlab.fast.products import _divided, _fp32_product, library_for
from gptlab.model import GPTModel
from gptlab.sampling import generate, generate_batch, generate_steps
from gptlab.state import TrainState
from gptlab.tokenizer import END_OF_TEXT_ID
from tests.small_models import parts, run_config, small_model, some_ids


def trained_like(**changes: object) -> GPTModel:
    """A small model whose logits spread as those of a trained one."""
    here = small_model(seed=2, emb_dim=48, n_heads=4, context_length=24, **changes)
    with torch.no_grad():
        here.out_head.weight.mul_(4)
    return here


@pytest.mark.parametrize("changes", [{}, {"qkv_bias": True}, {"tie_weights": True}])
@pytest.mark.parametrize(("weights", "tolerance"), [("fp32", 1e-5), ("bf16", 0.02), ("int8", 0.05)])
def test_logits_are_those_of_the_model(weights: str, tolerance: float, changes: dict) -> None:
    here = trained_like(**changes)
    ids = some_ids(24)[None]
    reader = Reader(here, check_weights(weights, here), batch_size=1, length=24)
    with torch.inference_mode():
        right = here(ids)[0]
        for begin, end in ((0, 5), (5, 6), (6, 7), (7, 20), (20, 21)):  # a prompt, single tokens, several at once
            logits = reader.read(ids[:, begin:end])
            assert float((logits[0] - right[end - 1]).norm() / right[end - 1].norm()) < tolerance


@pytest.mark.parametrize("weights", ["fp32", "bf16", "int8"])
def test_texts_of_different_lengths_are_read_side_by_side(weights: str) -> None:
    here = trained_like()
    texts = [some_ids(9, seed=1), some_ids(3, seed=2), some_ids(6, seed=3)]
    longest = max(map(len, texts))
    start = torch.tensor([longest - len(text) for text in texts])
    ids = torch.stack([torch.cat([torch.zeros(longest - len(text), dtype=torch.long), text]) for text in texts])
    kind = check_weights(weights, here)
    together = Reader(here, kind, batch_size=3, length=24)
    with torch.inference_mode():
        logits = [together.read(ids, start), together.read(torch.tensor([[7], [8], [9]]), start)]
        for number, text in enumerate(texts):
            alone = Reader(here, kind, batch_size=1, length=24)
            right = [alone.read(text[None]), alone.read(torch.tensor([[7 + number]]))]
            for a, b in zip(logits, right, strict=True):
                assert float((a[number] - b[0]).norm() / b.norm()) < 0.02


def test_prepared_weights_are_kept_until_the_model_changes() -> None:
    here = trained_like()
    first = weights_of(here, "bf16")
    assert weights_of(here, "bf16") is first
    with torch.no_grad():
        here.out_head.weight.mul_(2)
    assert weights_of(here, "bf16") is not first


def test_prepared_weights_do_not_outlive_the_look_after_an_epoch() -> None:
    state = TrainState.build(run_config(), parts())
    look = EpochLook(state.config.train, state)
    for _ in look.samples(0, 0):
        assert state.model in decoding._made
    assert state.model not in decoding._made


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("n_threads", [1, 2, 3])
@pytest.mark.parametrize(("n_rows", "bias"), [(1, False), (1, True), (4, True), (8, False), (9, True)])
@pytest.mark.parametrize("n_out", [2, 12, 13])
@pytest.mark.parametrize("exact", [False, True])
def test_a_product_of_any_number_of_rows_is_the_product(
    n_threads: int, n_rows: int, bias: bool, n_out: int, exact: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.set_num_threads(n_threads)
    monkeypatch.setattr(products, "onednn_is_exact", lambda: exact)
    stream = torch.Generator().manual_seed(n_out)
    x, matrix = torch.randn(n_rows, 20, generator=stream), torch.randn(n_out, 20, generator=stream)
    added = torch.randn(n_out, generator=stream) if bias else None
    torch.testing.assert_close(_fp32_product(x, matrix, added), F.linear(x, matrix, added))


@pytest.mark.usefixtures("threads")
def test_the_threads_share_each_product_of_one_row(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(2)
    here, calls = trained_like(), []
    monkeypatch.setattr(products, "_divided", F.linear)
    right = list(generate(here, some_ids(4), SamplingConfig(max_new_tokens=30)))  # also past the context
    monkeypatch.setattr(products, "_divided", lambda x, *rest: (calls.append(len(x)), _divided(x, *rest))[1])
    with torch.no_grad():
        here.out_head.weight.mul_(1)  # so that the weights are prepared again
    assert list(generate(here, some_ids(4), SamplingConfig(max_new_tokens=30))) == right
    assert calls.count(1) > 20


@pytest.mark.parametrize("exact", [False, True])
def test_one_row_of_bf16_and_many_of_exact_fp32_go_to_another_library(
    exact: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(products, "onednn_is_exact", lambda: exact)
    settings = torch.backends.mkldnn
    usual = (settings.enabled, settings.matmul.fp32_precision)
    seen = {}
    for kind in ("fp32", "bf16", "int8"):
        for n_rows in (1, 4, 5, 9):
            with library_for(kind, n_rows):
                inside = (settings.enabled, settings.matmul.fp32_precision)
            if inside != usual:
                seen[kind, n_rows] = inside
            assert (settings.enabled, settings.matmul.fp32_precision) == usual
    rerouted = {("fp32", 5): (usual[0], "bf16"), ("fp32", 9): (usual[0], "bf16")} if exact else {}
    assert seen == {("bf16", 1): (False, usual[1]), **rerouted}


def test_a_token_from_bf16_weights_is_read_without_onednn(monkeypatch: pytest.MonkeyPatch) -> None:
    routes, linear = [], F.linear

    def watched(x: torch.Tensor, *rest: torch.Tensor) -> torch.Tensor:
        routes.append((len(x), torch.backends.mkldnn.enabled))
        return linear(x, *rest)

    monkeypatch.setattr(products.F, "linear", watched)
    reader = Reader(trained_like(), "bf16", 1, 8)
    with torch.inference_mode():
        reader.read(torch.tensor([[1, 2, 3]]))
        assert {route for n_rows, route in routes if n_rows == 3} == {True}
        routes.clear()
        reader.read(torch.tensor([[4]]))
    assert set(routes) == {(1, False)}


def test_unknown_weights_are_refused_with_those_that_exist() -> None:
    with pytest.raises(ValueError, match=r"no weights 'fp8'.*fp32, bf16, int8"):
        check_weights("fp8", trained_like())


@pytest.mark.parametrize("sampling", [SamplingConfig(max_new_tokens=40), SamplingConfig(temperature=1.0, seed=3)])
def test_several_prompts_continue_as_each_alone_also_past_the_context(sampling: SamplingConfig) -> None:
    here = trained_like()
    prompts = [some_ids(9, seed=1), some_ids(2, seed=2).tolist(), some_ids(30, seed=3)[None]]
    together = list(generate_batch(here, prompts, sampling))
    assert [(row.shape, row.dtype) for row in together] == [((3,), torch.int64)] * sampling.max_new_tokens
    for number, prompt in enumerate(prompts):
        alone = list(generate(here, prompt, sampling))
        assert [int(row[number]) for row in together] == alone


@pytest.mark.parametrize("weights", ["bf16", "int8"])
def test_rounded_weights_write_nearly_what_fp32_writes(weights: str) -> None:
    here = trained_like()
    greedy = SamplingConfig(max_new_tokens=12)
    right = list(generate_steps(here, some_ids(4), greedy))
    rounded = list(generate_steps(here, some_ids(4), greedy, weights=weights))
    for a, b in zip(right, rounded, strict=True):
        margin = a.alternatives[0][1] - a.alternatives[1][1]
        assert a.probability == pytest.approx(b.probability, abs=0.05)
        if a.id != b.id:
            assert margin < 0.1  # a near-tie: from here on the texts differ
            break


def fond_of_the_end(weight: float) -> GPTModel:
    """A model that gives <|endoftext|> the logit 8 x ``weight`` and every other token 0, whatever it reads."""
    here = small_model(vocab_size=50257, emb_dim=8, n_heads=2, n_layers=1)
    with torch.no_grad():
        here.tok_emb.weight.zero_()
        here.pos_emb.weight.zero_()
        here.final_norm.scale.zero_()
        here.final_norm.shift.fill_(1.0)
        here.out_head.weight.zero_()
        here.out_head.weight[END_OF_TEXT_ID] = weight
    return here


def test_texts_that_end_at_different_times_are_filled_up_with_the_end() -> None:
    here, prompts, seeds = fond_of_the_end(1.2), [[1], [2, 3], [4]], [5, 6, 7]
    drawn = SamplingConfig(max_new_tokens=40, temperature=1.0)
    rows = torch.stack(list(generate_batch(here, prompts, drawn, seeds=seeds)))  # [steps, B]
    lengths = []
    for number, (prompt, seed) in enumerate(zip(prompts, seeds, strict=True)):
        alone = list(generate(here, prompt, drawn.model_copy(update={"seed": seed})))
        lengths.append(len(alone))
        assert rows[:, number].tolist() == alone + [END_OF_TEXT_ID] * (len(rows) - len(alone))
    assert min(lengths) < max(lengths) == len(rows)


def test_a_text_that_has_ended_waits_for_the_others() -> None:
    here = fond_of_the_end(0.1)
    assert [row.tolist() for row in generate_batch(here, [[1], [2, 3]])] == [[END_OF_TEXT_ID] * 2]
    drawn = SamplingConfig(max_new_tokens=4, stop_at_end=False)
    assert len(list(generate_batch(here, [[1], [2, 3]], drawn))) == 4


def test_no_prompt_at_all_is_refused() -> None:
    with pytest.raises(ValueError, match="no prompt"):
        generate_batch(trained_like(), [])


@pytest.mark.parametrize(
    ("block", "name", "inside"),
    [(onednn_products, "matmul.fp32_precision", "bf16"), (without_onednn, "enabled", False)],
)
def test_answers_that_overlap_leave_the_arithmetic_as_it_was(
    block: Callable[[], AbstractContextManager[None]], name: str, inside: object
) -> None:
    setting = attrgetter(name)
    before = setting(torch.backends.mkldnn)
    assert before != inside
    first, second = block(), block()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)  # the one that came first leaves first
    assert setting(torch.backends.mkldnn) == inside
    second.__exit__(None, None, None)
    assert setting(torch.backends.mkldnn) == before
