"""Cross-entropy of a batch and of a loader, and the evaluation of both parts of the data."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sized
from itertools import islice
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gptlab.model import GPTModel, evaluating

NAN = float("nan")


def loss_of(model: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy (nats a token) over all positions of a batch that lies where the model does."""
    logits = model(inputs)  # [B, T, V]
    return F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten())


def on_device(batch: tuple[Tensor, Tensor], device: torch.device | str) -> tuple[Tensor, Tensor]:
    """A batch's inputs and targets on ``device``; not waited for where they lie in pinned memory."""
    inputs, targets = (ids.to(device, non_blocking=ids.is_pinned()) for ids in batch)
    return inputs, targets


def calc_loss_batch(inputs: Tensor, targets: Tensor, model: nn.Module, device: torch.device | str) -> Tensor:
    """Mean cross-entropy (nats a token) over all positions of a batch, as a scalar that can be differentiated.

    ``inputs`` and ``targets`` are token ids [B, T]; the target of a position is the token that follows it.
    """
    return loss_of(model, *on_device((inputs, targets), device))


def token_losses(model: GPTModel, ids: Tensor) -> Tensor:
    """The surprise at each token but the first: cross-entropy in nats, fp32 on the CPU.

    ``ids`` [T] or [B, T], T from 2 to ``context_length + 1`` -> [T - 1] or [B, T - 1]; their mean is the loss of that
    window. No gradients, dropout off; the model's mode is as before afterwards. ValueError: T is outside that range.
    """
    T, longest = ids.shape[-1], model.config.context_length + 1
    if not 2 <= T <= longest:
        raise ValueError(f"A passage of {T:,} tokens cannot be scored: give 2 to {longest:,}, context_length and one.")
    rows = torch.atleast_2d(ids).to(model.tok_emb.weight.device)
    with evaluating(model), torch.inference_mode():
        logits = model(rows[:, :-1]).float()  # [B, T - 1, V]
        losses = F.cross_entropy(logits.flatten(0, 1), rows[:, 1:].flatten(), reduction="none")
    return losses.view(*ids.shape[:-1], T - 1).cpu()


BatchLoss = Callable[[Tensor, Tensor], float | Tensor]


def calc_loss_loader(
    loader: Iterable[Any],
    model: nn.Module,
    device: torch.device | str,
    num_batches: int | None = None,
    batch_loss: BatchLoss | None = None,
) -> float:
    """Mean of the batch losses of ``loader``, over all batches or the first ``num_batches``; NaN when there is none.

    ``batch_loss``: another way to the same loss of a batch than ``model``. No gradients, dropout off; the model's mode
    and torch's global random streams are as before afterwards.
    """
    limit = num_batches
    if isinstance(loader, Sized):
        limit = len(loader) if num_batches is None else min(num_batches, len(loader))
    losses: list[float | Tensor] = []
    with evaluating(model), torch.no_grad(), torch.random.fork_rng(devices=[]):
        for inputs, targets in islice(loader, limit):
            if batch_loss is not None:
                losses.append(batch_loss(inputs, targets))
            else:
                losses.append(calc_loss_batch(inputs, targets, model, device))
    return sum(map(float, losses)) / len(losses) if losses else NAN  # read at the end: a GPU is not waited for before


def evaluate_model(
    model: nn.Module,
    train_loader: Iterable[Any],
    val_loader: Iterable[Any],
    device: torch.device | str,
    eval_iter: int | None,
    batch_loss: BatchLoss | None = None,
) -> tuple[float, float]:
    """Training and validation loss over the first ``eval_iter`` batches of each part (None: all of them).

    Batches are read in the order of the text, whatever order the loader trains in: every evaluation reads the same
    ones. NaN for a part without a batch.
    """
    train_loss = calc_loss_loader(_InTextOrder(train_loader), model, device, eval_iter, batch_loss)
    return train_loss, calc_loss_loader(_InTextOrder(val_loader), model, device, eval_iter, batch_loss)


class _InTextOrder:
    """The batches of a DataLoader as they stand in the text; anything else that yields batches as it is."""

    def __init__(self, loader: Iterable[Any]) -> None:
        self.loader = loader

    def __iter__(self) -> Iterator[Any]:
        loader = self.loader
        if not isinstance(loader, torch.utils.data.DataLoader) or not loader.batch_size:
            yield from loader
            return
        windows, size = loader.dataset, loader.batch_size
        count = len(windows)  # type: ignore[arg-type]
        last = count - count % size if loader.drop_last else count
        for start in range(0, last, size):
            batch = torch.utils.data.default_collate([windows[i] for i in range(start, min(start + size, count))])
            yield [ids.pin_memory() for ids in batch] if loader.pin_memory else batch
