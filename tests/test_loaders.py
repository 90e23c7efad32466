"""The loaders of both parts fit the device that reads them."""

from __future__ import annotations

import pytest
import torch

from gptlab.loaders import make_loaders
from tests.small_models import parts, run_config


@pytest.mark.parametrize("device", ["cpu", "mps", "cuda", "cuda:1"])
def test_batches_are_pinned_for_a_gpu_that_can_fetch_them(device: str) -> None:
    train, val, warnings = make_loaders(parts(), run_config(), torch.device(device))
    assert [train.pin_memory, val.pin_memory] == [device.startswith("cuda")] * 2  # type: ignore[union-attr]
    assert (len(train), len(val), warnings) == (5, 2, [])
