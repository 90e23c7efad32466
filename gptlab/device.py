"""What this machine can train on, and in which numbers. PyTorch is imported only when a function is called."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import torch

    from gptlab.config import RunConfig


_SHARE = Path("/sys/fs/cgroup")  # where Linux says what a container may have


@dataclass(frozen=True)
class DeviceInfo:
    """A device: the name that a configuration uses, a label for people, its memory (None: not known)."""

    name: str
    label: str
    memory_bytes: int | None = None


def available_devices() -> list[DeviceInfo]:
    """Every device that is here, the automatic choice first: CUDA, then Apple MPS, then the CPU."""
    import torch

    devices = []
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(index)
            devices.append(DeviceInfo(f"cuda:{index}", properties.name, properties.total_memory))
    if torch.backends.mps.is_available():
        devices.append(DeviceInfo("mps", "Apple GPU", _cpu_memory()))
    cores = available_cores()
    label = f"CPU, {cores} core{'s' if cores != 1 else ''}"
    devices.append(DeviceInfo("cpu", label, _cpu_memory()))
    return devices


def available_cores() -> int:
    """Processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _cpu_memory() -> int | None:
    """Main memory, or the limit that a container sets on it."""
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return None
    for limit in ("memory.max", "memory/memory.limit_in_bytes"):
        try:
            total = min(total, int((_SHARE / limit).read_text()))
        except (OSError, ValueError):
            continue
    return total


def free_memory() -> int:
    """Bytes of main memory that could be had now: the machine's, or what is left of a container's share."""
    import psutil

    free = psutil.virtual_memory().available
    try:
        left = int((_SHARE / "memory.max").read_text()) - int((_SHARE / "memory.current").read_text())
        facts = dict(line.split() for line in (_SHARE / "memory.stat").read_text().splitlines())
        free = min(free, left + int(facts["inactive_file"]))  # of the files read or written: given up when asked for
    except (OSError, ValueError, KeyError):
        pass  # no share is set, or there are none on such a system
    return max(free, 0)


def pick_device(name: str = "auto") -> torch.device:
    """The device of that name (``auto``, ``cpu``, ``cuda``, ``cuda:1``, ``mps``).

    ``auto`` is CUDA, then Apple MPS, then the CPU. A device that is not here is a ValueError that lists those that are.
    """
    import torch

    present = [device.name for device in available_devices()]
    wanted = present[0] if name == "auto" else "cuda:0" if name == "cuda" else name
    if wanted not in present:
        raise ValueError(f"There is no device {name!r} on this machine: use auto or {' or '.join(present)}.")
    return torch.device(wanted)


def resolve_precision(name: str, device: torch.device) -> Literal["fp32", "bf16"]:
    """The numbers that matrix products use: ``auto`` is bf16 where the device has instructions for it, else fp32."""
    if name not in ("auto", "fp32", "bf16"):
        raise ValueError(f"There is no precision {name!r}: use auto, fp32 or bf16.")
    if name == "auto":
        return "bf16" if multiplies_bf16(device) else "fp32"
    if name == "bf16" and device.type == "cuda":
        import torch

        if not torch.cuda.is_bf16_supported():
            raise ValueError("This GPU has no bf16 arithmetic: use precision fp32.")
    return "bf16" if name == "bf16" else "fp32"


def precision_for(config: RunConfig, device: torch.device) -> Literal["fp32", "bf16"]:
    """The precision that a run trains with on ``device``; the published order is fp32 everywhere."""
    return "fp32" if config.data.order == "published" else resolve_precision(config.train.precision, device)


def multiplies_bf16(device: torch.device) -> bool:
    """Whether the device has instructions for bf16 products; without them bf16 is slower than fp32."""
    import torch

    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu":
        return False
    from gptlab.fast import precision

    return precision.multiplies_bf16()


def describe_machine() -> str:
    """Processor and system in a few words, to tell timings of different machines apart."""
    model = ""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    except OSError:
        model = platform.processor()
    return f"{platform.system()} {platform.machine()} {model} x{available_cores()}"
