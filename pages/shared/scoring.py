"""A passage scored by the weights that a run kept, in a thread while a page looks on. No Streamlit."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from gptlab.probing import Passage
from gptlab.runs import CheckpointInfo, Run
from pages.shared.watched_thread import PATIENCE, WatchedThread

if TYPE_CHECKING:
    from gptlab.model import GPTModel

MOST_CHECKPOINTS = 40


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


class Scoring(WatchedThread):
    """The losses of a passage under each of some weights. ``passage`` and ``done`` grow; ``fault`` says why not."""

    broke_off = "Scoring broke off"

    def __init__(
        self,
        passage: Passage,
        kept: Sequence[Kept],
        open_model: Callable[[CheckpointInfo], GPTModel],
        *,
        sparing: bool = False,
        patience: float = PATIENCE,
    ) -> None:
        super().__init__("score-a-passage", sparing=sparing, patience=patience)
        self.passage, self.kept, self.done = passage, list(kept), 0
        self.seconds = 0.0
        self._open_model = open_model

    def work(self) -> None:
        began = time.monotonic()
        try:
            self._score()
        finally:
            self.seconds = time.monotonic() - began

    def _score(self) -> None:
        import torch

        from gptlab.loss import token_losses

        ids = torch.tensor(self.passage.token_ids)
        for item in self.kept:
            if self.stopped or self.left:
                return
            model = self._open_model(item.checkpoint)
            self.use_cores_for(model)
            losses = tuple(token_losses(model, ids).tolist())
            self.passage = replace(self.passage, losses={**self.passage.losses, item.epoch: losses})
            self.done += 1
