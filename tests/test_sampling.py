from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from gptlab.config import SamplingConfig
from gptlab.distribution import filtered_distribution
from gptlab.model import GPTModel
from gptlab.sampling import END_OF_TEXT_ID, choose, generate, generate_batch, generate_samples, generate_steps
from tests.small_models import VOCABULARY, small_model, some_ids


def naive(model: GPTModel, ids: list[int], new: int) -> list[int]:
    """The exercise's straightforward loop: crop, run everything again, take the likeliest."""
    for _ in range(new):
        window = torch.tensor([ids[-model.config.context_length :]])
        with torch.no_grad():
            ids = [*ids, int(model(window)[0, -1].argmax())]
    return ids[-new:]


def sample(logits: Tensor, n: int = 400, context: tuple[int, ...] = (), **settings_: object) -> list[int]:
    sampling = SamplingConfig.model_validate({"temperature": 1.0, **settings_})
    stream = torch.Generator().manual_seed(0)
    return [choose(logits, context, sampling, stream).id for _ in range(n)]


LOGITS = torch.tensor([0.5, 0.1, 0.3, 0.06, 0.04]).log()


@pytest.mark.parametrize("prompt_length", [1, 5, 16, 40])
def test_greedy_tokens_equal_the_naive_loops_far_past_the_context(prompt_length: int) -> None:
    model, ids = small_model(3), some_ids(prompt_length).tolist()
    assert list(generate(model, ids, SamplingConfig(max_new_tokens=48))) == naive(model, ids, 48)


def test_greedy_is_the_default() -> None:
    model, ids = small_model(), some_ids(4).tolist()
    assert list(generate(model, ids)) == naive(model, ids, SamplingConfig().max_new_tokens)


def test_the_prompt_may_be_a_list_or_a_tensor_with_or_without_a_batch_dimension() -> None:
    model, ids = small_model(), some_ids(4)
    first, *others = [list(generate(model, prompt)) for prompt in (ids.tolist(), ids, ids.view(1, -1), ids.int())]
    assert others == [first] * 3


@pytest.mark.parametrize(
    "settings_",
    [
        {"temperature": 1e-6},
        {"temperature": 1e-60},
        {"temperature": 1.0, "top_k": 1},
        {"temperature": 1.0, "top_p": 0.0},
    ],
)
def test_limits_that_leave_one_token_are_greedy(settings_: dict[str, object]) -> None:
    model, ids = small_model(), some_ids(4)
    sampling = SamplingConfig.model_validate({"max_new_tokens": 20, "seed": 1, **settings_})
    assert list(generate(model, ids, sampling)) == list(generate(model, ids, SamplingConfig(max_new_tokens=20)))


@pytest.mark.parametrize("settings_", [{"top_k": 5}, {"top_k": 10**6}, {"top_p": 1.0}, {"repetition_penalty": 1.0}])
def test_limits_that_leave_every_token_change_nothing(settings_: dict[str, object]) -> None:
    assert sorted(sample(LOGITS, **settings_)) == pytest.approx(sorted(sample(LOGITS)), abs=1)
    assert set(sample(LOGITS, **settings_)) == {0, 1, 2, 3, 4}


def test_drawn_frequencies_follow_the_probabilities() -> None:
    drawn = sample(LOGITS, n=4000)
    for token, chance in enumerate(LOGITS.exp().tolist()):
        assert drawn.count(token) / 4000 == pytest.approx(chance, abs=0.03)


def test_temperature_sharpens_and_flattens() -> None:
    shares = [sample(LOGITS, temperature=t).count(0) / 400 for t in (0.3, 1.0, 5.0)]
    assert shares == sorted(shares, reverse=True)
    assert shares[0] > 0.75
    assert shares[2] < 0.35


def test_top_k_keeps_the_k_likeliest() -> None:
    assert set(sample(LOGITS, top_k=2)) == {0, 2}


@pytest.mark.parametrize(("p", "kept"), [(0.4, {0}), (0.5001, {0, 2}), (0.85, {0, 2, 1}), (0.95, {0, 2, 1, 3})])
def test_top_p_keeps_the_fewest_that_reach_p(p: float, kept: set[int]) -> None:
    assert set(sample(LOGITS, top_p=p)) == kept


def test_top_p_counts_within_what_top_k_leaves() -> None:
    assert set(sample(LOGITS, top_k=2, top_p=0.6)) == {0}  # 0.5 of 0.8 is 0.625


def test_one_possible_token_is_always_drawn() -> None:
    logits = torch.full((5,), -torch.inf)
    logits[3] = 2.0
    for settings_ in ({}, {"temperature": 0}, {"top_p": 0.5}, {"top_k": 3}, {"repetition_penalty": 2.0}):
        assert set(sample(logits, n=20, context=(3,), **settings_)) == {3}


def test_a_repetition_penalty_lowers_what_stands_in_the_text_whatever_its_sign() -> None:
    logits = torch.tensor([2.0, 1.5, -0.5, -0.6])
    assert set(sample(logits, n=3, context=(0, 0), temperature=0, repetition_penalty=1.5)) == {1}
    negative = torch.tensor([-9.0, -8.0, -0.5, -0.6])
    assert set(sample(negative, n=3, context=(2,), temperature=0, repetition_penalty=1.5)) == {3}


@settings(max_examples=60, deadline=None)
@given(
    logits=st.lists(st.floats(-1e4, 1e4, width=32), min_size=1, max_size=30),
    temperature=st.one_of(st.just(0.0), st.floats(1e-300, 100)),
    top_k=st.one_of(st.none(), st.integers(1, 40)),
    top_p=st.one_of(st.none(), st.floats(0, 1)),
    penalty=st.floats(0.01, 100),
)
def test_a_token_is_always_found(
    logits: list[float], temperature: float, top_k: int | None, top_p: float | None, penalty: float
) -> None:
    sampling = SamplingConfig(temperature=temperature, top_k=top_k, top_p=top_p, repetition_penalty=penalty)
    token = choose(torch.tensor(logits), [0], sampling, torch.Generator().manual_seed(1))
    assert 0 <= token.id < len(logits)
    assert 0 < token.chance <= 1 + 1e-9
    assert 1 <= token.drawn_from <= len(logits)


def test_a_seed_repeats_and_no_seed_does_not() -> None:
    model, ids = small_model(), some_ids(4)

    def draw(seed: int | None) -> list[int]:
        return list(generate(model, ids, SamplingConfig(max_new_tokens=30, temperature=1.0, seed=seed)))

    assert draw(7) == draw(7)
    assert len({tuple(tokens) for tokens in (draw(7), draw(8), draw(None), draw(None))}) == 4


def test_sampling_never_touches_the_global_random_stream_nor_the_models_mode() -> None:
    model = small_model(drop_rate=0.5).train()
    before = torch.get_rng_state()
    tokens = generate(model, some_ids(4), SamplingConfig(temperature=1.0))
    next(tokens)
    assert model.training  # half-way, and never asked for more
    list(tokens)
    assert model.training
    assert torch.equal(torch.get_rng_state(), before)


def test_dropout_is_off_while_sampling() -> None:
    model, ids = small_model(drop_rate=0.5), some_ids(4)
    expected = list(generate(model, ids))
    assert list(generate(model.train(), ids)) == expected


class _AlwaysEnds(GPTModel):
    """Writes one token more, then <|endoftext|> for ever."""

    def features(self, ids: Tensor, cache: object = None) -> Tensor:  # type: ignore[override]
        self.read = [*getattr(self, "read", []), *ids.flatten().tolist()]
        return torch.nn.functional.one_hot(torch.tensor([[len(self.read) > 2]]).long(), 2).float()


def ending_model() -> _AlwaysEnds:
    from gptlab.config import ModelConfig

    model = _AlwaysEnds(ModelConfig(emb_dim=2, n_heads=1, n_layers=1, context_length=8)).eval()
    torch.nn.init.zeros_(model.out_head.weight)
    with torch.no_grad():
        model.out_head.weight[17, 0] = model.out_head.weight[END_OF_TEXT_ID, 1] = 1.0
    return model


@pytest.mark.parametrize(("stop", "count"), [(True, 2), (False, 5)])
def test_the_end_of_text_ends_it_where_that_is_wanted(stop: bool, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gptlab.sampling.KVCache", lambda *_, **__: type("Cache", (), {"length": 0})())
    tokens = list(generate(ending_model(), [1, 2], SamplingConfig(max_new_tokens=5, stop_at_end=stop)))
    assert len(tokens) == count
    assert tokens[-1] == END_OF_TEXT_ID


def test_an_empty_prompt_starts_from_the_end_of_text() -> None:
    model = small_model(vocab_size=50257, emb_dim=6)
    empty = list(generate(model, [], SamplingConfig(max_new_tokens=4)))
    assert empty == list(generate(model, [END_OF_TEXT_ID], SamplingConfig(max_new_tokens=4)))
    assert empty == list(generate(model, torch.empty(1, 0, dtype=torch.long), SamplingConfig(max_new_tokens=4)))


@pytest.mark.parametrize(
    ("ids", "told"),
    [
        ([], "no <|endoftext|> to start from"),
        ([3, VOCABULARY], f"token id {VOCABULARY}, but the model's vocabulary ends at {VOCABULARY - 1}"),
        ([-1], "token id -1"),
        (torch.zeros(2, 3, dtype=torch.long), "shape [2, 3]"),
        (torch.zeros(3), "float32"),
    ],
)
def test_a_prompt_that_cannot_be_read_is_refused_at_once(ids: list[int], told: str) -> None:
    with pytest.raises(ValueError) as raised:
        generate(small_model(), ids)
    assert told in str(raised.value)


def test_no_new_tokens_means_none() -> None:
    assert list(generate(small_model(), [1], SamplingConfig(max_new_tokens=0))) == []


def test_each_token_comes_with_the_models_own_probabilities() -> None:
    model, ids = small_model(), some_ids(4)
    sampling = SamplingConfig(max_new_tokens=3, temperature=2.0, top_k=3, seed=1)
    text = ids.tolist()
    for token in generate_steps(model, ids, sampling):
        expected = model(torch.tensor([text]))[0, -1].softmax(-1)
        assert token.probability == pytest.approx(expected[token.id].item(), rel=1e-4)
        chances = [chance for _, chance in token.alternatives]
        assert len(chances) == 10
        assert chances == pytest.approx(expected.topk(10).values.tolist(), rel=1e-4)
        assert token.drawn_from == 3
        assert token.id in [likely for likely, _ in token.alternatives[:3]]
        text.append(token.id)


def test_a_watcher_is_told_of_each_token_before_it_is_yielded() -> None:
    seen: list[int] = []
    for token in generate(small_model(), [1], SamplingConfig(max_new_tokens=3), lambda step: seen.append(step.id)):
        assert seen[-1] == token
    assert len(seen) == 3


def test_logits_are_kept_on_request_and_tell_what_was_drawn_from() -> None:
    model, ids = small_model(), some_ids(20)
    sampling = SamplingConfig(max_new_tokens=4, temperature=0.9, min_p=0.2, repetition_penalty=1.3, seed=4)
    assert all(token.logits is None for token in generate_steps(model, ids, sampling))
    text = ids.tolist()
    for token in generate_steps(model, ids, sampling, keep_logits=True):
        assert token.logits is not None
        again = filtered_distribution(token.logits, text, sampling)
        assert float(again.after[token.id]) == token.chance
        assert again.n_kept == token.drawn_from
        torch.testing.assert_close(token.logits, model(torch.tensor([text[-16:]]))[0, -1], rtol=0, atol=1e-5)
        text.append(token.id)


def samples_of(n: int, **settings_: object) -> list[tuple[int, ...]]:
    sampling = SamplingConfig.model_validate({"max_new_tokens": 12, "temperature": 1.0, **settings_})
    columns = zip(*generate_samples(small_model(), some_ids(4), n, sampling), strict=True)
    return [tuple(token.id for token in column if token is not None) for column in columns]


def test_samples_of_one_seed_differ_and_each_is_that_of_its_own_seed() -> None:
    together = samples_of(4, seed=9)
    assert len(set(together)) == 4
    for number, sample_ in enumerate(together):
        alone = generate(small_model(), some_ids(4), SamplingConfig(max_new_tokens=12, temperature=1, seed=9 + number))
        assert list(sample_) == list(alone)
    assert samples_of(3, seed=9) == together[:3]


def test_samples_without_a_seed_are_new_each_time_and_greedy_ones_all_the_same() -> None:
    assert len({*samples_of(3), *samples_of(3)}) == 6
    assert len(set(samples_of(3, temperature=0.0))) == 1


def test_the_largest_seed_has_samples_too() -> None:
    assert len(set(samples_of(2, seed=2**63 - 1))) == 2


@pytest.mark.parametrize("n", [0, 65])
def test_too_many_or_no_samples_are_refused_with_the_bounds(n: int) -> None:
    with pytest.raises(ValueError, match=f"{n} samples were asked for: ask for 1 to 64"):
        generate_samples(small_model(), [1], n)


def test_each_prompt_needs_a_seed_where_seeds_are_given() -> None:
    with pytest.raises(ValueError, match="1 seeds for 2 prompts"):
        generate_batch(small_model(), [[1], [2]], seeds=[3])


@pytest.mark.parametrize("controls", [{}, {"top_k": 20}, {"top_p": 0.9}, {"min_p": 0.01}])
def test_a_draw_does_not_depend_on_the_rank_of_tokens_that_nearly_tie(controls: dict) -> None:
    logits = torch.randn(300, generator=torch.Generator().manual_seed(1))
    logits[100:104] = logits.max() + torch.tensor([4e-6, 3e-6, 2e-6, 1e-6])  # their ranks turn round below
    turned = logits.clone()
    turned[100:104] = logits[100:104].flip(0)
    for seed in range(200):
        sampling = SamplingConfig(temperature=1.0, **controls)
        drawn = [choose(x, [], sampling, torch.Generator().manual_seed(seed)).id for x in (logits, turned)]
        assert drawn[0] == drawn[1]
