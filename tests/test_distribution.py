"""What the decoding controls leave, against Hugging Face's processors and against exact probabilities."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from transformers.generation import logits_process as hf

from gptlab.config import SamplingConfig
from gptlab.distribution import entropy, filtered_distribution
from gptlab.sampling import choose

V = 300


def random_logits(seed: int, ties: bool = False) -> Tensor:
    logits = 3 * torch.randn(V, generator=torch.Generator().manual_seed(seed))
    return (logits * 2).round() / 2 if ties else logits


def distribution(logits: Tensor, context: tuple[int, ...] = (), **settings: object):  # type: ignore[no-untyped-def]
    return filtered_distribution(logits, context, SamplingConfig.model_validate({"temperature": 1.0, **settings}))


def hugging_face(logits: Tensor, context: tuple[int, ...], settings: dict[str, float]) -> Tensor:
    """Their processors in the order in which their ``generate`` applies them, in fp64 as ours."""
    makers: dict[str, Callable[[float], hf.LogitsProcessor]] = {
        "repetition_penalty": hf.RepetitionPenaltyLogitsProcessor,
        "temperature": hf.TemperatureLogitsWarper,
        "top_k": hf.TopKLogitsWarper,
        "top_p": hf.TopPLogitsWarper,
        "min_p": hf.MinPLogitsWarper,
    }
    processors = [make(settings[name]) for name, make in makers.items() if name in settings]
    ids = torch.tensor([context], dtype=torch.long)
    return hf.LogitsProcessorList(processors)(ids, logits.double()[None])[0].softmax(-1)


SETTINGS: list[dict[str, float]] = [
    {"temperature": 0.7},
    {"temperature": 30.0},
    {"temperature": 1e-6},
    {"top_k": 1},
    {"top_k": 17},
    {"top_k": V},
    {"top_k": V + 50},
    {"top_p": 0.0},
    {"top_p": 0.3},
    {"top_p": 0.95},
    {"top_p": 1.0},
    {"min_p": 0.0},
    {"min_p": 0.05},
    {"min_p": 1.0},
    {"repetition_penalty": 1.3},
    {"repetition_penalty": 0.5},
    {"temperature": 0.8, "top_k": 40, "top_p": 0.9, "min_p": 0.02, "repetition_penalty": 1.2},
    {"temperature": 1.6, "top_p": 0.8, "min_p": 0.1},
    {"temperature": 2.5, "top_k": 5, "top_p": 0.5},
]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_the_controls_leave_what_hugging_faces_processors_leave(settings: dict[str, float], seed: int) -> None:
    logits, context = random_logits(seed), (3, 3, 8, int(random_logits(seed).argmax()), 250)
    theirs = hugging_face(logits, context, settings)
    ours = distribution(logits, context, **settings)
    assert torch.equal(ours.after > 0, theirs > 0)
    torch.testing.assert_close(ours.after, theirs, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(ours.before, logits.softmax(-1))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("settings", [s for s in SETTINGS if "top_k" not in s and "top_p" not in s], ids=str)
def test_tied_tokens_share_one_fate_as_theirs_do(settings: dict[str, float], seed: int) -> None:
    logits = random_logits(seed, ties=True)
    theirs = hugging_face(logits, (3, 8, 250), settings)
    torch.testing.assert_close(distribution(logits, (3, 8, 250), **settings).after, theirs, rtol=1e-9, atol=1e-12)


def test_top_k_cuts_through_a_tie_to_keep_exactly_k_where_theirs_keeps_every_equal() -> None:
    logits = torch.tensor([5.0, 4.0, 4.0, 4.0, 1.0])
    assert int((hugging_face(logits, (), {"top_k": 2}) > 0).sum()) == 4
    ours = distribution(logits, top_k=2)
    assert ours.n_kept == 2
    assert 0 in ours.candidates.tolist()
    assert 4 not in ours.candidates.tolist()
    assert ours.remaining == (("top_k", 2),)


def test_top_p_keeps_as_many_of_a_tie_as_theirs_but_of_equals_the_lower_ids() -> None:
    logits = torch.zeros(10)
    theirs = hugging_face(logits, (), {"top_p": 0.35})
    ours = distribution(logits, top_p=0.35)
    assert ours.candidates.tolist() == [0, 1, 2, 3]
    assert ours.n_kept == int((theirs > 0).sum())
    assert distribution(logits, top_p=0.0).candidates.tolist() == [0]


@pytest.mark.parametrize("settings", [{}, *SETTINGS, {"temperature": 0.0}, {"temperature": 1e-60}], ids=str)
def test_one_possible_token_is_left_by_every_setting(settings: dict[str, float]) -> None:
    logits = torch.full((V,), -torch.inf)
    logits[7] = -2.0
    ours = distribution(logits, (7, 9), **settings)
    assert ours.after[7] == 1
    assert ours.after.sum() == 1
    assert ours.entropy_after == 0
    assert ours.n_kept == 1


@pytest.mark.parametrize("settings", [{"temperature": 0.0}, {"top_k": 1}, {"top_p": 0.0}, {"temperature": 1e-9}])
def test_settings_that_leave_one_token_leave_the_likeliest_after_the_penalty(settings: dict[str, float]) -> None:
    logits = torch.tensor([4.0, 3.9, 1.0])
    assert distribution(logits, (), **settings).after.tolist() == [1, 0, 0]
    assert distribution(logits, (0,), repetition_penalty=1.5, **settings).after.tolist() == [0, 1, 0]


def test_temperature_zero_takes_the_first_of_equals_and_says_that_one_is_left() -> None:
    ours = distribution(torch.tensor([1.0, 2.0, 2.0]), temperature=0.0, top_k=2)
    assert ours.candidates.tolist() == [1]
    assert ours.remaining == (("temperature", 1),)


def test_each_control_says_how_many_tokens_it_leaves() -> None:
    ours = distribution(random_logits(1), top_k=40, top_p=0.9, min_p=0.05)
    assert [name for name, _ in ours.remaining] == ["top_k", "top_p", "min_p"]
    counts = [count for _, count in ours.remaining]
    assert counts[0] == 40
    assert counts == sorted(counts, reverse=True)
    assert counts[-1] == ours.n_kept == len(ours.candidates)
    assert distribution(random_logits(1)).remaining == ()


def test_entropy_falls_with_every_token_cut_and_is_in_nats() -> None:
    even = torch.zeros(8)
    assert distribution(even).entropy_before == pytest.approx(math.log(8))
    assert distribution(even, top_k=4).entropy_after == pytest.approx(math.log(4))
    assert entropy(torch.tensor([1.0, 0.0])) == 0
    hot, cold = (distribution(random_logits(2), temperature=t).entropy_after for t in (2.0, 0.5))
    assert cold < distribution(random_logits(2)).entropy_before < hot


def test_the_bars_hold_the_models_likeliest_and_those_that_a_penalty_brings_forward() -> None:
    logits = torch.tensor([5.0, 4.0, 3.0, 2.0])
    bars = distribution(logits, (0, 1), repetition_penalty=10.0, top_k=2).likeliest(2)
    assert [bar.id for bar in bars] == [0, 1, 2, 3]
    assert [bar.after > 0 for bar in bars] == [False, False, True, True]
    assert sum(bar.before for bar in bars) == pytest.approx(1)
    assert [bar.id for bar in distribution(logits).likeliest(99)] == [0, 1, 2, 3]


@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf])
def test_logits_that_are_no_numbers_are_refused_in_a_sentence(broken: float) -> None:
    with pytest.raises(ValueError, match="training went astray; choose an earlier checkpoint"):
        distribution(torch.full((5,), broken))


def chi_square_p(observed: Tensor, expected: Tensor) -> float:
    """The chance of counts at least as far off as ``observed`` where ``expected`` (all at least 5) is true."""
    statistic = ((observed - expected) ** 2 / expected).sum()
    return float(torch.special.gammaincc(torch.tensor((len(expected) - 1) / 2).double(), statistic / 2))


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"temperature": 0.5},
        {"temperature": 2.0, "top_k": 8},
        {"top_p": 0.7},
        {"min_p": 0.2},
        {"temperature": 1.3, "top_k": 12, "top_p": 0.9, "min_p": 0.05, "repetition_penalty": 1.4},
    ],
    ids=str,
)
def test_twenty_thousand_draws_follow_the_exact_probabilities(settings: dict[str, float]) -> None:
    n, logits, context = 20_000, random_logits(9)[:24], (1, 5, 6)
    exact = hugging_face(logits, context, {"temperature": 1.0, **settings})
    sampling = SamplingConfig.model_validate({"temperature": 1.0, **settings})
    stream = torch.Generator().manual_seed(2)
    drawn = torch.tensor([choose(logits, context, sampling, stream).id for _ in range(n)])
    observed, expected = torch.bincount(drawn, minlength=24).double(), n * exact
    assert observed[exact == 0].sum() == 0
    often = expected >= 5
    rest = (exact > 0) & ~often
    if expected[rest].sum() >= 5:
        observed, expected = (torch.cat([x[often], x[rest].sum()[None]]) for x in (observed, expected))
    else:
        observed, expected = observed[often], expected[often]
    assert chi_square_p(observed, expected) > 0.001
    assert chi_square_p(observed, expected.flip(0)) < 1e-6  # the test can tell


@pytest.mark.parametrize("spread", [0.0, 0.3, 6.0], ids=["all equal", "flat", "peaked"])
@pytest.mark.parametrize("top_p", [0.05, 0.5, 0.9, 0.9999])
def test_top_p_of_a_large_vocabulary_keeps_what_sorting_all_of_it_keeps(spread: float, top_p: float) -> None:
    logits = (torch.randn(5000, generator=torch.Generator().manual_seed(1)) * spread).round(decimals=2)  # with ties
    chances, order = logits.double().softmax(-1).sort(descending=True, stable=True)
    kept = int((chances.cumsum(-1) - chances < top_p).sum())
    left = filtered_distribution(logits, [], SamplingConfig(temperature=1.0, top_p=top_p)).candidates
    assert left.tolist() == order[:kept].tolist()
