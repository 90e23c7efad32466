"""Torch's global random streams, one set for training and one for whoever runs it."""

from __future__ import annotations

import torch
from torch import Tensor


class RandomStreams:
    """Torch's global random streams (CPU, and the device's) as training sees them, kept apart from the caller's.

    Inside ``with streams:`` they are training's, outside they are the caller's: what is drawn between two events, by a
    sample or by anything else, never changes the training that follows, and training never changes what a caller draws.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._other = self.read()

    def read(self) -> dict[str, Tensor]:
        streams = {"cpu": torch.get_rng_state()}
        if self.device.type == "cuda":
            streams["cuda"] = torch.cuda.get_rng_state(self.device)
        elif self.device.type == "mps":
            streams["mps"] = torch.mps.get_rng_state()
        return streams

    def write(self, streams: dict[str, Tensor]) -> None:
        torch.set_rng_state(streams["cpu"])
        if self.device.type == "cuda" and "cuda" in streams:
            torch.cuda.set_rng_state(streams["cuda"], self.device)
        elif self.device.type == "mps" and "mps" in streams:
            torch.mps.set_rng_state(streams["mps"])

    def _swap(self) -> None:
        current = self.read()
        self.write(self._other)
        self._other = current

    def __enter__(self) -> RandomStreams:
        self._swap()
        return self

    def __exit__(self, *_: object) -> None:
        self._swap()
