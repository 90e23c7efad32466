"""The benchmarks measure the same thing on both sides, and say it in a table. Nothing is timed here."""

from __future__ import annotations

import itertools
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from bench import gpu, plain, tasks, timing
from bench.dashboard import live_run
from bench.report import Row, table, write
from bench.timing import Times, in_turns, interleaved, ratio
from gptlab.config import ModelConfig, SamplingConfig
from gptlab.loss import calc_loss_batch
from gptlab.model import GPTModel
from gptlab.runs import RunStore
from gptlab.sampling import generate
from tests.small_models import some_ids, straightforward_twin

SHAPE = plain.Shape(vocab_size=61, context_length=16, emb_dim=24, n_heads=3, n_layers=2, drop_rate=0.0, qkv_bias=True)


def test_the_straightforward_way_is_the_same_model() -> None:
    ours = GPTModel(ModelConfig(**vars(SHAPE)))
    theirs = straightforward_twin(ours)
    ids = some_ids(2 * 17).view(2, 17)
    inputs, targets = ids[:, :-1], ids[:, 1:]
    assert plain.loss_of(theirs, inputs, targets).item() == pytest.approx(
        calc_loss_batch(inputs, targets, ours, "cpu").item(), rel=1e-5
    )
    written = plain.greedy(theirs, some_ids(3)[None], 20)[0, 3:].tolist()
    assert written == list(generate(ours, some_ids(3), SamplingConfig(max_new_tokens=20)))


def test_the_straightforward_run_learns_and_logs_every_fifth_step() -> None:
    log = plain.reference_run(SHAPE, some_ids(100).repeat(2), some_ids(60, seed=1), some_ids(3)[None], epochs=3)
    assert [step for step, *_ in log] == [0, 5, 10, 15]
    assert log[-1][1] < log[0][1]


def test_what_needs_bf16_is_left_out_where_the_processor_has_none(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    row = Row("a question", 1.0, 1.0, "", "")
    monkeypatch.setattr(tasks, "TASKS", dict.fromkeys(tasks.TASKS, lambda short: [row]))
    for has, left in ((True, []), (False, ["training", "small"])):
        monkeypatch.setattr(tasks, "multiplies_bf16", lambda has=has: has)
        assert list(tasks.left_out(["training", "fp32", "small"])) == left
        assert tasks.measure(["training", "fp32", "small"], short=True) == [row] * (3 - len(left))
        assert ("training: left out" in capsys.readouterr().err) is not has


def test_what_needs_a_gpu_is_left_out_where_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    for here in (True, False):
        monkeypatch.setattr(torch.cuda, "is_available", lambda here=here: here)
        assert tasks.left_out(["gpu", "fp32"]) == ({} if here else {"gpu": "there is no GPU"})


def test_a_gpu_is_measured_with_its_best_batch_and_by_its_own_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every clock stands still but for what the contestants say that they take."""
    seconds = {8: 1.0, 16: 1.5, 32: math.inf, "other": 3.0, "products": 0.1}
    now = [0.0]

    def takes(name: int | str) -> Callable[[], None]:
        def step() -> None:
            if seconds[name] == math.inf:
                raise torch.OutOfMemoryError("CUDA out of memory")
            now[0] += seconds[name]

        return step

    monkeypatch.setattr(timing, "clock", lambda: now[0])
    monkeypatch.setattr(gpu, "ours", lambda _, size, __: takes(size))
    monkeypatch.setattr(gpu, "HuggingFace", lambda *_: SimpleNamespace(step=takes("other")))
    monkeypatch.setattr(torch, "mm", lambda *_: takes("products")())
    share, against = gpu.training_on_gpu(True, "cpu", sizes=(8, 16, 32), product=64)
    assert "batch 16" in against.task
    assert against.value == pytest.approx(2.0)
    assert share.value == pytest.approx(operations(16) / 1.5 / (2 * 64**3 / 0.1))
    assert "1.50 s" in share.ours


def operations(size: int) -> float:
    """Of a step of 124M: six for each weight and token, and those of attention."""
    return 1024 * size * (6 * (12 * 12 * 768**2 + 50257 * 768) + 12 * 12 * 768 * 1024)


def test_contestants_take_turns_and_the_first_rounds_do_not_count() -> None:
    order: list[str] = []
    times = interleaved({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, rounds=3, warm_up=2)
    assert order == ["a", "b"] * 5
    assert len(times["a"].seconds) == len(times["b"].seconds) == 3


def test_a_ratio_is_the_median_of_the_rounds() -> None:
    assert ratio(Times((2.0, 30.0, 8.0)), Times((1.0, 10.0, 2.0))) == 3.0
    assert str(Times((0.5, 0.25, 2.0))) == "500 ms (250 ms to 2.00 s)"


def test_the_table_tells_what_was_reached_and_goes_in_front_of_older_ones(tmp_path: Path) -> None:
    rows = [
        Row("a step", 4.5, 4.0, "0.6 s", "plain: 2.7 s"),
        Row("memory", 3.7, 3.6, "resident", "", at_most=True, unit="GB"),
    ]
    text = table(rows, note="A quiet machine.")
    assert "| a step | 4.50 x | at least 4 | yes | 0.6 s | plain: 2.7 s |" in text
    assert "| memory | 3.70 GB | at most 3.6 | no |" in text
    assert "A quiet machine." in text
    assert f"torch {torch.__version__.split('+')[0]}" in text

    path = tmp_path / "measurements.md"
    path.write_text("# Measurements\n\nProse.\n\n## Tables\n\nolder\n", encoding="utf-8")
    write(text, path)
    written = path.read_text(encoding="utf-8")
    assert written.index("Prose.") < written.index("a step") < written.index("older")


def test_the_run_that_pages_are_measured_on_is_live_and_grows(home: Path) -> None:
    with live_run(RunStore(home / "runs"), 30) as run:
        assert run.status() == "running"
        first = run.log().steps_completed
        give_up = time.monotonic() + 30
        while run.log().steps_completed < first + 3:
            assert time.monotonic() < give_up
            time.sleep(0.05)
    assert run.status() == "interrupted"
    assert [row.step for row in run.log().steps] == list(range(run.log().steps_completed))


def test_commands_stand_still_in_turn_and_each_ones_time_is_its_own(tmp_path: Path) -> None:
    """Each notes when it is at work, in a loop that ends by itself: never both at a time."""
    code = (
        "import sys, time\n"
        "for _ in range(40):\n"
        "    open(sys.argv[1], 'a').write(sys.argv[2]); end = time.process_time() + 0.01\n"
        "    while time.process_time() < end: pass\n"
    )
    log = tmp_path / "log"
    times = in_turns({name: [sys.executable, "-c", code, str(log), name] for name in "ab"}, seconds=0.2)
    told = log.read_text()
    assert (told.count("a"), told.count("b")) == (40, 40)
    turns = [len(list(group)) for _, group in itertools.groupby(told)]
    assert max(turns[1:-1]) >= 4  # where both are at work they alternate from word to word
    assert all(taken.median > 0 for taken in times.values())


def test_a_command_that_fails_ends_the_others(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    endless = f"import os, time; open({str(pid)!r}, 'w').write(str(os.getpid())); time.sleep(1000)"
    commands = {"endless": [sys.executable, "-c", endless], "fails": [sys.executable, "-c", "raise SystemExit(3)"]}
    with pytest.raises(subprocess.CalledProcessError, match="status 3"):
        in_turns(commands, seconds=1)
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)
