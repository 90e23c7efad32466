"""Checkpoints written while training goes on: of a copy of the weights, one at a time, in a thread.

Writing 124M weights and what training needs to go on takes a disk four seconds, copying them a quarter of one.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gptlab.checkpoint import SaveError
from gptlab.device import free_memory
from gptlab.model import GPTModel

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
