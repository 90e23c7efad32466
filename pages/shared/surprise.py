"""How surprised a model is by a text, token by token, and in one number that texts can be compared by."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from pages.shared.look import number
from pages.shared.token_strip import Token, token_strip, tokens_of


def surprise_tokens(ids: Sequence[int], losses: npt.NDArray[np.floating]) -> list[Token]:
    """Tokens for a strip: each but those before the first loss tinted by the probability that the model gave it."""
    unknown = len(ids) - len(losses)
    scored = (math.exp(-float(loss)) if not math.isnan(loss) else None for loss in losses)
    chances: list[float | None] = [*[None] * unknown, *scored]
    tokens = tokens_of(ids, chances)
    for token in tokens[:unknown]:
        token |= {"plain": True, "title": "nothing stands before it: not scored"}
    for token, loss in zip(tokens[unknown:], losses, strict=True):
        token["title"] = f"surprise {number(float(loss), 2)} nats"
    return tokens


def surprise_strip(
    ids: Sequence[int], losses: npt.NDArray[np.floating], *, key: str, height: int | None = None
) -> None:
    token_strip(
        surprise_tokens(ids, losses), key=key, height=height, legend=True,
        label="The text, each token tinted by how much it surprises the model",
    )  # fmt: skip
