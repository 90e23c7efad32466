"""Training runs whose step is the fast one: saved, resumed, evaluated and fallen back from as any other."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from gptlab.acceleration import compile_step
from gptlab.config import PRESETS, RunConfig
from gptlab.events import Ended, Evaluated, Event, Phase, Started, Stepped, Warned
from gptlab.fast.compiling import automatic, missing, pays, pays_on_gpu
from gptlab.fast.engine import Engine
from gptlab.state import TrainState
from gptlab.training import train
from tests.small_models import parts, run_config

FAST = {"compile": "on", "precision": "bf16"}


@pytest.fixture
def uncompiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fast step without the minute that compiling it takes: its functions as they are."""
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)


def config(**sections: dict[str, Any]) -> RunConfig:
    return run_config(**{**sections, "train": {**FAST, **sections.get("train", {})}})


def run(config: RunConfig, **options: Any) -> list[Event]:
    return list(train(config, parts(), **options))


def numbers(events: list[Event]) -> list[tuple]:
    """Everything that was measured."""
    steps = [(e.step, e.loss, e.grad_norm) for e in events if isinstance(e, Stepped)]
    return steps + [(e.step, e.train_loss, e.val_loss) for e in events if isinstance(e, Evaluated)]


@pytest.mark.usefixtures("uncompiled")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize(
    "sections",
    [{}, {"optim": {"grad_accumulation": 2, "grad_clip": 0.05}}, {"model": {"tie_weights": True, "init": "gpt2"}}],
    ids=["plain", "accumulated-clipped", "tied"],
)
def test_a_fast_run_follows_the_textbook_run(precision: str, sections: dict) -> None:
    sections = {**sections, "data": {"drop_last": False, "batch_size": 3}}
    sections["model"] = {**sections.get("model", {}), "drop_rate": 0.0}
    fast = run(config(**sections, train={"precision": precision}))
    slow = run(config(**sections, train={"precision": "fp32", "compile": "off"}))

    for quick, right in zip(numbers(fast), numbers(slow), strict=True):
        assert quick == pytest.approx(right, rel=2e-4 if precision == "fp32" else 6e-2)
    assert isinstance(fast[-1], Ended)
    assert fast[-1].reason == "finished"


@pytest.mark.usefixtures("uncompiled")
def test_evaluations_multiply_as_the_steps_do(monkeypatch: pytest.MonkeyPatch) -> None:
    fast = TrainState.build(config(), parts())
    assert compile_step(fast) is None
    asked: list[int] = []
    monkeypatch.setattr(Engine, "loss", lambda self, ids, targets: asked.append(len(ids)) or 3.5)
    assert fast.evaluate() == (3.5, 3.5)
    assert len(asked) == 4  # two batches of each part

    plain = {name: TrainState.build(run_config(train={"precision": name}), parts()) for name in ("fp32", "bf16")}
    seen: dict[str, torch.dtype] = {}
    for name, state in plain.items():
        state.model.out_head.register_forward_hook(lambda *given, name=name: seen.update({name: given[2].dtype}))
        state.evaluate()
    assert seen == {"fp32": torch.float32, "bf16": torch.bfloat16}


@pytest.mark.usefixtures("uncompiled")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_fast_run_resumes_bit_for_bit_with_dropout(tmp_path: Path, precision: str) -> None:
    wanted = config(train={"precision": precision}, model={"drop_rate": 0.3})
    whole = run(wanted)
    asked = iter([None] * 7 + ["stop"])
    first = run(wanted, checkpoints=tmp_path, requests=lambda: next(asked, None))
    second = run(wanted, checkpoints=tmp_path, resume_from=tmp_path)

    made = [(e.step, e.loss, e.grad_norm) for e in [*first, *second] if isinstance(e, Stepped)]
    assert len({step for step, *_ in made}) == len(made) == 10
    assert made == [(e.step, e.loss, e.grad_norm) for e in whole if isinstance(e, Stepped)]


@pytest.mark.usefixtures("uncompiled")
def test_a_run_goes_on_as_it_began_where_the_choice_is_automatic(tmp_path: Path) -> None:
    asked = iter([None] * 3 + ["stop"])
    began_fast = run(config(), checkpoints=tmp_path / "fast", requests=lambda: next(asked, None))
    again = run(config(train={"compile": "auto"}), checkpoints=tmp_path / "fast", resume_from=tmp_path / "fast")
    assert "compiling" in [e.phase for e in [*began_fast] if isinstance(e, Phase)]
    assert "compiling" in [e.phase for e in again if isinstance(e, Phase)]
    assert numbers(again)[0] == numbers(run(config()))[3]


@pytest.mark.usefixtures("uncompiled")
def test_a_checkpoint_of_the_fast_step_can_be_resumed_by_the_textbook(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"model": {"drop_rate": 0.0}}
    asked = iter([None] * 5 + ["stop"])
    run(config(**settings, train={"precision": "fp32"}), checkpoints=tmp_path, requests=lambda: next(asked, None))
    slow = run(
        config(**settings, train={"precision": "fp32", "compile": "off"}), checkpoints=tmp_path, resume_from=tmp_path
    )
    whole = run(config(**settings, train={"precision": "fp32", "compile": "off"}))
    right = [e.loss for e in whole if isinstance(e, Stepped)][5:]
    assert [e.loss for e in slow if isinstance(e, Stepped)] == pytest.approx(right, rel=2e-4)


@pytest.mark.usefixtures("uncompiled")
def test_a_step_whose_gradient_is_no_number_is_not_applied(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Engine, "norm", lambda _: float("nan"))
    state = TrainState.build(config(), parts())
    assert compile_step(state) is None
    before = [p.detach().clone() for p in state.model.parameters()]
    (batches, *_) = state.groups()
    state.optimise(batches, 0.1)
    assert state.step == 0
    assert all(torch.equal(a, b) for a, b in zip(before, state.model.parameters(), strict=True))


def test_without_a_compiler_it_says_so_and_trains(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda *_: None)
    assert missing() is not None
    events = run(config())
    warned = [e.message for e in events if isinstance(e, Warned)]
    assert any("No C++ compiler was found" in message and "install one" in message for message in warned)
    assert [e.reason for e in events if isinstance(e, Ended)] == ["finished"]
    assert numbers(events) == numbers(run(config(train={"compile": "off"})))


@pytest.mark.usefixtures("uncompiled")
def test_what_a_compiler_does_not_like_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("unheard-of operation\nat line 1")

    monkeypatch.setattr("gptlab.fast.engine.head.softmax_gradient", fail)
    monkeypatch.setattr("gptlab.fast.engine._PLAIN.softmax", fail)
    events = run(config())
    assert [e.message for e in events if isinstance(e, Warned)][-1].endswith("unheard-of operation")
    assert [e.reason for e in events if isinstance(e, Ended)] == ["finished"]
    assert numbers(events) == numbers(run(config(train={"compile": "off"})))


def test_automatic_compilation_weighs_the_work_against_the_wait() -> None:
    assert pays(PRESETS["gpt2-124m"], 90, cores=2)
    assert not pays(PRESETS["gpt2-124m"], 3, cores=2)
    assert not pays(PRESETS["tiny"], 180, cores=2)
    assert pays(PRESETS["tiny"], 1_000_000, cores=2)
    assert not pays_on_gpu(PRESETS["gpt2-124m"], 90)  # it would save half a second
    assert pays_on_gpu(PRESETS["gpt2-124m"], 10_000)
    long = PRESETS["gpt2-124m"].with_fields(model={"context_length": 1024}, data={"batch_size": 32})
    assert pays_on_gpu(long, 200)
    assert not pays_on_gpu(long, 100)
    assert pays_on_gpu(long.with_fields(optim={"grad_accumulation": 4}), 100)
    assert automatic(long, 1000, "bf16", "cuda", cores=2)
    assert automatic(long, 1000, "bf16", "cpu", cores=2)
    assert not automatic(long, 1000, "fp32", "cuda", cores=2)
    assert not automatic(long, 1000, "fp32", "cpu", cores=2)
    assert not automatic(long, 1000, "bf16", "mps", cores=2)
    events = run(run_config(train={"precision": "bf16"}))
    assert "compiling" not in [e.phase for e in events if isinstance(e, Phase)]
    assert [e.precision for e in events if isinstance(e, Started)] == ["bf16"]
