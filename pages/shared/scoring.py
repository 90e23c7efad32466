"""A passage scored by the weights that a run kept, in a thread while a page looks on. No Streamlit."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from gptlab.probing import Passage
from gptlab.runs import CheckpointInfo, Run

if TYPE_CHECKING:
    from gptlab.model import GPTModel

PATIENCE = 10.0  # seconds that the thread goes on while no page looks
MOST_CHECKPOINTS = 40
SMALL_MODEL = 40_000_000  # parameters: below, a second core costs more waiting than it saves work


@dataclass(frozen=True)
class Kept:
    """A checkpoint, and the epoch that its weights are from."""

    epoch: int
    checkpoint: CheckpointInfo


def kept_epochs(run: Run, most: int = MOST_CHECKPOINTS) -> list[Kept]:
    """The checkpoints of a run, one for each epoch, of very many so many; ``best`` only where there is no other."""
    epochs = {saved.checkpoint: saved.epoch for saved in run.log().saved if saved.epoch}
    found: dict[int, CheckpointInfo] = {}
    for item in run.checkpoints():
        epoch = epochs.get(item.name)
        if epoch is not None and (item.name != "best" or not found):
            found[epoch] = item
    known = sorted(found)
    if len(known) > most:
        known = sorted({known[round(k * (len(known) - 1) / (most - 1))] for k in range(most)})
    return [Kept(epoch, found[epoch]) for epoch in known]


class Scoring:
    """The losses of a passage under each of some weights. ``passage`` and ``done`` grow; ``fault`` says why not."""

    def __init__(
        self,
        passage: Passage,
        kept: Sequence[Kept],
        open_model: Callable[[CheckpointInfo], GPTModel],
        *,
        sparing: bool = False,
        patience: float = PATIENCE,
    ) -> None:
        self.passage, self.kept, self.done, self.fault = passage, list(kept), 0, ""
        self.seconds = 0.0
        self._open_model, self._sparing, self._patience = open_model, sparing, patience
        self._stop, self._ended = threading.Event(), threading.Event()
        self._watched = time.monotonic()
        self._thread = threading.Thread(target=self._work, name="score-a-passage", daemon=True)

    def start(self) -> Scoring:
        self._thread.start()
        return self

    def stop(self) -> None:
        """Ask the thread to end after the weights that it is at."""
        self._stop.set()

    def watch(self) -> None:
        """Say that somebody is still looking."""
        self._watched = time.monotonic()

    def wait(self, seconds: float | None = None) -> bool:
        """Wait for the end, at most ``seconds``. True: it has ended."""
        return self._ended.wait(seconds)

    @property
    def active(self) -> bool:
        return not self._ended.is_set()

    def _work(self) -> None:
        began = time.monotonic()
        try:
            self._score()
        except ValueError as error:
            self.fault = str(error)
        except Exception as error:
            memory = "out of memory" in str(error).lower() or isinstance(error, MemoryError)
            reason = "there is not enough memory for this model" if memory else f"{type(error).__name__}: {error}"
            self.fault = f"Scoring broke off: {reason}."
        finally:
            self.seconds = time.monotonic() - began
            self._ended.set()

    def _score(self) -> None:
        import torch

        from gptlab.device import available_cores
        from gptlab.loss import token_losses

        ids = torch.tensor(self.passage.token_ids)
        for item in self.kept:
            if self._stop.is_set() or time.monotonic() - self._watched > self._patience:
                return
            model = self._open_model(item.checkpoint)
            torch.set_num_threads(1 if self._sparing or model.n_parameters < SMALL_MODEL else available_cores())
            losses = tuple(token_losses(model, ids).tolist())
            self.passage = replace(self.passage, losses={**self.passage.losses, item.epoch: losses})
            self.done += 1
