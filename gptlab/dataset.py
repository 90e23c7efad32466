"""From a text to batches of windows: split, cut, shuffle.

Everything that only counts (``split_text``, ``window_starts``, ``n_batches``, ``check_lengths``, ``epoch_order``) needs
no torch, and neither does importing this module: a map-style data set is any object with a length and an index.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from gptlab.tokenizer import encode_text

if TYPE_CHECKING:
    import torch
    from torch.utils.data import DataLoader

    from gptlab.config import RunConfig

NOISY_VALIDATION = 4  # windows below which a validation loss says little


def split_text(text: str, train_ratio: float) -> tuple[str, str]:
    """The first ``train_ratio`` of the characters, for training, and the rest, for validation."""
    cut = int(train_ratio * len(text))
    return text[:cut], text[cut:]


def window_starts(n_tokens: int, context_length: int, stride: int | None = None) -> range:
    """Where windows begin: each needs ``context_length`` tokens and one more, the last target."""
    return range(0, max(0, n_tokens - context_length), stride or context_length)


def n_batches(n_windows: int, batch_size: int, drop_last: bool) -> int:
    """Batches in one epoch."""
    return n_windows // batch_size if drop_last else -(-n_windows // batch_size)


def epoch_order(n_windows: int, seed: int, epoch: int, shuffle: bool = True) -> npt.NDArray[np.int64]:
    """Window indices ``[n_windows]`` in the order in which ``epoch`` reads them: the same for the same arguments."""
    if not shuffle:
        return np.arange(n_windows)
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence((seed, epoch)))).permutation(n_windows)


class GPTDataset:
    """Windows over one tensor of token ids: item ``i`` is ``(inputs, targets)``, both ``[T]``, views without a copy.

    The targets are the inputs shifted by one token. ``stride`` is the distance of two starts (default: no overlap).
    """

    def __init__(self, token_ids: torch.Tensor, context_length: int, stride: int | None = None) -> None:
        self.token_ids = token_ids.reshape(-1)  # [n]
        self.context_length = context_length
        self.starts = window_starts(len(self.token_ids), context_length, stride)

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        start = self.starts[index]
        end = start + self.context_length
        return self.token_ids[start:end], self.token_ids[start + 1 : end + 1]


class EpochSampler:
    """Yields window indices; ``set_epoch`` chooses the order. It holds no random state of its own."""

    def __init__(self, n_windows: int, seed: int, shuffle: bool) -> None:
        self.n_windows, self.seed, self.shuffle = n_windows, seed, shuffle
        self.epoch = 1

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return self.n_windows

    def __iter__(self) -> Iterator[int]:
        return map(int, epoch_order(self.n_windows, self.seed, self.epoch, self.shuffle))


def create_dataloader(
    text: str | torch.Tensor | npt.NDArray[np.integer],
    batch_size: int = 4,
    context_length: int = 256,
    stride: int | None = None,
    shuffle: bool = True,
    drop_last: bool = True,
    num_workers: int = 0,
    seed: int = 123,
    pin_memory: bool = False,
) -> DataLoader[tuple[torch.Tensor, torch.Tensor]]:
    """Batches ``(inputs, targets)``, each int64 ``[B, T]``, of a text or of its token ids.

    The order of an epoch depends on ``seed`` and on ``loader.sampler.set_epoch(epoch)`` alone (epochs count from 1),
    and iterating never draws from torch's global random stream. ``pin_memory``: batches lie where a GPU can fetch them
    by itself, while the processor goes on.
    """
    import torch
    from torch.utils.data import DataLoader

    ids = torch.as_tensor(encode_text(text) if isinstance(text, str) else text).to(torch.long)
    dataset = GPTDataset(ids, context_length, stride)
    return DataLoader(
        dataset,  # type: ignore[arg-type]
        batch_size=batch_size,
        sampler=EpochSampler(len(dataset), seed, shuffle),
        drop_last=drop_last,
        num_workers=num_workers,
        pin_memory=pin_memory,
        generator=torch.Generator().manual_seed(seed),  # the loader draws its workers' seeds here, not globally
    )


@dataclass(frozen=True)
class LengthReport:
    """What a split gives under a configuration. With ``faults`` training cannot start; ``warnings`` are advice."""

    train_windows: int
    val_windows: int
    train_batches: int
    val_batches: int
    faults: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def check_lengths(n_train_tokens: int, n_val_tokens: int, config: RunConfig) -> LengthReport:
    """Whether both parts are long enough for ``config``: every fault and warning at once, each with its remedy."""
    length, data = config.model.context_length, config.data
    stride = data.stride or length
    train_windows = len(window_starts(n_train_tokens, length, stride))
    val_windows = len(window_starts(n_val_tokens, length, stride))
    train_batches = n_batches(train_windows, data.batch_size, data.drop_last)
    faults, warnings = [], []
    if train_windows == 0:
        faults.append(
            f"The training part has {n_train_tokens:,} tokens, fewer than {_one_window(length)}: "
            f"{_shorter(n_train_tokens)}raise train_ratio (now {data.train_ratio:g}) or use a longer text."
        )
    elif train_batches == 0:
        faults.append(
            f"The training part has {train_windows:,} window{'s' * (train_windows > 1)}, fewer than "
            f"batch_size {data.batch_size:,}, and drop_last leaves out a batch that is not full: "
            f"lower batch_size to {train_windows:,}, shorten the context, or switch drop_last off."
        )
    if val_windows == 0:
        warnings.append(
            f"The validation part has {n_val_tokens:,} tokens, fewer than {_one_window(length)}, so there will be "
            f"no validation loss: {_shorter(n_val_tokens)}lower train_ratio (now {data.train_ratio:g}) "
            "or use a longer text."
        )
    elif val_windows < NOISY_VALIDATION:
        warnings.append(
            f"Validation is {val_windows} window{'s' * (val_windows > 1)}, so its loss is noisy: "
            f"lower train_ratio (now {data.train_ratio:g}) or shorten the context for {NOISY_VALIDATION} or more."
        )
    if stride > length:
        warnings.append(
            f"stride {stride:,} is longer than context_length {length:,}, so {1 - length / stride:.0%} of the tokens "
            f"are never read: lower stride to {length:,} or leave it empty."
        )
    return LengthReport(
        train_windows, val_windows, train_batches, n_batches(val_windows, data.batch_size, False), faults, warnings
    )


def _one_window(length: int) -> str:
    return f"context_length {length:,} plus the one token after it"


def _shorter(n_tokens: int) -> str:
    return f"shorten the context (to at most {n_tokens - 1:,}), " if n_tokens > 1 else ""
