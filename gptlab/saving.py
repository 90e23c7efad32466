"""What a training keeps on disk: when a checkpoint is written, how, and what is said of it.

Writing 124M weights and what training needs to go on takes a disk four seconds, copying them a quarter of one: so large
checkpoints are written while training goes on, from a copy, one at a time, in a thread.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gptlab import checkpoint
from gptlab.checkpoint import SaveError
from gptlab.device import free_memory
from gptlab.events import Event, Phase, Saved, Warned
from gptlab.model import GPTModel
from gptlab.state import TrainState

LARGE = 100_000_000  # bytes: what is smaller is written at once, which takes no longer than copying and a thread
ROOM = 2.0  # how many times the copy's bytes must be free in main memory


def pays(n_bytes: int) -> bool:
    """Whether ``n_bytes`` of weights and state are better written beside the training than before it goes on."""
    return n_bytes >= LARGE and free_memory() >= ROOM * n_bytes


def copy_of(model: GPTModel) -> GPTModel:
    """The same weights once more, in main memory."""
    with torch.device("meta"):
        copy = GPTModel(model.config)
    copy.load_state_dict(in_memory(model.state_dict()), assign=True)
    copy.tie_weights()
    return copy


def in_memory(value: Any) -> Any:
    """Tensors, and dictionaries of them, copied to main memory; anything else as it is."""
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, Mapping):
        return {key: in_memory(part) for key, part in value.items()}
    return value


@dataclass(frozen=True)
class Written:
    """A write that has ended. ``error``: why there is nothing."""

    what: Any
    error: SaveError | None = None


class Writer:
    """Does one thing at a time, beside the training or not. A thread goes on until the file is whole."""

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._ended: Written | None = None
        self._fault: BaseException | None = None

    def begin(self, write: Callable[[], object], what: Any, *, beside: bool) -> None:
        """Do ``write``, which ``what`` names in the answer: in a thread, ``beside`` what follows, or here and now.

        What was begun before must have been asked for with ``ended``.
        """

        def work() -> None:
            try:
                write()
                self._ended = Written(what)
            except SaveError as error:
                self._ended = Written(what, error)
            except BaseException as error:  # whoever asks how it ended gets it
                self._fault = error

        assert not self.busy
        if beside:
            self._thread = threading.Thread(target=work, name="checkpoint")
            self._thread.start()
        else:
            work()

    @property
    def busy(self) -> bool:
        """Whether something is being written now."""
        return self._thread is not None and self._thread.is_alive()

    def ended(self, *, wait: bool) -> Written | None:
        """What has ended since this was last asked, once; None where nothing has. ``wait`` for what was begun."""
        if self._thread is not None and (wait or not self.busy):
            self._thread.join()
            self._thread = None
        if self._thread is not None:
            return None
        ended, fault = self._ended, self._fault
        self._ended = self._fault = None
        if fault is not None:
            raise fault
        return ended


class _Checkpoint(NamedTuple):
    """What is being written, and why."""

    completed: int  # optimiser steps
    step: int  # index of the last of them
    reason: str
    epoch: int


Saving = Generator[Event, None, bool]  # yields events; returns whether there was no fault


class Checkpoints:
    """The checkpoints of one training, in ``folder`` (None: nothing is saved).

    ``keep``: how many of them stay (None: all). ``last_step``: the index of the last optimiser step made, for events.
    """

    def __init__(self, state: TrainState, folder: Path | None, keep: int | None, last_step: Callable[[], int]) -> None:
        self.state, self.folder, self.keep, self.last_step = state, folder, keep, last_step
        self.saved_step: int | None = None  # steps completed when the newest of them was saved
        self.writer = Writer()

    def save(self, reason: str, epoch: int, *, wait: bool) -> Saving:
        """One to resume from; without ``wait`` it may be written while training goes on."""
        state, folder = self.state, self.folder
        if folder is None:
            return True
        yield from self.written(wait=True)
        if self.saved_step == state.step:
            name = checkpoint.checkpoint_name(state.step)
            yield Saved(step=self.last_step(), checkpoint=name, reason=reason, epoch=epoch)
            return True
        step, facts = state.step, {"epoch": epoch, "tokens_seen": state.tokens_seen}

        def write(model: GPTModel, resume: Mapping[str, Any]) -> None:
            checkpoint.save_checkpoint(folder, model, step, resume, **facts)
            checkpoint.keep_newest(folder, self.keep)

        return (yield from self._write(reason, epoch, write, wait=wait, resume=state.resume_facts()))

    def save_best(self, epoch: int, val_loss: float) -> Saving:
        """The weights of the lowest validation loss so far."""
        folder, step, facts = self.folder, self.state.step, {"epoch": epoch, "val_loss": val_loss}
        if folder is None:
            return True

        def write(model: GPTModel, _: object) -> None:
            checkpoint.save_best(folder, model, step, **facts)

        return (yield from self._write("best", epoch, write, wait=False))

    def _write(
        self, reason: str, epoch: int, write: Callable[..., object], *, wait: bool, resume: dict[str, Any] | None = None
    ) -> Saving:
        """Let ``write`` put model and ``resume`` on the disk: beside the training, from a copy, where that pays."""
        state = self.state
        yield from self.written(wait=True)
        yield self._phase()
        model, beside = state.model, not wait and pays(checkpoint.size(state.model, resume))
        if beside:
            model, resume = copy_of(model), in_memory(resume)
        self.writer.begin(
            lambda: write(model, resume), _Checkpoint(state.step, self.last_step(), reason, epoch), beside=beside
        )
        return (yield from self.written(wait=not beside))

    def written(self, *, wait: bool) -> Saving:
        """Tell of what was being written, once it is, or was not."""
        if wait and self.writer.busy:
            yield self._phase()
        written = self.writer.ended(wait=wait)
        if written is None:
            return True
        what: _Checkpoint = written.what
        if written.error is not None:
            after = "Training goes on." if what.reason == "best" else self.newest()
            yield Warned(step=self.last_step(), message=f"{written.error} {after}")
            return False
        name = checkpoint.BEST
        if what.reason != "best":
            name, self.saved_step = checkpoint.checkpoint_name(what.completed), what.completed
        yield Saved(step=what.step, checkpoint=name, reason=what.reason, epoch=what.epoch)
        return True

    def remove_all(self) -> None:
        """Delete every one. Nothing may be being written."""
        if self.folder is not None:
            checkpoint.remove_all(self.folder)

    def finish(self) -> None:
        """Keep what a run that has ended keeps."""
        if self.folder is not None:
            checkpoint.keep_newest(self.folder, self.keep, finished=True)

    def newest(self) -> str:
        """What there is to go on from, as a sentence."""
        if self.folder is None:
            return "Nothing is saved, because no folder for checkpoints was given."
        if self.saved_step is None:
            return "No checkpoint to go on from has been saved."
        earlier = self.state.step - self.saved_step
        when = f", {earlier:,} step{'s' * (earlier > 1)} earlier" if earlier else ""
        return f"The newest checkpoint is {checkpoint.checkpoint_name(self.saved_step)}{when}."

    def _phase(self) -> Phase:
        return Phase(step=self.last_step(), phase="saving")
