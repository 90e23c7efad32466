"""Events: the fixed names and fields, and a codec that no line can break."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gptlab.events import (
    KINDS,
    Ended,
    Evaluated,
    Event,
    Phase,
    Probed,
    Resumed,
    Sampled,
    Saved,
    Started,
    Stepped,
    Warned,
    decode,
    encode,
)

EXAMPLES: list[Event] = [
    Started(run="r", device="cpu", n_parameters=10, total_steps=90, threads=2),
    Phase(phase="training"),
    Stepped(step=3, epoch=1, tokens_seen=512, loss=9.5, learning_rate=4e-4, grad_norm=1.5, tokens_per_second=99.0),
    Evaluated(step=5, epoch=1, tokens_seen=3072, train_loss=8.066, val_loss=8.332),
    Sampled(step=8, epoch=1, prompt="a", token_ids=(64, 11), text="a,", probabilities=(None, 0.25)),
    Probed(step=8, epoch=1, part="training", start=0, losses="9.5000 nan", seconds=0.25, token_ids=(64, 11, 12)),
    Saved(step=8, checkpoint="step-000009", reason="epoch"),
    Resumed(step=9),
    Warned(step=9, message="careful"),
    Ended(step=89, reason="finished", message="done"),
]
FIXED = {
    "started": {"run", "device", "n_parameters", "total_steps", "threads"},
    "phase": {"phase"},
    "stepped": {"epoch", "tokens_seen", "loss", "learning_rate", "grad_norm", "tokens_per_second"},
    "evaluated": {"epoch", "tokens_seen", "train_loss", "val_loss"},
    "sampled": {"epoch", "prompt", "token_ids", "text", "probabilities"},
    "probed": {"epoch", "part", "start", "losses", "seconds", "token_ids"},
    "saved": {"checkpoint", "reason"},
    "resumed": set(),
    "warned": {"message"},
    "ended": {"reason", "message"},
}


def test_the_kinds_of_event_are_fixed() -> None:
    assert set(KINDS) == set(FIXED)


@pytest.mark.parametrize("event", EXAMPLES, ids=lambda event: type(event).__name__)
def test_a_line_holds_every_field_and_reads_back_the_same(event: Event) -> None:
    line = encode(event)
    row = json.loads(line)
    assert "\n" not in line
    assert {"event", "time", "step", *FIXED[row["event"]]} <= set(row)
    assert decode(line) == event


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_number_that_is_not_finite_is_written_as_null_and_read_as_nan(value: float) -> None:
    line = encode(Stepped(epoch=1, tokens_seen=2, loss=value))
    assert json.loads(line)["loss"] is None
    back = decode(line)
    assert isinstance(back, Stepped)
    assert math.isnan(back.loss)


def test_a_newer_log_with_more_fields_and_kinds_still_opens() -> None:
    assert decode('{"event": "phase", "step": 1, "time": 2.0, "phase": "saving", "mood": 3}') == Phase(
        step=1, time=2.0, phase="saving"
    )
    assert decode('{"event": "telepathy", "step": 1}') is None


@pytest.mark.parametrize(
    "line",
    [
        "",
        "{",
        "null",
        "[1]",
        '"phase"',
        '{"event": []}',
        '{"event": "stepped"}',
        '{"event": "phase", "phase": 3}',
        '{"event": "stepped", "epoch": 1, "tokens_seen": 1, "loss": "high"}',
        '{"event": "stepped", "epoch": true, "tokens_seen": 1}',
        '{"event": "stepped", "epoch": 1, "tokens_seen": 1, "loss": 1' + "0" * 400 + "}",
        '{"event": "sampled", "epoch": 1, "prompt": "", "token_ids": 7, "text": ""}',
        "[" * 100_000,
    ],
)
def test_a_line_that_makes_no_sense_is_none(line: str) -> None:
    assert decode(line) is None


@given(st.binary(max_size=200))
def test_no_bytes_break_the_decoder(raw: bytes) -> None:
    assert decode(raw) is None or isinstance(decode(raw), Event)


@given(
    text=st.text(),
    ids=st.lists(st.integers(0, 50256), max_size=20),
    chances=st.lists(st.none() | st.floats(0, 1), max_size=20),
)
def test_any_sample_survives_its_line(text: str, ids: list[int], chances: list[float | None]) -> None:
    event = Sampled(epoch=1, prompt=text, token_ids=tuple(ids), text=text, probabilities=tuple(chances))
    assert decode(encode(event).encode("utf-8", "surrogatepass")) == event
