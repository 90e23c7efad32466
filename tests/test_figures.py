"""Rows -> figures: what is drawn, that it can be updated in place, and that long runs stay light."""

from __future__ import annotations

import itertools
import json
import math
import random
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from gptlab.events import Evaluated, Phase, Resumed, Started, Stepped, encode
from gptlab.figures import MOST_ROWS, comparison_figure, evaluation_table, training_figure
from gptlab.log import RunLog
from gptlab.metrics import Extent, extent_of, positions, seconds_per_step, smooth, step_positions, thin, thin_steps
from gptlab.step_rows import StepRows
from tests.fake_run import events

SIZES = {"vocab_size": 50257}


def log_of(path, rows) -> RunLog:
    path.write_text("".join(encode(row) + "\n" for row in rows), encoding="utf-8")
    log = RunLog(path)
    log.refresh()
    return log


@pytest.fixture
def log(tmp_path) -> RunLog:
    return log_of(tmp_path / "events.jsonl", events(10, 9))


def trace(figure, name):
    return next(item for item in figure["data"] if item["name"] == name)


def test_the_evaluations_stand_at_their_fractional_epochs(log) -> None:
    figure = training_figure(log, extent_of(log, 10), **SIZES)
    drawn = trace(figure, "validation")
    assert drawn["x"] == pytest.approx([(row.step + 1) / 9 for row in log.evaluations], rel=1e-5)
    assert drawn["y"] == pytest.approx([row.val_loss for row in log.evaluations], rel=1e-5)
    assert len(drawn["x"]) == 18


def test_every_step_is_drawn_with_loss_rate_and_norm_in_their_own_panels(log) -> None:
    figure = training_figure(log, extent_of(log, 10), **SIZES)
    panels = {name: trace(figure, name)["yaxis"] for name in ("train, each step", "learning rate", "gradient norm")}
    assert panels == {"train, each step": "y", "learning rate": "y2", "gradient norm": "y3"}
    assert all(len(trace(figure, name)["x"]) == 90 for name in panels)


def test_the_best_validation_is_marked_and_the_gap_after_it_is_shaded(log) -> None:
    figure = training_figure(log, extent_of(log, 10), **SIZES)
    best = min(log.evaluations, key=lambda row: row.val_loss)
    marked, gap = trace(figure, "best validation"), trace(figure, "overfitting gap")
    assert marked["y"] == pytest.approx([best.val_loss], rel=1e-5)
    assert marked["text"] == [f"best {best.val_loss:.3f}"]
    assert gap["fill"] == "tonexty"
    assert gap["x"][0] == marked["x"][0]
    assert len(gap["x"]) == sum(row.step >= best.step for row in log.evaluations) > 1


def test_no_gap_is_shaded_while_the_last_evaluation_is_the_best(tmp_path) -> None:
    log = log_of(tmp_path / "log", events(10, 9, until=20))
    figure = training_figure(log, extent_of(log, 10), **SIZES)
    assert trace(figure, "overfitting gap")["x"] == []
    assert len(trace(figure, "best validation")["x"]) == 1


def test_uniform_guessing_is_the_logarithm_of_the_vocabulary(log) -> None:
    figure = training_figure(log, extent_of(log, 10), vocab_size=100)
    assert trace(figure, "uniform guessing")["y"] == pytest.approx([math.log(100)] * 2, rel=1e-5)


def test_the_traces_and_their_order_never_change_so_that_a_chart_can_be_updated(log) -> None:
    empty = training_figure(None, Extent(), **SIZES)
    smoothed = training_figure(log, extent_of(log, 10), **SIZES, smoothing=0.9)
    assert [item["uid"] for item in empty["data"]] == [item["uid"] for item in smoothed["data"]]


def test_zoom_is_kept_for_new_points_and_dropped_for_another_axis_or_run(log) -> None:
    extent = extent_of(log, 10)
    kept = [training_figure(log, extent, **SIZES, revision="a")["layout"]["uirevision"] for _ in range(2)]
    others = {
        training_figure(log, extent, **SIZES, revision=run, axis=axis)["layout"]["uirevision"]
        for run, axis in (("a", "step"), ("b", "epoch"))
    }
    assert len(set(kept)) == 1
    assert others.isdisjoint(kept)
    assert len(others) == 2


@pytest.mark.parametrize(
    ("axis", "last", "top"), [("epoch", 10.0, 9 * 512), ("step", 90.0, 512), ("tokens", 46_080.0, 1 / (9 * 512))]
)
def test_the_x_axis_can_count_epochs_steps_or_tokens_with_the_other_on_top(log, axis, last, top) -> None:
    figure = training_figure(log, extent_of(log, 10), **SIZES, axis=axis)
    assert trace(figure, "train, each step")["x"][-1] == pytest.approx(last)
    assert figure["layout"]["xaxis2"]["factor"] == pytest.approx(top)
    assert figure["layout"]["xaxis"]["range"][1] >= last


def test_logarithmic_axes_are_real_ones(log) -> None:
    layout = training_figure(log, extent_of(log, 10), **SIZES, log_x=True, log_y=True)["layout"]
    assert (layout["xaxis"]["type"], layout["xaxis2"]["type"], layout["yaxis"]["type"]) == ("log", "log", "log")
    assert layout["yaxis2"].get("type", "linear") == "linear"


def test_a_loss_that_is_no_number_becomes_a_gap_and_valid_json(tmp_path) -> None:
    rows = [Stepped(step=0, epoch=1, tokens_seen=8), Evaluated(step=0, epoch=1, tokens_seen=8)]
    log = log_of(tmp_path / "log", rows)
    figure = training_figure(log, Extent(10, 5, 8), **SIZES)
    json.dumps(figure, allow_nan=False)
    assert trace(figure, "train, each step")["y"] == [None]
    assert trace(figure, "best validation")["x"] == []


@pytest.mark.parametrize("loss", [1e-310, 1e-30, 3.123456789, 1e30])
def test_a_loss_of_any_size_is_drawn_with_the_digits_that_a_screen_shows(tmp_path: Path, loss: float) -> None:
    rows = [Evaluated(step=0, epoch=1, tokens_seen=8, train_loss=loss, val_loss=loss)]
    figure = training_figure(log_of(tmp_path / "log", rows), Extent(10, 5, 8), **SIZES)
    (drawn,) = trace(figure, "train, evaluated")["y"]
    assert drawn == pytest.approx(loss, rel=1e-6, abs=1e-20)
    assert len(str(drawn)) < 12
    json.dumps(figure, allow_nan=False)


def thinned(values: list[float]) -> tuple[list[int], list[float]]:
    return thin(lambda first, end: np.array(values[first:end]), len(values))


def test_a_long_run_is_thinned_to_a_thousand_points_that_keep_its_spikes() -> None:
    noise = random.Random(1)
    ys = [noise.random() for _ in range(50_000)]
    ys[31_337], ys[40_000] = 99.0, -99.0
    xs, kept = thinned(ys)
    assert len(kept) <= 1000
    assert (31_337, 99.0) in zip(xs, kept, strict=True)
    assert (40_000, -99.0) in zip(xs, kept, strict=True)
    assert xs == sorted(xs)
    assert (xs[0], xs[-1]) == (0, 49_999)


def test_a_short_run_is_not_thinned() -> None:
    assert thinned([3.0, math.nan])[0] == [0, 1]


def test_thinning_looks_past_values_that_are_no_numbers() -> None:
    ys = [math.nan] * 10_000
    ys[5_000] = 7.0
    assert 7.0 in thinned(ys)[1]


@pytest.mark.parametrize("n", [999, 1001, 1500, 8192, 9001, 30_011])
def test_each_stretch_of_a_thinned_line_keeps_its_lowest_and_its_highest(n: int) -> None:
    noise = random.Random(n)
    ys = [noise.choice([math.nan, math.inf, *[noise.randrange(40)] * 8]) for _ in range(n)]
    xs, kept = thinned(ys)
    expected = {0, n - 1}
    for k in range(499):
        stretch = range(k * n // 499, (k + 1) * n // 499)
        numbers = [place for place in stretch if math.isfinite(ys[place])]
        expected |= {min(numbers, key=ys.__getitem__), max(numbers, key=ys.__getitem__)} if numbers else {stretch[0]}
    places = sorted(expected) if n > 1000 else list(range(n))
    assert xs == places
    np.testing.assert_array_equal(kept, [ys[place] for place in places])


@pytest.mark.parametrize("smoothing", [0.0, 0.9])
def test_steps_are_thinned_as_the_whole_line_would_be(smoothing: float) -> None:
    steps, noise = StepRows(), random.Random(1)
    losses = [noise.random() for _ in range(20_000)]
    for place, loss in enumerate(losses):
        steps.append(Stepped(step=place, epoch=1, tokens_seen=8 * place, loss=loss), place / 2)
    places, kept = thinned(smooth(losses, smoothing) if smoothing else losses)
    drawn = thin_steps(steps, "loss", "time", Extent(), smoothing=smoothing)
    assert drawn == ([place / 2 for place in places], kept)


def test_an_evaluation_of_a_thinned_line_stands_where_it_was_made() -> None:
    log = RunLog(Path())
    for place in range(3000):
        loss = 9.0 if place == 2345 else 1.0
        log.evaluations.append(Evaluated(step=5 * place, epoch=1, tokens_seen=8, train_loss=loss, val_loss=10 - loss))
    figure = training_figure(log, Extent(15_000, 10, 8), axis="step", **SIZES)
    for name, extreme in (("train, evaluated", max), ("validation", min)):
        drawn = trace(figure, name)
        assert len(drawn["x"]) <= 1000
        assert drawn["x"][drawn["y"].index(extreme(drawn["y"]))] == 5 * 2345 + 1


def test_drawing_a_long_run_takes_no_more_memory_than_a_short_one() -> None:
    peaks = []
    for n in (20_000, 100_000):
        log = RunLog(Path())
        for place in range(n):
            log.steps.append(Stepped(step=place, epoch=1, tokens_seen=8, loss=place % 7, grad_norm=1.0), 1.0)
            if place % 20 == 0:
                log.evaluations.append(Evaluated(step=place, epoch=1, tokens_seen=8, train_loss=1.0, val_loss=place))
        training_figure(log, Extent(n, 10, 8), smoothing=0.5, **SIZES)
        tracemalloc.start()
        try:
            training_figure(log, Extent(n, 10, 8), smoothing=0.5, **SIZES)
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0]


def test_smoothing_is_debiased_and_passes_over_gaps() -> None:
    assert smooth([5.0, 5.0, 5.0], 0.9) == pytest.approx([5.0, 5.0, 5.0])
    assert smooth([4.0, math.nan, 4.0], 0.5) == pytest.approx([4.0, 4.0, 4.0])
    assert smooth([0.0, 10.0], 0.5)[1] == pytest.approx(10 * 0.5 / 0.75)


def test_training_time_leaves_out_pauses_and_absences(tmp_path) -> None:
    def step(at: int, time: float) -> Stepped:
        return Stepped(step=at, epoch=1, tokens_seen=0, time=time)

    started = Started(time=0.0, device="cpu", n_parameters=1, total_steps=9, threads=1)
    first, second, third, fourth = step(0, 1.0), step(1, 2.0), step(2, 103.0), step(3, 1004.0)
    evaluated = Evaluated(step=2, epoch=1, tokens_seen=0, time=103.5)
    rows = [
        started,
        first,
        second,
        Phase(time=2.0, phase="paused"),
        Phase(time=102.0, phase="training"),
        third,
        evaluated,
        Resumed(time=1003.0, step=3),
        fourth,
    ]
    log = log_of(tmp_path / "log", rows)
    assert step_positions(log.steps, "time", Extent(), range(4)).tolist() == pytest.approx([1.0, 2.0, 3.0, 4.5])
    assert positions(log, "time", Extent()) == pytest.approx([3.5])


def test_the_pace_is_that_of_the_last_steps(log) -> None:
    assert seconds_per_step(log) == pytest.approx(0.5)


def test_the_pace_is_that_of_the_worker_that_trains_now(tmp_path) -> None:
    def step(at: int, time: float) -> Stepped:
        return Stepped(step=at, epoch=1, tokens_seen=0, time=time)

    started = Started(time=0.0, device="cpu", n_parameters=1, total_steps=9, threads=1)
    rows = [started, step(0, 1.0), step(1, 2.0), Resumed(time=50.0, step=2), step(2, 60.0), step(3, 70.0)]
    assert seconds_per_step(log_of(tmp_path / "log", rows)) == pytest.approx(10.0)


def test_there_is_no_pace_before_the_second_step(tmp_path) -> None:
    assert math.isnan(seconds_per_step(log_of(tmp_path / "log", events(10, 9, until=1))))


def test_an_old_log_without_steps_per_epoch_still_gets_its_epochs(tmp_path) -> None:
    rows = [row for row in events(10, 9, until=20) if isinstance(row, Stepped)]
    log = log_of(tmp_path / "log", rows)
    assert step_positions(log.steps, "epoch", extent_of(log, 10, max_steps=50), [8]) == pytest.approx(1.0)


def test_the_table_says_in_text_what_the_chart_shows(log) -> None:
    table = evaluation_table(log, extent_of(log, 10))
    assert len(table["rows"]) == len(log.evaluations)
    assert table["rows"][-1][:3] == ["9.56", "85", "44,032"]
    assert table["rows"][-1][4] == f"{log.evaluations[-1].val_loss:.4f}"


def test_the_table_of_a_long_run_is_spread_over_it_and_holds_its_best_and_its_last(tmp_path: Path) -> None:
    rows = [
        Evaluated(step=step, epoch=1, tokens_seen=step, train_loss=1.0, val_loss=0.5 if step == 777 else 2.0)
        for step in range(5_000)
    ]
    table = evaluation_table(log_of(tmp_path / "log", rows), Extent())
    steps = [int(row[1].replace(",", "")) for row in table["rows"]]
    assert len(steps) <= MOST_ROWS + 1
    assert {777, 4_999} <= set(steps)
    assert steps == sorted(steps)
    assert max(b - a for a, b in itertools.pairwise(steps)) <= 25


def test_runs_that_are_compared_differ_in_more_than_colour_and_their_names_stay_text(log) -> None:
    extent = extent_of(log, 10)
    figure = comparison_figure([("<b>a</b>", log, extent), ("b", log, extent)])
    first, second = (trace(figure, f"{name} · validation") for name in ("<b>a</b>", "b"))
    assert first["line"]["dash"] != second["line"]["dash"]
    assert first["marker"]["symbol"] != second["marker"]["symbol"]
    assert "<b>" not in first["hovertemplate"]
