"""The steps of a log are kept as numbers: rows come back as they were, and what was handed out stays."""

from __future__ import annotations

import math
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from gptlab.events import Phase, Resumed, Started, Stepped, encode
from gptlab.log import RunLog
from gptlab.metrics import Extent, step_positions
from gptlab.step_rows import SECONDS, StepRows


def step(n: int, loss: float = 1.0, **more: float) -> Stepped:
    return Stepped(step=n, time=100.0 + n, epoch=1 + n // 9, tokens_seen=8 * (n + 1), loss=loss, **more)


def rows_of(n: int) -> StepRows:
    rows = StepRows()
    for place in range(n):
        rows.append(step(place, loss=place / 2), 3.0 * place)
    return rows


def test_rows_come_back_as_they_were() -> None:
    rows = StepRows()
    given = [step(0, 2.5, learning_rate=4e-4, grad_norm=0.1, tokens_per_second=7.0), step(2**40, 1 / 3, grad_norm=1e-9)]
    for row in given:
        rows.append(row, 1.0)
    assert encode(rows[0]) == encode(given[0])
    assert [encode(row) for row in rows] == [encode(row) for row in given]  # NaN, too
    assert type(rows[1].step) is int
    assert [row.step for row in rows[-1:]] == [rows[-1].step] == [2**40]
    assert rows[5:] == []
    with pytest.raises(IndexError):
        rows[2]
    assert math.isnan(rows[1].learning_rate)


def test_columns_grow_and_what_was_handed_out_stays() -> None:
    rows = rows_of(10)
    early = rows.column("loss")
    for n in range(10, 200):
        rows.append(step(n, loss=n / 2), 3.0 * n)
    assert len(rows) == 200
    assert early.tolist() == [n / 2 for n in range(10)]
    assert rows.column("step").tolist() == list(range(200))
    assert rows.column(SECONDS).tolist() == [3.0 * n for n in range(200)]
    assert rows.column("step", 150, 153).tolist() == rows.pick("step", [150, 151, 152]).tolist() == [150, 151, 152]
    assert rows.column("step", 198).tolist() == [198, 199]
    assert StepRows().column("step").tolist() == StepRows().pick("step", []).tolist() == []


def test_rows_of_one_moment_stay_as_many_and_are_not_copied() -> None:
    rows = rows_of(3)
    now = rows.now()
    rows.append(step(3, 9.0), 9.0)
    assert now._columns is rows._columns
    assert [row.step for row in now] == now.column("step").tolist() == [0, 1, 2]
    assert (now[-1].step, now.find(3), now.count_until(99), len(now.now())) == (2, None, 3, 3)
    assert now.before(9)[1] == [0, 1, 2, 3]
    with pytest.raises(TypeError, match="do not grow"):
        now.append(step(3, 9.0), 9.0)


def test_a_row_is_found_by_its_step() -> None:
    rows = rows_of(3)
    rows.append(step(7, 0.25), 1.0)
    assert [row and row.loss for row in map(rows.find, (-1, 0, 2, 3, 7, 8))] == [None, 0.0, 1.0, None, 0.25, None]
    assert StepRows().find(0) is None


def test_a_row_that_is_just_being_appended_is_not_there_yet() -> None:
    rows = rows_of(3)
    rows._columns["step"].append(3)
    assert len(rows) == len(rows.column("step")) == len(list(rows)) == 3


def test_what_lies_before_a_step_is_apart_from_what_it_was_taken_from() -> None:
    rows = rows_of(5)
    before, counts = rows.before(3)
    assert counts == [0, 1, 2, 3, 3, 3]
    before.append(step(3, loss=9.0), 1.0)
    assert [row.loss for row in before] == [0.0, 0.5, 1.0, 9.0]
    assert [row.loss for row in rows] == [0.0, 0.5, 1.0, 1.5, 2.0]


def test_a_long_run_takes_a_tenth_of_what_its_rows_would() -> None:
    tracemalloc.start()
    try:
        kept = rows_of(5000)
        small, _ = tracemalloc.get_traced_memory()
        listed = list(kept)
        both, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(listed) == len(kept)
    assert small < (both - small) / 4
    assert small / 5000 < 100


def test_a_log_follows_a_resume(tmp_path: Path) -> None:
    start = Started(time=100.0, device="cpu", n_parameters=1, total_steps=99, threads=1)
    phase = Phase(time=150.0, step=49, phase="evaluating")
    events = [start, *(step(n, n) for n in range(50)), phase, *(step(n, n) for n in range(50, 90))]
    events.append(Phase(time=190.0, step=10, phase="saving"))  # after steps that will be void
    events += [Resumed(time=200.0, step=50, device="cpu", threads=1), step(50, 7.5)]
    path = tmp_path / "events.jsonl"
    path.write_text("".join(encode(event) + "\n" for event in events))
    log = RunLog(path)
    log.refresh()
    assert [row.loss for row in log.steps] == [*range(50), 7.5]
    assert log.steps_before_start == 50
    kept = log.events
    assert [type(event) for event in kept] == [Started, *[Stepped] * 50, Phase, Phase, Resumed, Stepped]
    assert [event.step for event in kept if isinstance(event, Stepped)] == [*range(51)]
    np.testing.assert_array_equal(step_positions(log.steps, "step", Extent(), range(51)), range(1, 52))
    np.testing.assert_array_equal(
        step_positions(log.steps, "epoch", Extent(steps_per_epoch=2), range(51)), np.arange(1, 52) / 2
    )
    np.testing.assert_array_equal(step_positions(log.steps, "tokens", Extent(), range(51)), 8 * np.arange(1, 52))
    np.testing.assert_array_equal(
        step_positions(log.steps, "flops", Extent(flops_per_token=3), range(51)), 24 * np.arange(1, 52)
    )
    assert np.isnan(step_positions(log.steps, "flops", Extent(), range(51))).all()
