"""The training loop: a generator of facts. It never prints, opens the store, draws or asks who is listening.

    for event in train(config, text, checkpoints=folder):
        ...

Everything random in it (first weights, order of the windows, dropout) comes from ``config.train.seed`` and from streams
of its own: torch's global random streams are the caller's again whenever an event is yielded.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from gptlab import checkpoint, saving
from gptlab.checkpoint import load_weights
from gptlab.config import RunConfig
from gptlab.epoch_look import EpochLook
from gptlab.events import Ended, Evaluated, Event, Phase, Resumed, Saved, Started, Stepped, Warned
from gptlab.loaders import Data
from gptlab.model import GPTModel
from gptlab.out_of_memory import is_out_of_memory, lower_this
from gptlab.readback import Made, ReadBack
from gptlab.schedule import learning_rate_at
from gptlab.state import Batch, TrainState

__all__ = ["TrainState", "train"]

WARM_UP_STEPS = 2  # not counted in tokens per second: caches are cold, kernels are being chosen
SPEED_WINDOW = 20  # steps that tokens per second is the mean of
PAUSE_POLL_SECONDS = 0.1
Steps = Generator[Event, None, bool]  # yields events; returns whether training goes on


def train(
    config: RunConfig,
    data: Data | None = None,
    *,
    run: str = "",
    checkpoints: Path | None = None,
    resume_from: Path | None = None,
    restarted: bool = False,
    initial: Path | None = None,
    state: TrainState | None = None,
    requests: Callable[[], str | None] | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[Event]:
    """Train as ``config`` says and yield what happens; the last event is always ``Ended``.

    ``data``: the text, or the token ids of both parts (training, validation). ``state``: a ``TrainState.build(...)`` of
    the caller's own instead, whose model can be altered before and used after. ``checkpoints``: the folder to save in
    (None: nothing is saved). ``resume_from``: a checkpoint folder that holds ``resume.pt``, or a folder of checkpoints,
    of which the newest such one is taken; where there is none, and with ``restarted``, training begins again at step 0
    with ``Resumed(step=0)``. ``initial``: weights to begin with, in place of random ones, wherever training begins at
    step 0; the optimiser is fresh all the same. ``requests`` is asked between two steps, must not block, and returns
    each wish once: pause, resume, step, stop, discard, save or None.

    ValueError (a sentence for people) where the configuration, the data and this machine do not fit together, and
    where there is nothing left to train.
    """
    yield Phase(phase="loading")
    completed, kept = 0, ""
    try:
        if state is None:
            if data is None:
                raise ValueError("There is nothing to train on: give a text, the token ids of both parts, or a state.")
            state = TrainState.build(config, data)
        trainer = _Trainer(config, state, run, checkpoints, requests or (lambda: None), sleep)
        events = trainer.events(resume_from, restarted, initial)
        while True:
            with state.streams:
                event = next(events, None)
                completed, kept = state.step, trainer.kept()
            if event is None:
                return
            yield event
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        yield Ended(step=max(completed - 1, 0), reason="failed", message=f"{lower_this(config)} {kept}".strip())
    finally:
        if state is not None:
            state.recorded = None  # with the memory that it keeps


class _Checkpoint(NamedTuple):
    """What is being written, and why."""

    completed: int  # optimiser steps
    step: int  # index of the last of them
    reason: str
    epoch: int


class _Trainer:
    """One training, from the first event to the last. Methods that return ``Steps`` say whether it goes on."""

    def __init__(
        self,
        config: RunConfig,
        state: TrainState,
        run: str,
        folder: Path | None,
        requests: Callable[[], str | None],
        sleep: Callable[[float], None],
    ) -> None:
        self.config, self.state, self.run = config, state, run
        self.folder, self.requests, self.sleep = folder, requests, sleep
        self.saved_step: int | None = None  # steps completed when the newest checkpoint was saved
        self.last_step = 0  # index of the last optimiser step made, for the events
        self.pause_next = False
        self.timed: deque[tuple[int, float]] = deque(maxlen=SPEED_WINDOW)
        self.steps_here = 0
        self.unread = ReadBack()
        self.writer = saving.Writer()
        self.look = EpochLook(config.train, state)

    def events(self, resume_from: Path | None, restarted: bool, initial: Path | None) -> Iterator[Event]:
        state = self.state
        yield from self._prepare(resume_from, restarted, initial)
        if state.step == 0:
            yield from self._look(epoch=0)
        yield self._phase("training")
        while state.step < state.total_steps:
            epoch = state.step // state.steps_per_epoch + 1
            for batches in state.groups():
                goes_on = (yield from self._serve_requests(epoch)) and (yield from self._step(batches, epoch))
                if not goes_on:
                    return
                if self._last_reason():
                    break
            if not (yield from self._read_back()):
                return
            yield from self._look(epoch)
            whole = state.step % state.steps_per_epoch == 0
            saved = yield from self._save("epoch" if whole else "finished", epoch, wait=bool(self._last_reason()))
            if saved is None:
                return
            if self._last_reason():
                if not saved:
                    yield self.ended("failed", f"The last checkpoint could not be saved. {self.kept()}")
                    return
                break
            yield self._phase("training")
        if self.folder is not None:
            checkpoint.keep_newest(self.folder, self.config.train.keep_checkpoints, finished=True)
        yield self.ended("finished", f"{self._last_reason()} {self._best()}".strip())

    def _prepare(self, resume_from: Path | None, restarted: bool, initial: Path | None) -> Iterator[Event]:
        """Restore the state where that is wanted, say so, and compile where that is wanted."""
        state = self.state
        if self.folder is not None:
            checkpoint.tidy(self.folder)
        found = checkpoint.newest_resumable(resume_from) if resume_from is not None else None
        remarks = state.restore(found) if found is not None else []
        if initial is not None and found is None:
            load_weights(state.model, initial)
        if over := self._last_reason():
            raise ValueError(f"{over} There is nothing left to train: start a new run with more epochs or steps.")
        self.last_step = max(state.step - 1, 0)
        self.saved_step = state.step if found is not None else None
        if found is not None or restarted or resume_from is not None:
            yield Resumed(step=state.step, device=str(state.device), threads=torch.get_num_threads())
        yield Started(
            step=self.last_step,
            run=self.run,
            device=str(state.device),
            n_parameters=state.model.n_parameters,
            total_steps=state.total_steps,
            threads=torch.get_num_threads(),
            precision=state.precision,
            steps_per_epoch=state.steps_per_epoch,
        )
        for message in [*remarks, *(state.warnings if found is None else ())]:
            yield self._warned(message)
        if state.wants_to_compile():
            yield self._phase("compiling")
            reason = state.compile()
            if reason is not None:
                yield self._warned(f"The model could not be compiled, so it trains without that: {reason}")
        reason = state.record()
        if reason is not None:
            yield self._warned(f"The step could not be recorded, so its parts are started one by one: {reason}")

    def _serve_requests(self, epoch: int) -> Steps:
        """Do what was asked for, and wait here while paused."""
        paused = self.pause_next
        self.pause_next = False
        if paused:
            if not (yield from self._read_back()):
                return False
            yield self._phase("paused")
        while True:
            yield from self._written(wait=False)
            wish = self.requests()
            if wish is not None and not (yield from self._read_back()):
                return False
            if wish == "stop":
                yield from self._stop(epoch)
                return False
            if wish == "discard":
                yield from self._discard()
                return False
            if wish == "save":
                if (yield from self._save("requested", epoch, wait=False)) is None:
                    return False
                yield self._phase("paused" if paused else "training")
            elif wish == "pause" and not paused:
                paused = True
                yield self._phase("paused")
            elif wish == "step":  # one step, then pause again
                self.pause_next = True
            if wish == "resume" or self.pause_next:
                break
            if wish is None:
                if not paused:
                    break
                self.sleep(PAUSE_POLL_SECONDS)
        if paused:
            yield self._phase("training")
        return True

    def _step(self, batches: Sequence[Batch], epoch: int) -> Steps:
        """One optimiser step, and the evaluation that may follow it."""
        state, train_config = self.state, self.config.train
        step = self.last_step = state.step
        rate = learning_rate_at(step, state.total_steps, self.config.optim)
        self.unread.begin()
        seen = state.tokens_seen
        optimise = state.optimise_unread if state.reads_later else state.optimise
        numbers = optimise(batches, rate)
        self.unread.add(Made(step, epoch, sum(inputs.numel() for inputs, _ in batches), seen, rate, numbers))
        evaluates = step % train_config.eval_freq == 0
        if (evaluates or self.unread.is_due()) and not (yield from self._read_back()):
            return False
        if evaluates:
            yield from self._evaluate(epoch)
        return True

    def _read_back(self) -> Steps:
        """What the steps measured that were made since this was last asked for."""
        for read in self.unread.read():
            made, applied = read.made, math.isfinite(read.loss) and math.isfinite(read.norm)
            self._time(made.n_tokens, read.seconds)
            if not applied:
                self.state.take_back(made.step, made.tokens_before)
                self.last_step = made.step
            yield Stepped(
                step=made.step,
                time=read.time,
                epoch=made.epoch,
                tokens_seen=made.tokens_before + made.n_tokens * applied,
                loss=read.loss,
                learning_rate=made.learning_rate,
                grad_norm=read.norm,
                tokens_per_second=self._tokens_per_second(),
            )
            if not applied:
                yield from self._written(wait=True)
                what = "gradient" if math.isfinite(read.loss) else "loss"
                yield self.ended(
                    "failed",
                    f"The {what} of step {made.step:,} is not a finite number, so that step was not applied: "
                    f"lower learning_rate (now {self.config.optim.learning_rate:g}) or set grad_clip. {self.kept()}",
                )
                return False
        return True

    def _evaluate(self, epoch: int) -> Iterator[Event]:
        state = self.state
        yield self._phase("evaluating")
        train_loss, val_loss = state.evaluate()
        yield Evaluated(
            step=self.last_step, epoch=epoch, tokens_seen=state.tokens_seen, train_loss=train_loss, val_loss=val_loss
        )
        if state.best_step == state.step and self.folder is not None:
            folder, step, facts = self.folder, state.step, {"epoch": epoch, "val_loss": val_loss}
            yield from self._write(
                "best", epoch, lambda model, _: checkpoint.save_best(folder, model, step, **facts), wait=False
            )
        yield self._phase("training")

    def _look(self, epoch: int) -> Iterator[Event]:
        yield self._phase("sampling")
        yield from self.look.samples(self.last_step, epoch)
        yield from self.look.probes(self.last_step, epoch)

    def _save(self, reason: str, epoch: int, *, wait: bool) -> Generator[Event, None, bool | None]:
        """Save a checkpoint to resume from; without ``wait`` it may be written while training goes on.

        False: it cannot be written. None: the weights are spoilt, it is over.
        """
        state, folder = self.state, self.folder
        if folder is None:
            return True
        yield from self._written(wait=True)
        if not state.is_finite():
            yield self.ended(
                "failed",
                f"After {_steps(state.step)} some weights are no longer finite numbers, so they were not saved: "
                f"lower learning_rate (now {self.config.optim.learning_rate:g}) or set grad_clip. {self.kept()}",
            )
            return None
        if self.saved_step == state.step:
            name = checkpoint.checkpoint_name(state.step)
            yield Saved(step=self.last_step, checkpoint=name, reason=reason, epoch=epoch)
            return True
        step, facts = state.step, {"epoch": epoch, "tokens_seen": state.tokens_seen}

        def write(model: GPTModel, resume: Mapping[str, Any]) -> None:
            checkpoint.save_checkpoint(folder, model, step, resume, **facts)
            checkpoint.keep_newest(folder, self.config.train.keep_checkpoints)

        return (yield from self._write(reason, epoch, write, wait=wait, resume=state.resume_facts()))

    def _write(
        self, reason: str, epoch: int, write: Callable[..., object], *, wait: bool, resume: dict[str, Any] | None = None
    ) -> Steps:
        """Let ``write`` put model and ``resume`` on the disk: beside the training, from a copy, where that pays."""
        state = self.state
        yield from self._written(wait=True)
        yield self._phase("saving")
        model, beside = state.model, not wait and saving.pays(checkpoint.size(state.model, resume))
        if beside:
            model, resume = saving.copy_of(model), saving.in_memory(resume)
        self.writer.begin(
            lambda: write(model, resume), _Checkpoint(state.step, self.last_step, reason, epoch), beside=beside
        )
        return (yield from self._written(wait=not beside))

    def _written(self, *, wait: bool) -> Steps:
        """Tell of what was being written, once it is, or was not. Returns whether there was no fault."""
        if wait and self.writer.busy:
            yield self._phase("saving")
        written = self.writer.ended(wait=wait)
        if written is None:
            return True
        what: _Checkpoint = written.what
        if written.error is not None:
            yield self._warned(f"{written.error} {'Training goes on.' if what.reason == 'best' else self.kept()}")
            return False
        name = checkpoint.BEST
        if what.reason != "best":
            name, self.saved_step = checkpoint.checkpoint_name(what.completed), what.completed
        yield Saved(step=what.step, checkpoint=name, reason=what.reason, epoch=what.epoch)
        return True

    def _stop(self, epoch: int) -> Iterator[Event]:
        saved = yield from self._save("stopped", epoch, wait=True)
        if saved is not None:
            stopped = f"Stopped after {_steps(self.state.step)}, in epoch {epoch}."
            how = (
                "Resuming goes on from there." if saved and self.folder is not None else "It could not be saved there."
            )
            yield self.ended("stopped", f"{stopped} {self.kept()} {how if self.folder is not None else ''}".strip())

    def _discard(self) -> Iterator[Event]:
        yield from self._written(wait=True)
        if self.folder is not None:
            checkpoint.remove_all(self.folder)
        message = f"Stopped after {_steps(self.state.step)}; its checkpoints were deleted, its log is kept."
        yield self.ended("discarded", message)

    def kept(self) -> str:
        """What is on disk, as a sentence."""
        if self.folder is None:
            return "Nothing is saved, because no folder for checkpoints was given."
        if self.saved_step is None:
            return "No checkpoint to go on from has been saved."
        earlier = self.state.step - self.saved_step
        when = f", {earlier:,} step{'s' * (earlier > 1)} earlier" if earlier else ""
        return f"The newest checkpoint is {checkpoint.checkpoint_name(self.saved_step)}{when}."

    def _best(self) -> str:
        state = self.state
        if not math.isfinite(state.best_val_loss):
            return ""
        return f"The lowest validation loss was {state.best_val_loss:.3f}, after {_steps(state.best_step)}."

    def _last_reason(self) -> str:
        """Why training is over, as a sentence; empty while it is not."""
        state, patience = self.state, self.config.train.patience
        if state.step >= state.total_steps:
            return f"Finished after {_steps(state.step)}, in epoch {(state.step - 1) // state.steps_per_epoch + 1}."
        if patience is not None and state.evaluations_since_best >= patience:
            return f"Ended early after {_steps(state.step)}: {patience} evaluations without a better validation loss."
        return ""

    def _time(self, tokens: int, seconds: float) -> None:
        self.steps_here += 1
        if self.steps_here > WARM_UP_STEPS:
            self.timed.append((tokens, seconds))

    def _tokens_per_second(self) -> float:
        seconds = sum(seconds for _, seconds in self.timed)
        return sum(tokens for tokens, _ in self.timed) / seconds if seconds else math.nan

    def _phase(self, phase: str) -> Phase:
        return Phase(step=self.last_step, phase=phase)

    def _warned(self, message: str) -> Warned:
        return Warned(step=self.last_step, message=message)

    def ended(self, reason: str, message: str) -> Ended:
        return Ended(step=self.last_step, reason=reason, message=message)


def _steps(n: int) -> str:
    return f"{n:,} step{'s' * (n != 1)}"
