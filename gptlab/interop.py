"""Weights from elsewhere and for elsewhere: state dicts with the published exercise's names, which are ours too."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from gptlab.model import GPTModel

_HEAD, _EMBEDDING = "out_head.weight", "tok_emb.weight"
_MASK = re.compile(r"trf_blocks\.\d+\.att\.mask")  # buffers that those files hold and no model here needs


def load_reference_state_dict(model: GPTModel, state_dict: Mapping[str, Any]) -> None:
    """Fill ``model`` in place from a state dict with the reference names, such as the exercise's ``model.pth``.

    The ``att.mask`` buffers in such files are ignored. A tied model takes files with the head, which must then equal
    the token embedding, and without. Every missing, unexpected or misshapen name is told in one ValueError, and then
    nothing has been changed.
    """
    places = to_reference_state_dict(model)
    given = {name: value for name, value in state_dict.items() if not _MASK.fullmatch(name)}
    tied = model.config.tie_weights
    missing = [name for name in places if name not in given and not (tied and name == _HEAD)]
    unexpected = [name for name in given if name not in places]
    misshapen = [
        f"{name} (is {_shape(given[name])}, the model has {_shape(place)})"
        for name, place in places.items()
        if name in given and _shape(given[name]) != _shape(place)
    ]
    kinds = {"missing": missing, "unexpected": unexpected, "of another shape": misshapen}
    faults = [f"{kind}: {', '.join(names)}" for kind, names in kinds.items() if names]
    if not faults and tied and _HEAD in given and not torch.equal(given[_HEAD].cpu(), given[_EMBEDDING].cpu()):
        faults = [f"{_HEAD} differs from {_EMBEDDING}, but the model has tie_weights: switch it off"]
    if faults:
        remedy = " These are the weights of a tied model: switch tie_weights on." if missing == [_HEAD] else ""
        raise ValueError(f"The weights do not fit the model: {'; '.join(faults)}.{remedy}")
    with torch.no_grad():
        for name, place in places.items():
            if name in given:
                place.copy_(given[name])


def to_reference_state_dict(model: GPTModel) -> dict[str, Tensor]:
    """The model's weights under the reference names, in the reference's order: views, no copies, on its device."""
    return {name: value.detach() for name, value in model.state_dict().items()}


def _shape(value: Any) -> list[int] | str:
    return list(value.shape) if isinstance(value, Tensor) else type(value).__name__
