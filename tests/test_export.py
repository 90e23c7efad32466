from __future__ import annotations

import csv
import io

from hypothesis import given
from hypothesis import strategies as st

from gptlab.events import NAN, Evaluated, Event, Phase, Stepped
from gptlab.export import METRIC_COLUMNS, metric_rows, metrics_csv


def stepped(step: int, loss: float = 5.0) -> Stepped:
    return Stepped(step=step, time=100.0 + step, epoch=1, tokens_seen=8 * (step + 1), loss=loss, learning_rate=0.1)


def read(events: list[Event]) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO("".join(metrics_csv(events)))))


def test_an_evaluation_stands_in_the_row_of_its_step() -> None:
    rows = read(
        [
            Phase(step=0, phase="training"),
            stepped(0),
            Evaluated(step=0, time=200.0, epoch=1, tokens_seen=8, train_loss=4.5, val_loss=4.75),
            stepped(1, 4.25),
        ]
    )
    assert [row["step"] for row in rows] == ["0", "1"]
    assert (rows[0]["loss"], rows[0]["train_loss"], rows[0]["val_loss"], rows[0]["time"]) == (
        "5.0",
        "4.5",
        "4.75",
        "100.0",
    )
    assert (rows[1]["loss"], rows[1]["train_loss"], rows[1]["val_loss"]) == ("4.25", "", "")


def test_numbers_that_are_not_finite_are_empty() -> None:
    row = read([stepped(0, NAN), Evaluated(step=0, epoch=1, tokens_seen=8, train_loss=1.0, val_loss=float("inf"))])[0]
    assert (row["loss"], row["grad_norm"], row["val_loss"], row["train_loss"]) == ("", "", "", "1.0")


def test_an_evaluation_without_its_step_is_a_row_of_its_own_in_the_order_of_steps() -> None:
    rows = metric_rows([stepped(3), Evaluated(step=1, epoch=1, tokens_seen=16, train_loss=2.0, val_loss=3.0)])
    assert [(row["step"], row["loss"], row["val_loss"]) for row in rows] == [(1, None, 3.0), (3, 5.0, None)]


def test_a_run_without_steps_has_the_header_only() -> None:
    assert "".join(metrics_csv([])) == ",".join(METRIC_COLUMNS) + "\n"


@given(st.lists(st.integers(0, 50), unique=True), st.sets(st.integers(0, 50)))
def test_there_is_one_row_for_each_step_that_was_made_or_evaluated(made: list[int], evaluated: set[int]) -> None:
    events: list[Event] = [stepped(step) for step in sorted(made)]
    events += [Evaluated(step=step, epoch=1, tokens_seen=1, val_loss=1.5) for step in evaluated]
    rows = read(events)
    assert [int(row["step"]) for row in rows] == sorted({*made, *evaluated})
    assert {int(row["step"]) for row in rows if row["val_loss"]} == evaluated
