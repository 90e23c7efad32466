"""Columns of a log's rows: they grow, stay what they were when handed out, and follow a resume."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gptlab.columns import Columns
from gptlab.events import Resumed, Stepped, encode
from gptlab.log import STEP_COLUMNS, RunLog
from gptlab.metrics import Extent, positions, step_positions


@dataclass
class Row:
    a: float
    b: int


def test_columns_grow_and_what_was_handed_out_stays() -> None:
    columns = Columns(("a", "b"))
    early = columns["a"]
    assert early.tolist() == []
    for n in range(200):
        columns.append(Row(n / 2, n))
        if n == 9:
            early = columns["a"]
    assert len(columns) == 200
    assert early.tolist() == [n / 2 for n in range(10)]
    assert columns["b"].tolist() == list(range(200))


def test_a_logs_columns_are_those_of_its_steps_also_after_a_resume(tmp_path: Path) -> None:
    def step(n: int, loss: float) -> Stepped:
        return Stepped(step=n, epoch=1, tokens_seen=8 * (n + 1), loss=loss, learning_rate=0.1)

    events = [*(step(n, n) for n in range(90)), Resumed(step=50, device="cpu", threads=1), step(50, 7.5)]
    path = tmp_path / "events.jsonl"
    path.write_text("".join(encode(event) + "\n" for event in events))
    log = RunLog(path)
    log.refresh()
    assert len(log.columns) == len(log.steps) == 51
    for name in STEP_COLUMNS:
        np.testing.assert_array_equal(log.columns[name], [getattr(row, name) for row in log.steps])
    assert np.isnan(log.columns["grad_norm"]).all()
    extent = Extent(steps_per_epoch=10, flops_per_token=3)
    for axis in ("epoch", "step", "tokens", "flops", "time"):
        expected = positions(log.steps, axis, extent, {})
        np.testing.assert_array_equal(step_positions(log, axis, extent, {}), expected)
