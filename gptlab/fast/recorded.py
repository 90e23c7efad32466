"""An optimiser step that a GPU records once and is then started as a whole (a CUDA graph).

A step is some hundred to a thousand kernels. For a small model each of them runs for a few microseconds, less than a
processor needs to start it, so that the GPU waits most of the time. What is recorded reads and writes the same memory
each time: batches, the keys of the masks and the learning rate are copied to where it reads them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Batch = tuple[Tensor, Tensor]

AHEAD = 8  # steps that may be started before the one in work has ended: what is read back is so never far behind
SHARE = 0.5  # of the GPU's memory, that a step may need: what is recorded keeps its memory while others take theirs


Work = Callable[[Sequence[Batch], Sequence[Tensor]], Tensor]


def record(work: Work, batches: Sequence[Batch], keys: Tensor) -> RecordedStep | None:
    """``work`` on ``batches`` [B, T], recorded; None where the GPU's memory does not allow for it.

    ``work`` gets the batches and the keys of each one's masks, all on the device, and returns the step's numbers
    there, without having read anything back. It is called twice: to see what memory it needs, and to be recorded, when
    nothing is done.
    """
    side = torch.cuda.Stream()  # not the usual one: what first runs there cannot be recorded elsewhere
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        work(batches, keys.unbind(0))
    torch.cuda.current_stream().wait_stream(side)
    if torch.cuda.max_memory_allocated() > SHARE * torch.cuda.mem_get_info()[1]:
        return None
    graph, stream = torch.cuda.CUDAGraph(), torch.cuda.current_stream()
    try:
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):  # other threads may pin memory meanwhile
            numbers = work(batches, keys.unbind(0))
    except BaseException:  # PyTorch then leaves the recorder's stream in use, and its random numbers being recorded
        torch.cuda.set_stream(stream)
        generator = torch.cuda.default_generators[torch.cuda.current_device()]
        generator.graphsafe_set_state(generator.clone_state())  # of the copy nothing is recorded
        raise
    return RecordedStep(graph, batches, keys, numbers)


class RecordedStep:
    """A step that is done to whatever batches of its shapes it is called with."""

    def __init__(self, graph: torch.cuda.CUDAGraph, batches: Sequence[Batch], keys: Tensor, numbers: Tensor) -> None:
        self.graph, self.batches, self.keys, self.numbers = graph, batches, keys, numbers
        self._ends: deque[torch.cuda.Event] = deque(maxlen=AHEAD)

    def fits(self, batches: Sequence[Batch]) -> bool:
        """Whether these are of the shapes that were recorded."""
        shapes = [ids.shape for batch in batches for ids in batch]
        return shapes == [ids.shape for batch in self.batches for ids in batch]

    def __call__(self, batches: Sequence[Batch], keys: Tensor) -> Tensor:
        """Start the step; returns its numbers, on the device."""
        if len(self._ends) == AHEAD:
            self._ends[0].synchronize()
        for rooms, batch in zip(self.batches, batches, strict=True):
            for room, ids in zip(rooms, batch, strict=True):
                room.copy_(ids, non_blocking=True)
        self.keys.copy_(keys, non_blocking=True)
        self.graph.replay()
        end = torch.cuda.Event()
        end.record()
        self._ends.append(end)
        return self.numbers.clone()
