from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import torch

from gptlab import device
from gptlab.config import RunConfig
from gptlab.device import available_devices, free_memory, pick_device, precision_for, resolve_precision
from gptlab.fast import precision


def test_the_cpu_is_always_there_and_comes_last() -> None:
    last = available_devices()[-1]
    assert last.name == "cpu"
    assert "core" in last.label
    assert last.memory_bytes is None or last.memory_bytes > 1e8


@pytest.mark.parametrize(
    ("limit", "used", "free"), [("1000", 900, 150), ("1000", 1100, 0), ("max", 900, 10**6), (None, 900, 10**6)]
)
def test_free_memory_is_what_a_container_has_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str | None, used: int, free: int
) -> None:
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=10**6))
    monkeypatch.setattr(device, "_SHARE", tmp_path)
    (tmp_path / "memory.current").write_text(f"{used}\n")
    (tmp_path / "memory.stat").write_text("anon 700\ninactive_file 50\n")
    if limit is not None:
        (tmp_path / "memory.max").write_text(f"{limit}\n")
    assert free_memory() == free


def test_a_device_that_is_not_here_is_refused_with_those_that_are() -> None:
    with pytest.raises(ValueError, match=r"There is no device 'cuda:99' on this machine: use auto or .*cpu"):
        pick_device("cuda:99")


@pytest.mark.parametrize(
    ("present", "chosen"), [(["cuda:0", "mps", "cpu"], "cuda:0"), (["mps", "cpu"], "mps"), (["cpu"], "cpu")]
)
def test_the_automatic_choice_is_cuda_then_mps_then_cpu(
    monkeypatch: pytest.MonkeyPatch, present: list[str], chosen: str
) -> None:
    monkeypatch.setattr(device, "available_devices", lambda: [device.DeviceInfo(name, name) for name in present])
    assert pick_device() == torch.device(chosen)
    assert pick_device("cpu") == torch.device("cpu")


def test_cuda_means_the_first_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "available_devices", lambda: [device.DeviceInfo("cuda:0", "a GPU")])
    assert pick_device("cuda") == torch.device("cuda:0")


@pytest.mark.parametrize(("native", "automatic"), [(True, "bf16"), (False, "fp32")])
def test_automatic_precision_is_bf16_where_there_are_instructions_for_it(
    monkeypatch: pytest.MonkeyPatch, native: bool, automatic: str
) -> None:
    monkeypatch.setattr(precision, "multiplies_bf16", lambda: native)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: native)
    for there in (torch.device("cpu"), torch.device("cuda:0")):
        assert resolve_precision("auto", there) == automatic
        assert precision_for(RunConfig(), there) == automatic
        assert precision_for(RunConfig().with_fields(data={"order": "published"}), there) == "fp32"
    cpu = torch.device("cpu")
    assert [resolve_precision(name, cpu) for name in ("fp32", "bf16")] == ["fp32", "bf16"]
    assert resolve_precision("auto", torch.device("mps")) == "fp32"
    with pytest.raises(ValueError, match="no precision 'fp8'"):
        resolve_precision("fp8", cpu)
