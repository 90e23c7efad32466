"""The published exercise's order of random numbers, for who wants its very figures and not only the same exercise.

The exercise seeds torch's global stream once, builds the model, and then takes everything from that one stream:
dropout, the order of each epoch's windows, and each evaluation, which reads the shuffled training part in yet another
order and so moves on all that follows. gptlab's own order has none of that: an evaluation changes nothing, and an
epoch's order depends on seed and epoch alone. This room holds all that the other way needs: ``data.order: published``.

The draws are those of ``torch.utils.data``: a loader takes a base seed whenever it is iterated, and a shuffling sampler
takes the seed of a stream of its own, which the permutation comes from.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import default_collate

from gptlab.config import RunConfig
from gptlab.dataset import GPTDataset, n_batches
from gptlab.loss import NAN, calc_loss_batch
from gptlab.model import evaluating


class PublishedLoader:
    """Batches ``(inputs, targets)``, each int64 ``[B, T]``, of a part, drawn as the exercise's loader draws them.

    Each iteration takes from torch's global stream. ``epoch_seed`` is that of the order in which the current epoch is
    read: a checkpoint keeps it, so that a resumed run goes on in the middle of that order.
    """

    def __init__(self, token_ids: Tensor, config: RunConfig, *, training: bool) -> None:
        self.dataset = GPTDataset(token_ids.to(torch.long), config.model.context_length, config.data.stride)
        self.batch_size = config.data.batch_size
        self.shuffle = config.data.shuffle and training
        self.drop_last = config.data.drop_last and training
        self.epoch_seed = 0

    def __len__(self) -> int:
        return n_batches(len(self.dataset), self.batch_size, self.drop_last)

    def __iter__(self) -> Iterator[Any]:
        return self._batches(self._drawn())

    def epoch(self, *, begun: bool) -> Iterator[Any]:
        """All batches of the current epoch; one that has ``begun`` before has drawn its order already."""
        if not begun:
            self.epoch_seed = self._drawn()
        return self._batches(self.epoch_seed)

    def _drawn(self) -> int:
        base = _draw()  # the loader's own, for processes that prepare batches: drawn without them too
        return _draw() if self.shuffle else base

    def _batches(self, seed: int) -> Iterator[Any]:
        order = list(range(len(self.dataset)))
        if self.shuffle:
            order = torch.randperm(len(order), generator=torch.Generator().manual_seed(seed)).tolist()
        for first in range(0, len(self) * self.batch_size, self.batch_size):
            yield default_collate([self.dataset[window] for window in order[first : first + self.batch_size]])


def _draw() -> int:
    """A seed from torch's global stream, as ``torch.utils.data`` takes one."""
    return int(torch.empty((), dtype=torch.int64).random_().item())


def evaluate_in_order(
    model: nn.Module, train_loader: PublishedLoader, val_loader: PublishedLoader, device: torch.device, eval_iter: int
) -> tuple[float, float]:
    """Training and validation loss over the first ``eval_iter`` batches of each part; NaN for one without a batch.

    The training part is read in an order that this evaluation draws, so each one reads other windows.
    """
    with evaluating(model), torch.no_grad():
        return _loss(model, train_loader, device, eval_iter), _loss(model, val_loader, device, eval_iter)


def _loss(model: nn.Module, loader: PublishedLoader, device: torch.device, most: int) -> float:
    if not len(loader):
        return NAN
    losses = [calc_loss_batch(inputs, targets, model, device).item() for inputs, targets in islice(loader, most)]
    return sum(losses) / len(losses)
