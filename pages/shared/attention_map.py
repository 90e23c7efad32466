"""Attention of a text as pictures: a grid of all heads, one enlarged, and where each token looks."""

from __future__ import annotations

import base64
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from pages.shared.component import component

THUMBNAIL = 48  # pixels a side at most, in the grid


def attention_map(
    pieces: Sequence[str], weights: npt.NDArray[np.floating], *, key: str, chosen: tuple[int, int]
) -> tuple[int, int] | None:
    """Show ``weights`` [L, H, T, T] (row: the token that looks; column: what it looks at) of T display texts.

    ``chosen``: layer and head, from 0, that is enlarged. Returns those that were just pressed in the grid.
    """
    L, H = weights.shape[:2]
    thumbs = thumbnails(weights)
    large = np.round(weights[chosen].astype(np.float64) * 65535).clip(0, 65535).astype("<u2")
    data = {
        "tokens": list(pieces),
        "layers": L,
        "heads": H,
        "side": thumbs.shape[-1],
        "thumbs": base64.b64encode(thumbs.tobytes()).decode(),
        "large": base64.b64encode(large.tobytes()).decode(),
        "chosen": list(chosen),
    }
    pressed = component("attention_map")(key=key, data=data, on_chosen_change=lambda: None).chosen
    return (int(pressed["layer"]), int(pressed["head"])) if pressed else None


def thumbnails(weights: npt.NDArray[np.floating]) -> npt.NDArray[np.uint8]:
    """[L, H, T, T] -> [L, H, n, n], n at most ``THUMBNAIL``: each pixel the largest weight that falls into it."""
    T = weights.shape[-1]
    edges = np.linspace(0, T, min(T, THUMBNAIL) + 1).astype(int)[:-1]
    small = np.maximum.reduceat(np.maximum.reduceat(weights, edges, axis=-1), edges, axis=-2)
    return np.round(small.astype(np.float32) * 255).clip(0, 255).astype(np.uint8)
