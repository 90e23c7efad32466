"""The two parts of the data as loaders of batches, after everything that may be wrong with them was told."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from gptlab.config import DataConfig, RunConfig
from gptlab.dataset import check_lengths, create_dataloader, split_text
from gptlab.published_order import PublishedLoader
from gptlab.tokenizer import text_to_token_ids

Data = str | tuple[Any, Any]
Loader = DataLoader | PublishedLoader


def make_loaders(data: Data, config: RunConfig, device: torch.device) -> tuple[Loader, Loader, list[str]]:
    """Loaders of the training and the validation part, and what is to be warned of.

    ``data``: the text, or the token ids of both parts. ValueError with everything that is wrong with it.
    """
    train_ids, val_ids = (_as_ids(part) for part in _parts(data, config.data))
    report = check_lengths(len(train_ids), len(val_ids), config)
    faults = [*report.faults, *_outside_vocabulary(train_ids, val_ids, config.model.vocab_size)]
    if faults:
        raise ValueError(" ".join(faults))
    train_loader = _loader(train_ids, config, device, training=True)
    return train_loader, _loader(val_ids, config, device, training=False), list(report.warnings)


def _parts(data: Data, config: DataConfig) -> tuple[Any, Any]:
    if isinstance(data, str):
        first, second = split_text(data, config.train_ratio)
        return text_to_token_ids(first)[0], text_to_token_ids(second)[0]
    return data


def _as_ids(part: Any) -> Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a read-only array is fine: nothing writes to it
        return torch.as_tensor(part).flatten()


def _outside_vocabulary(train_ids: Tensor, val_ids: Tensor, vocab_size: int) -> list[str]:
    largest = max((int(ids.max()) for ids in (train_ids, val_ids) if len(ids)), default=0)
    if largest < vocab_size:
        return []
    return [
        f"The text holds token id {largest}, beyond vocab_size {vocab_size:,}: raise it to at least {largest + 1:,}."
    ]


def _loader(ids: Tensor, config: RunConfig, device: torch.device, *, training: bool) -> Loader:
    if config.data.order == "published":
        return PublishedLoader(ids, config, training=training)
    return create_dataloader(
        ids,
        batch_size=config.data.batch_size,
        context_length=config.model.context_length,
        stride=config.data.stride,
        shuffle=config.data.shuffle and training,
        drop_last=config.data.drop_last and training,
        num_workers=config.data.num_workers if training else 0,
        seed=config.train.seed,
        pin_memory=device.type == "cuda",
    )
