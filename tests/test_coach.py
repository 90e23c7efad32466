"""The coach's reading: sentences that follow the numbers, in every state that a run can be in."""

from __future__ import annotations

import math

import numpy as np
import pytest

from gptlab.coach import (
    TextFacts,
    bits_per_character,
    measures,
    perplexity,
    read_curves,
    spread_of,
    text_facts,
    unigram_entropy,
)
from gptlab.config import PRESETS, RunConfig
from gptlab.corpus import open_corpus
from gptlab.events import Evaluated
from gptlab.published import EVALUATIONS

NAN = math.nan
FACTS = TextFacts(train_tokens=4612, val_tokens=534, train_characters=18_431, val_characters=2_048, unigram_entropy=5.9)


def rows(val: list[float], train: list[float] | None = None, every: int = 5) -> list[Evaluated]:
    train = train or [9.0 - place for place in range(len(val))]
    return [
        Evaluated(step=place * every, epoch=place + 1, tokens_seen=0, train_loss=loss, val_loss=val[place])
        for place, loss in enumerate(train)
    ]


def published() -> list[Evaluated]:
    return [
        Evaluated(step=row.step, epoch=row.epoch, tokens_seen=0, train_loss=row.train, val_loss=row.val)
        for row in EVALUATIONS
    ]


def test_the_published_run_is_memorising_from_step_50_on() -> None:
    reading = read_curves(published(), RunConfig(), FACTS)
    assert reading.state == "memorising"
    assert reading.headline == (
        "Validation loss was lowest, 6.123, after 51 steps, in epoch 6; since then training loss fell by 2.39 while "
        "validation rose by 0.25: the model is memorising."
    )
    assert "Go back to best, after 51 steps, in epoch 6" in reading.advice
    assert (reading.train_change, reading.val_change) == (pytest.approx(-2.391), pytest.approx(0.25))


@pytest.mark.parametrize("live", [True, False])
def test_a_run_whose_last_evaluation_is_its_best_has_not_finished_learning(live: bool) -> None:
    reading = read_curves(published()[:9], RunConfig(), FACTS, live=live)
    assert reading.state == "improving"
    assert ("still learns" in reading.headline) == live
    assert ("had not finished learning" in reading.headline) != live


def test_a_rise_within_the_scatter_is_not_called_memorising() -> None:
    reading = read_curves(rows([7.0, 6.8, 6.9, 6.7, 6.85, 6.66, 6.8, 6.7]), None, None)
    assert reading.state == "level"
    assert "levelled off" in reading.headline


def test_a_rise_without_a_fall_of_the_training_loss_is_not_called_memorising() -> None:
    diverged = rows([7.0, 6.0, 6.5, 7.0, 7.5], [7.0, 6.0, 6.5, 7.0, 7.5])
    reading = read_curves(diverged, None, None)
    assert reading.state == "level"
    assert "training loss rose by 1.50 while validation rose by 1.50" in reading.headline


def test_one_evaluation_is_too_few_to_read() -> None:
    reading = read_curves(rows([10.9]), RunConfig(), FACTS)
    assert reading.state == "improving"
    assert "a second evaluation will tell more" in reading.headline
    assert any("too few evaluations" in remark for remark in reading.remarks)


@pytest.mark.parametrize(("live", "told"), [(True, "comes after the first step"), (False, "nothing to read")])
def test_a_run_without_an_evaluation_says_so(live: bool, told: str) -> None:
    reading = read_curves([], RunConfig(), FACTS, live=live)
    assert reading.state == "waiting"
    assert told in reading.headline


def test_a_run_without_a_validation_window_cannot_be_judged_and_the_remedy_is_named() -> None:
    reading = read_curves(rows([NAN, NAN], [9.0, 8.0]), RunConfig(), FACTS)
    assert reading.state == "blind"
    assert "training loss is 8.000" in reading.headline
    assert "train_ratio" in reading.advice
    assert reading.best is None


def test_a_missing_validation_loss_in_between_is_passed_over() -> None:
    reading = read_curves(rows([7.0, 6.0, NAN, 6.2, 6.5]), None, None)
    assert reading.best is not None
    assert reading.best.step == 5
    assert reading.val_change == pytest.approx(0.5)


def test_two_validation_windows_are_called_too_small_to_trust_and_many_are_not() -> None:
    few = read_curves(published(), RunConfig(), FACTS).remarks
    assert any("only 2 windows of 256 tokens, too small to trust" in remark for remark in few)
    many = read_curves(published(), PRESETS["tiny"], FACTS).remarks
    assert any("mean over 8 windows of 64 tokens" in remark for remark in many)


def test_the_spread_ignores_a_steady_trend_and_sees_scatter() -> None:
    assert spread_of([9.0, 8.0, 7.0, 6.0, 5.0]) == pytest.approx(0)
    assert spread_of([6.0, 6.2, 6.0, 6.2, 6.0]) == pytest.approx(0.1633, abs=1e-3)
    assert math.isnan(spread_of([6.0, 6.1, 6.0]))


def test_entropy_of_token_frequencies() -> None:
    assert unigram_entropy(np.array([5] * 10)) == pytest.approx(0)
    assert unigram_entropy(np.arange(8)) == pytest.approx(math.log(8))
    assert unigram_entropy(np.array([1, 1, 1, 7])) == pytest.approx(0.5623351)
    assert math.isnan(unigram_entropy(np.array([], dtype=np.int32)))


def test_units_of_a_loss() -> None:
    assert perplexity(math.log(50_257)) == pytest.approx(50_257)
    assert perplexity(1e6) == math.inf
    assert bits_per_character(2 * math.log(2), characters=400, tokens=100) == pytest.approx(0.5)
    assert math.isnan(bits_per_character(1.0, 0, 0))


def test_measures_hold_the_losses_against_guessing_and_counting() -> None:
    found = {measure.name: measure for measure in measures(published(), 50_257, FACTS)}
    assert found["Uniform guessing, ln 50,257"].nats == pytest.approx(10.8249, abs=1e-4)
    assert found["Token frequencies alone"].perplexity == pytest.approx(math.exp(5.9))
    best = found["Validation, best (after 51 steps, in epoch 6)"]
    assert best.bits_per_character == pytest.approx(6.123 / math.log(2) / (2048 / 534))
    assert found["Training, last"].nats == 0.569


def test_measures_without_the_text_keep_what_needs_none() -> None:
    found = measures(published(), 50_257, None)
    assert [math.isfinite(measure.nats) for measure in found] == [True] * 4
    assert all(math.isnan(measure.bits_per_character) for measure in found)


def test_facts_of_the_built_in_story_add_up() -> None:
    corpus = open_corpus("builtin")
    facts = text_facts(corpus, 0.9)
    train, val = corpus.split_ids(0.9)
    assert (facts.train_tokens, facts.val_tokens) == (len(train), len(val))
    assert facts.train_characters + facts.val_characters == len(corpus.text)
    assert 3 < facts.unigram_entropy < math.log(len(set(train.tolist()) | set(val.tolist())))
