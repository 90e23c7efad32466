"""What is measured: each task builds its contestants, times them in turn, and says how far apart they are."""

from __future__ import annotations

import gc
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from bench import dashboard, plain
from bench.contestants import (
    HuggingFace,
    Ours,
    Plain,
    Run,
    decode,
    hugging_face_decoding,
    hugging_face_model,
    model_config,
)
from bench.gpu import training_on_gpu
from bench.report import Row
from bench.timing import Times, in_turns, interleaved, ratio
from gptlab.config import PRESETS
from gptlab.corpus import open_corpus
from gptlab.fast.compiling import CACHE_VARIABLE
from gptlab.fast.precision import multiplies_bf16
from gptlab.model import GPTModel
from gptlab.state import TrainState
from gptlab.training import train

LARGE = plain.Shape()
SMALL = plain.Shape(context_length=64, emb_dim=128, n_heads=4, n_layers=4)
PRODUCTS, UPDATE_BYTES = 379e9, 4.5e9  # of one step of LARGE with a batch of 2: operations, bytes the optimiser moves
NEW_TOKENS = 200
BRIEFLY = 27  # steps, three epochs of the exercise: sure enough of its tokens

Task = Callable[[bool], list[Row]]
NEED_BF16 = ("training", "evaluation", "small", "memory")  # their question is about bf16; the others ask what they can
NEED_GPU = ("gpu",)


def left_out(names: Iterable[str]) -> dict[str, str]:
    """The tasks that cannot be done here in any useful time, each with the reason."""
    why: dict[str, str] = {}
    for name in names:
        if name in NEED_BF16 and not multiplies_bf16():
            why[name] = "this processor multiplies no bf16"  # without instructions for it, it takes minutes
        elif name in NEED_GPU and not torch.cuda.is_available():
            why[name] = "there is no GPU"
    return why


def measure(names: Iterable[str], *, short: bool) -> list[Row]:
    """The rows of these tasks, in order. What compiling leaves behind goes to a folder that is removed."""
    torch.manual_seed(0)
    rows = []
    for name in names:
        if why := left_out([name]):
            print(f"{name}: left out, {why[name]}", file=sys.stderr, flush=True)
            continue
        began = time.perf_counter()
        rows += TASKS[name](short)
        gc.collect()
        torch._dynamo.reset()
        print(f"{name}: {time.perf_counter() - began:.0f} s", file=sys.stderr, flush=True)
    return rows


def training_step(short: bool) -> list[Row]:
    ours, slow, other = Ours(LARGE, 2, torch.bfloat16), Plain(LARGE, 2), HuggingFace(LARGE, 2)
    steps: dict[str, Run] = {"ours": ours.step, "plain": slow.step, "other": other.step, "floor": _Floor()}
    times = interleaved(steps, 4 if short else 12, warm_up=1 if short else 2)
    task = "training step, 124M"
    return [
        _row(f"{task}, bf16", times, "plain", 4.0),
        _row(f"{task}, bf16", times, "other", 1.5, "Hugging Face compiled, autocast, fused AdamW"),
        Row(
            f"{task}, bf16, beyond the floor",
            ratio(times["ours"], times["floor"]),
            1.25,
            str(times["ours"]),
            f"products and optimiser traffic alone {times['floor']}",
            at_most=True,
        ),
    ]


class _Floor:
    """A step's matrix products, hot, and its optimiser's memory traffic, by the fastest means there is."""

    def __init__(self) -> None:
        bf16 = torch.bfloat16
        self.a, self.b = torch.randn(512, 768, dtype=bf16), torch.randn(3072, 768, dtype=bf16)
        self.c = torch.empty(512, 3072, dtype=bf16)
        self.numbers = [torch.zeros(50_000_000) for _ in range(3)]
        self.products = round(PRODUCTS / (2 * 512 * 768 * 3072))
        self.passes = UPDATE_BYTES / (3 * self.numbers[0].nbytes)

    def __call__(self) -> None:
        for _ in range(self.products):
            torch.mm(self.a, self.b.t(), out=self.c)
        x, y, z = self.numbers
        whole, part = divmod(self.passes, 1)
        for _ in range(int(whole)):
            torch.add(x, y, out=z)
        n = int(part * len(x))
        torch.add(x[:n], y[:n], out=z[:n])


def true_fp32_step(short: bool) -> list[Row]:
    ours, slow = Ours(LARGE, 2, torch.float32), Plain(LARGE, 2)
    times = interleaved({"ours": ours.step, "plain": slow.step}, 3 if short else 8)
    where = "oneDNN exact" if ours.engine.onednn else "oneDNN not exact here"
    return [_row(f"training step, 124M, true fp32 ({where})", times, "plain", 2.0)]


def evaluation(short: bool) -> list[Row]:
    ours, slow = Ours(LARGE, 2, torch.bfloat16), Plain(LARGE, 2)
    times = interleaved({"ours": ours.evaluate, "plain": slow.evaluate}, 5 if short else 15)
    return [_row("evaluation forward, 124M, bf16", times, "plain", 3.8)]


def small_step(short: bool) -> list[Row]:
    ours, slow = Ours(SMALL, 8, torch.bfloat16), Plain(SMALL, 8)
    times = interleaved({"ours": ours.step, "plain": slow.step}, 20 if short else 60, warm_up=3)
    return [_row("training step, small model, bf16", times, "plain", 3.0)]


def decoding(short: bool) -> list[Row]:
    """From random weights, whose likeliest tokens nearly tie, so that many drafts are wrong; and from trained ones."""
    rows = _decoding(GPTModel(model_config(LARGE)).eval(), "random weights", short)
    return rows if short else [*rows, *_decoding(_briefly_trained(), f"after {BRIEFLY} steps", short)]


def _briefly_trained() -> GPTModel:
    config = PRESETS["gpt2-124m"].with_fields(train={"max_steps": BRIEFLY, "compile": "on"})
    state = TrainState.build(config, open_corpus("builtin").split_ids(config.data.train_ratio))
    for _ in train(config, state=state):
        pass
    return state.model.eval()


def _decoding(model: GPTModel, which: str, short: bool) -> list[Row]:
    questions = [("fp32", "fp32", 1.7), ("bf16", "bf16", 1.4), ("int8", "bf16", 2.7)]
    if not multiplies_bf16():
        questions = questions[:1]
    runs: dict[str, Run] = {f"ours {kind}": partial(decode, model, NEW_TOKENS, kind) for kind, *_ in questions}
    runs["fp32"] = hugging_face_decoding(hugging_face_model(LARGE).eval(), NEW_TOKENS)
    if len(questions) > 1:
        runs["bf16"] = hugging_face_decoding(hugging_face_model(LARGE).eval().to(torch.bfloat16), NEW_TOKENS)
    times = interleaved(runs, 1 if short else 5)
    rows = []
    for kind, against, wanted in questions:
        fast, slow = times[f"ours {kind}"], times[against]
        speed, slow_speed = NEW_TOKENS / fast.median, NEW_TOKENS / slow.median
        rows.append(
            Row(
                f"decoding {NEW_TOKENS} tokens, {kind}, {which}",
                ratio(slow, fast),
                wanted,
                f"{speed:.0f} tokens/s, {fast}",
                f"Hugging Face with cache, {against}: {slow_speed:.0f} tokens/s, {slow}",
            )
        )
    return rows


def peak_memory(short: bool) -> list[Row]:
    code = (
        "import torch; from bench.contestants import Ours; from bench.tasks import LARGE; "
        "o = Ours(LARGE, 2, torch.bfloat16); [o.step() for _ in range(3)]; o.evaluate(); "
        "print(open('/proc/self/status').read().split('VmHWM:')[1].split()[0])"  # getrusage counts the parent's, too
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    resident = int(told.stdout.split()[-1]) * 1024 / 1e9
    return [Row("peak memory, 124M training", resident, 3.6, "resident", "", at_most=True, unit="GB")]


def whole_run(short: bool) -> list[Row]:
    """The reference exercise from its start to the last checkpoint, and the straightforward way, in turn.

    Once with what an earlier run compiled, once with nothing in the compiler's cache.
    """
    if short:
        return []
    plainly = [sys.executable, "-c", "from bench.tasks import plain_whole_run; plain_whole_run()"]
    ours = [sys.executable, "-m", "gptlab", "train", "--preset", "gpt2-124m", "--set", "train.compile=on"]
    options: dict[str, Any] = {"cwd": Path(__file__).resolve().parent.parent, "stdout": subprocess.DEVNULL}
    with tempfile.TemporaryDirectory() as warm, tempfile.TemporaryDirectory() as cold:
        own = {home: [f"GPTLAB_HOME={home}", f"TMPDIR={home}"] for home in (warm, cold)}  # there are compiled headers
        at = {home: ["env", "-u", CACHE_VARIABLE, *variables, *ours] for home, variables in own.items()}
        subprocess.run([*at[warm], "--set", "train.max_steps=1"], check=True, **options)
        times = in_turns({"ours": at[warm], "plain": plainly, "cold": at[cold]}, **options)
    task, against = "whole reference run, everything saved", "plain, nothing saved"
    first = {"ours": times["cold"], "plain": times["plain"]}
    return [
        _row(task, times, "plain", 4.0, against),
        _row(f"{task}, the first on its machine", first, "plain", 4.0, against),
    ]


def plain_whole_run() -> None:
    """The exercise the straightforward way, on the built-in story."""
    train_ids, val_ids = (torch.as_tensor(part.copy()).long() for part in open_corpus("builtin").split_ids(0.9))
    plain.reference_run(LARGE, train_ids, val_ids, torch.tensor([[6109, 3626, 6100, 345]]))


def _row(task: str, times: dict[str, Times], against: str, wanted: float, name: str = "plain fp32") -> Row:
    slow, ours = times[against], times["ours"]
    return Row(task, ratio(slow, ours), wanted, str(ours), f"{name}: {slow}")


TASKS: dict[str, Task] = {
    "training": training_step,
    "fp32": true_fp32_step,
    "evaluation": evaluation,
    "small": small_step,
    "decoding": decoding,
    "memory": peak_memory,
    "whole-run": whole_run,
    "gpu": training_on_gpu,
    "refresh": dashboard.refreshes,
    "ten-pages": dashboard.ten_pages,
    "soak": dashboard.soak,
}
UNASKED = tuple(name for name in TASKS if name != "soak")  # the soak takes an hour: only when it is named
