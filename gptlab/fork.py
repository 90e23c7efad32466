"""A fork: a new run that begins with another run's weights, and a fresh optimiser.

The weights lie in the new run's own folder, ``initial/weights.safetensors``, with ``parent.json`` beside them: whatever
becomes of the parent, the fork can be trained, resumed and explained.
"""

from __future__ import annotations

import json
import os
import shutil
from contextlib import suppress
from dataclasses import asdict, dataclass

from gptlab.checkpoint import read_facts
from gptlab.config import ModelConfig, RunConfig
from gptlab.home import write_atomically
from gptlab.preflight import prepare
from gptlab.runs import Run, RunStore

FREE = ("drop_rate",)  # model fields that no weight depends on


@dataclass(frozen=True)
class Parent:
    """Where a fork's weights came from, as it was then: the run's id and name, the checkpoint, the steps behind it."""

    run: str
    name: str
    checkpoint: str
    step: int
    epoch: int | None = None

    def told(self) -> str:
        """``best, after 51 steps, in epoch 6``"""
        steps = f"after {self.step:,} step{'s' * (self.step != 1)}"
        return f"{self.checkpoint}, {steps}" + (f", in epoch {self.epoch}" if self.epoch else "")


def fork(store: RunStore, parent: Run, checkpoint: str, config: RunConfig, *, name: str = "") -> Run:
    """A new run, not started yet, that trains ``config`` from the weights of a checkpoint of ``parent``.

    ``checkpoint``: ``best``, ``last`` or a step's name. ValueError: it is not there (any more), it is of another shape
    than ``config.model``, or what ``prepare`` refuses.
    """
    found = parent.checkpoint(checkpoint)
    facts = read_facts(found.weights)
    if wrong := shape_faults(ModelConfig.model_validate(facts["model"]), config.model):
        raise ValueError(wrong)
    run = prepare(store, config, name=name, parent=f"{parent.id}:{found.name}")
    epoch = facts.get("epoch")
    told = Parent(parent.id, parent.name, found.name, int(facts.get("step", found.step)), epoch)
    folder = run.path / "initial"
    try:
        folder.mkdir()
        _link_or_copy(found.weights, folder / "weights.safetensors")
        write_atomically(folder / "parent.json", json.dumps(asdict(told), ensure_ascii=False) + "\n")
    except OSError as error:
        shutil.rmtree(run.path, ignore_errors=True)
        if isinstance(error, FileNotFoundError):
            raise ValueError(f"{found.name} of {parent.name} was replaced at this moment: try again.") from error
        raise
    return run


def shape_faults(weights: ModelConfig, wanted: ModelConfig) -> str:
    """Why weights of one model cannot fill another, as a sentence; empty where they can. Dropout may differ."""
    differs = [
        f"{name} {getattr(wanted, name)} instead of {getattr(weights, name)}"
        for name in ModelConfig.model_fields
        if name not in FREE and getattr(wanted, name) != getattr(weights, name)
    ]
    if not differs:
        return ""
    return (
        f"These weights are of another model ({', '.join(differs)}): give the fork its parent's model, or start anew."
    )


def parent_of(run: Run) -> Parent | None:
    """Where the run's first weights came from; None for one that began with random weights."""
    try:
        raw = json.loads((run.path / "initial" / "parent.json").read_text(encoding="utf-8"))
        epoch = raw.get("epoch")
        return Parent(
            str(raw["run"]),
            str(raw["name"]),
            str(raw["checkpoint"]),
            int(raw["step"]),
            None if epoch is None else int(epoch),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def find_checkpoint(store: RunStore, wanted: str) -> tuple[Run, str]:
    """``RUN`` or ``RUN:checkpoint`` as a run and a checkpoint's name: without one ``best`` where there is one, else the
    newest. ValueError: there is no such run.
    """
    try:
        run, name = store.get(wanted), ""
    except ValueError:
        head, colon, name = wanted.rpartition(":")
        if not colon:
            raise
        run = store.get(head)
    if not name:
        name = "best" if any(item.name == "best" for item in run.checkpoints()) else "last"
    return run, name


def _link_or_copy(source: os.PathLike[str], target: os.PathLike[str]) -> None:
    """A second name for the same bytes, which are never written again; a copy where the disk cannot do that."""
    with suppress(OSError):
        os.link(source, target)
        return
    shutil.copyfile(source, target)
