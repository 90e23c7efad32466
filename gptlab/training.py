"""The training loop: a generator of facts. It never prints, opens the store, draws or asks who is listening.

    for event in train(config, text, checkpoints=folder):
        ...

Everything random in it (first weights, order of the windows, dropout) comes from ``config.train.seed`` and from streams
of its own: torch's global random streams are the caller's again whenever an event is yielded.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path

import torch

from gptlab import checkpoint
from gptlab.acceleration import compile_step, record_step, wants_to_compile
from gptlab.checkpoint import load_weights
from gptlab.config import RunConfig
from gptlab.epoch_look import EpochLook
from gptlab.events import Ended, Evaluated, Event, Phase, Resumed, Started, Stepped, Warned
from gptlab.loaders import Data
from gptlab.out_of_memory import is_out_of_memory, lower_this
from gptlab.readback import Made, ReadBack, Speed
from gptlab.saving import Checkpoints
from gptlab.schedule import learning_rate_at
from gptlab.state import Batch, TrainState

__all__ = ["TrainState", "train"]

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
                completed, kept = state.step, trainer.checkpoints.newest()
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
        self.last_step = 0  # index of the last optimiser step made, for the events
        self.pause_next = False
        self.unread, self.speed = ReadBack(), Speed()
        self.checkpoints = Checkpoints(state, folder, config.train.keep_checkpoints, lambda: self.last_step)
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
                    yield self.ended("failed", f"The last checkpoint could not be saved. {self.checkpoints.newest()}")
                    return
                break
            yield self._phase("training")
        self.checkpoints.finish()
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
        self.checkpoints.saved_step = state.step if found is not None else None
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
        if wants_to_compile(state):
            yield self._phase("compiling")
            reason = compile_step(state)
            if reason is not None:
                yield self._warned(f"The model could not be compiled, so it trains without that: {reason}")
        reason = record_step(state)
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
            yield from self.checkpoints.written(wait=False)
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
            self.speed.add(made.n_tokens, read.seconds)
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
                tokens_per_second=self.speed.tokens_per_second(),
            )
            if not applied:
                yield from self.checkpoints.written(wait=True)
                what = "gradient" if math.isfinite(read.loss) else "loss"
                why = f"The {what} of step {made.step:,} is not a finite number"
                yield self._diverged(f"{why}, so that step was not applied")
                return False
        return True

    def _evaluate(self, epoch: int) -> Iterator[Event]:
        state = self.state
        yield self._phase("evaluating")
        train_loss, val_loss = state.evaluate()
        yield Evaluated(
            step=self.last_step, epoch=epoch, tokens_seen=state.tokens_seen, train_loss=train_loss, val_loss=val_loss
        )
        if state.best_step == state.step:
            yield from self.checkpoints.save_best(epoch, val_loss)
        yield self._phase("training")

    def _look(self, epoch: int) -> Iterator[Event]:
        yield self._phase("sampling")
        yield from self.look.samples(self.last_step, epoch)
        yield from self.look.probes(self.last_step, epoch)

    def _save(self, reason: str, epoch: int, *, wait: bool) -> Generator[Event, None, bool | None]:
        """Save a checkpoint. False: it cannot be written. None: the weights are spoilt, it is over."""
        yield from self.checkpoints.written(wait=True)
        if self.folder is not None and not self.state.is_finite():
            made = _steps(self.state.step)
            yield self._diverged(f"After {made} some weights are no longer finite numbers, so they were not saved")
            return None
        return (yield from self.checkpoints.save(reason, epoch, wait=wait))

    def _stop(self, epoch: int) -> Iterator[Event]:
        saved = yield from self._save("stopped", epoch, wait=True)
        if saved is not None:
            stopped = f"Stopped after {_steps(self.state.step)}, in epoch {epoch}."
            how = "Resuming goes on from there." if saved else "It could not be saved there."
            kept = f"{self.checkpoints.newest()} {how if self.folder is not None else ''}"
            yield self.ended("stopped", f"{stopped} {kept}".strip())

    def _discard(self) -> Iterator[Event]:
        yield from self.checkpoints.written(wait=True)
        self.checkpoints.remove_all()
        message = f"Stopped after {_steps(self.state.step)}; its checkpoints were deleted, its log is kept."
        yield self.ended("discarded", message)

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

    def _phase(self, phase: str) -> Phase:
        return Phase(step=self.last_step, phase=phase)

    def _warned(self, message: str) -> Warned:
        return Warned(step=self.last_step, message=message)

    def _diverged(self, what: str) -> Ended:
        rate = self.config.optim.learning_rate
        remedy = f"lower learning_rate (now {rate:g}) or set grad_clip"
        return self.ended("failed", f"{what}: {remedy}. {self.checkpoints.newest()}")

    def ended(self, reason: str, message: str) -> Ended:
        return Ended(step=self.last_step, reason=reason, message=message)


def _steps(n: int) -> str:
    return f"{n:,} step{'s' * (n != 1)}"
