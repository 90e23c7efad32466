"""Checkpoints: written whole or not at all, loaded without running anybody's code.

``checkpoints/step-000090/`` (named by optimiser steps completed) holds ``weights.safetensors``, with the model's
configuration in its metadata; the newest one also ``resume.pt``: optimiser, progress and random states. ``best/`` holds
the weights with the lowest validation loss so far. Everything is written under a name that begins with a dot and
renamed when it is complete; an older ``resume.pt`` goes only after a newer one is in place.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from gptlab.config import ModelConfig
from gptlab.direct_file import DirectFile
from gptlab.home import free_bytes
from gptlab.model import GPTModel

WEIGHTS, RESUME, BEST = "weights.safetensors", "resume.pt", "best"
_SAVING, _REMOVING = ".saving-", ".removing-"
_HEAD = "out_head.weight"
_TYPES = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16", torch.float64: "F64"}


class SaveError(OSError):
    """A checkpoint could not be written; what was there before is as it was. Says why, in a sentence."""


def checkpoint_name(steps_completed: int) -> str:
    return f"step-{steps_completed:06d}"


def save_weights(model: GPTModel, path: Path, **facts: Any) -> None:
    """Write the model's weights to the safetensors file ``path``, its configuration and ``facts`` in the metadata.

    A tied head is stored once. The tensors are streamed to the file: no second copy of them is made in memory.
    """
    from gptlab import __version__

    tensors = dict(model.state_dict())
    if model.config.tie_weights:
        del tensors[_HEAD]
    metadata = {"format": "pt", "gptlab": __version__, "model": model.config.model_dump_json()}
    metadata |= {name: json.dumps(value) for name, value in facts.items()}
    with DirectFile(path) as file:
        file.write(_safetensors_head(tensors, metadata))
        for tensor in tensors.values():
            file.write(tensor.cpu().contiguous().view(torch.uint8).numpy())


def _safetensors_head(tensors: Mapping[str, Tensor], metadata: dict[str, str]) -> bytes:
    """What stands before the numbers of ``tensors``: its length (8 bytes) and where each of them is, as JSON.

    The package of that name writes whole files only, and through the system's cache. The format:
    https://huggingface.co/docs/safetensors.
    """
    head: dict[str, Any] = {"__metadata__": metadata}
    begin = 0
    for name, tensor in tensors.items():
        end = begin + tensor.nbytes
        head[name] = {"dtype": _TYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [begin, end]}
        begin = end
    text = json.dumps(head).encode("utf-8")
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def save_checkpoint(
    folder: Path, model: GPTModel, step: int, resume: Mapping[str, Any] | None = None, **facts: Any
) -> Path:
    """Write ``folder/step-NNNNNN`` after ``step`` completed steps; with ``resume``, what training needs to go on.

    Once it is in place, the older checkpoints lose their ``resume.pt``. SaveError where it cannot be written.
    """
    place = folder / checkpoint_name(step)
    _write(place, model, resume, {"step": step, **facts})
    if resume is not None:
        for older in step_checkpoints(folder):
            if older != place:
                (older / RESUME).unlink(missing_ok=True)
    return place


def save_best(folder: Path, model: GPTModel, step: int, **facts: Any) -> Path:
    """Write or replace ``folder/best``, weights only, after ``step`` completed steps."""
    _write(folder / BEST, model, None, {"step": step, **facts})
    return folder / BEST


def _write(place: Path, model: GPTModel, resume: Mapping[str, Any] | None, facts: dict[str, Any]) -> None:
    folder = place.parent
    temporary = None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        needed, free = size(model, resume), free_bytes(folder)
        if needed > free:
            raise SaveError(
                f"The checkpoint {place.name} needs {needed / 1e6:,.1f} MB, but only {free / 1e6:,.1f} MB are free on "
                f"the disk of {folder}: free some space."
            )
        temporary = Path(tempfile.mkdtemp(prefix=f"{_SAVING}{place.name}-", dir=folder))
        temporary.chmod(0o755)
        save_weights(model, temporary / WEIGHTS, **facts)
        (temporary / WEIGHTS).chmod(0o644)
        if resume is not None:
            with DirectFile(temporary / RESUME) as file:
                torch.save(dict(resume), file)  # type: ignore[arg-type]  # it asks for no more than ``write`` and ``flush``
        _sync(temporary)
        _put(temporary, place)
        _sync(folder)
    except SaveError:
        raise
    except (
        OSError,
        RuntimeError,
        SafetensorError,
    ) as error:  # torch and safetensors each have their own for a full disk
        reason = "the disk is full" if _looks_full(error, folder) else f"{type(error).__name__}: {error}"
        raise SaveError(f"The checkpoint {place.name} could not be written to {folder}: {reason}.") from error
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)


def _put(temporary: Path, place: Path) -> None:
    """Give the complete folder its name, also where an older one has it."""
    if not place.exists():
        os.rename(temporary, place)
    elif not (place / RESUME).exists() and not (temporary / RESUME).exists():
        os.replace(temporary / WEIGHTS, place / WEIGHTS)  # one file: readers see the old one or the new one
    else:
        aside = place.with_name(_REMOVING + place.name)
        os.rename(place, aside)
        os.rename(temporary, place)
        shutil.rmtree(aside, ignore_errors=True)


def size(model: GPTModel, resume: Mapping[str, Any] | None) -> int:
    """Bytes that a checkpoint takes, with a little room."""
    weights = sum(parameter.nbytes for parameter in model.parameters())
    return weights * (3 if resume is not None else 1) + 100_000


def _looks_full(error: Exception, folder: Path) -> bool:
    return "No space left" in str(error) or "os error 28" in str(error) or free_bytes(folder) < 1_000_000


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def step_checkpoints(folder: Path) -> list[Path]:
    """The whole ``step-*`` checkpoints in ``folder``, oldest first."""
    found = [path for path in folder.glob("step-*") if path.name[5:].isdecimal() and (path / WEIGHTS).exists()]
    return sorted(found, key=lambda path: int(path.name[5:]))


def newest_resumable(folder: Path) -> Path | None:
    """The checkpoint to go on from: the newest with ``resume.pt``, or ``folder`` itself where it is one."""
    if (folder / RESUME).exists():
        return folder
    return next((path for path in reversed(step_checkpoints(folder)) if (path / RESUME).exists()), None)


def tidy(folder: Path) -> None:
    """Remove what an interrupted write or removal has left. Only the one process that writes here may call this."""
    for leftover in (*folder.glob(f"{_SAVING}*"), *folder.glob(f"{_REMOVING}*")):
        shutil.rmtree(leftover, ignore_errors=True)


def keep_newest(folder: Path, keep: int | None, *, finished: bool = False) -> None:
    """Remove all but the ``keep`` newest step checkpoints (None: keep all).

    The newest always stays, so that a run can be resumed and asked for samples; with ``keep`` 0 its ``resume.pt`` goes
    once the run has ``finished``.
    """
    if keep is None:
        return
    present = step_checkpoints(folder)
    for path in present[: -max(keep, 1)]:
        _remove(path)
    if keep == 0 and finished and present:
        (present[-1] / RESUME).unlink(missing_ok=True)


def _remove(path: Path) -> None:
    aside = path.with_name(_REMOVING + path.name)  # out of the readers' sight at once, then gone
    os.rename(path, aside)
    shutil.rmtree(aside, ignore_errors=True)


def remove_all(folder: Path) -> None:
    """Remove every checkpoint in ``folder``."""
    for path in (*step_checkpoints(folder), folder / BEST):
        if path.exists():
            _remove(path)
    tidy(folder)


def read_facts(path: Path) -> dict[str, Any]:
    """What stands in a checkpoint's metadata: ``model`` (its configuration), ``step``, ``epoch``, ``gptlab``, ..."""
    path = _weights_file(path)
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{path} is no whole safetensors file: {error}.") from error
    if "model" not in metadata:
        raise ValueError(f"{path} does not say what model it holds: it was not written by gptlab.")
    facts: dict[str, Any] = {}
    for name, value in metadata.items():
        try:
            facts[name] = json.loads(value)
        except ValueError:
            facts[name] = value
    return facts


def load_model(path: Path | str, device: torch.device | str = "cpu") -> GPTModel:
    """The model of a checkpoint folder or of its ``weights.safetensors``, in eval mode, on ``device``.

    ValueError where the file is missing, torn or not one of gptlab's.
    """
    path = Path(path)
    facts = read_facts(path)
    try:
        config = ModelConfig.model_validate(facts["model"])
    except ValidationError as error:
        raise ValueError(
            f"{_weights_file(path)} describes no model that this version of gptlab knows: {error}"
        ) from error
    with torch.device("meta"):
        model = GPTModel(config)
    _fill(model, path, str(device), assign=True)
    model.tie_weights()
    return model.eval()


def load_weights(model: GPTModel, path: Path) -> None:
    """Fill ``model`` in place from a checkpoint of the same shape. ValueError where it does not fit."""
    _fill(model, path, "cpu", assign=False)


def _fill(model: GPTModel, path: Path, device: str, *, assign: bool) -> None:
    path = _weights_file(path)
    try:
        tensors = load_file(path, device=device)
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{path} is no whole safetensors file: {error}.") from error
    if model.config.tie_weights:
        tensors[_HEAD] = tensors["tok_emb.weight"]
    try:
        model.load_state_dict(tensors, assign=assign)
    except RuntimeError as error:
        raise ValueError(f"The weights in {path} do not fit the model: {error}") from error


def _weights_file(path: Path) -> Path:
    path = path if path.suffix == ".safetensors" else path / WEIGHTS
    if not path.is_file():
        raise ValueError(f"There is no checkpoint {path}.")
    return path


def read_resume(folder: Path) -> dict[str, Any]:
    """What a checkpoint folder's ``resume.pt`` holds, tensors on the CPU. ValueError where it is missing or torn."""
    path = folder / RESUME
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise ValueError(f"{folder} holds no {RESUME}: training cannot go on from it.") from None
    except Exception as error:
        raise ValueError(f"{path} cannot be read: {type(error).__name__}: {error}.") from error
