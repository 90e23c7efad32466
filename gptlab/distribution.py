"""The next token's distribution before and after the controls: temperature, top-k, top-p, min-p, repetition penalty.

The order and the meaning are Hugging Face's: penalty (Keskar et al. 2019, CTRL), temperature, top-k, top-p (Holtzman et
al. 2020, "The Curious Case of Neural Text Degeneration"), min-p (Nguyen et al. 2024, "Turning Up the Heat"). They
differ where tokens tie: top-k and top-p here keep exactly as many tokens as they say, and of equals the ones that
sort first; Hugging Face's top-k keeps every token that equals the k-th.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from gptlab.config import SamplingConfig

_SOME = 1024  # tokens among which top-p is looked for first


class Chance(NamedTuple):
    """One token's probability as the model says (``before``) and as it is drawn (``after``; 0.0 where it is cut)."""

    id: int
    before: float
    after: float


@dataclass(frozen=True, eq=False)
class Distribution:
    """What a model says of the next token, and what the controls leave of it.

    ``before`` [V] (fp32) are the model's own probabilities. ``candidates`` [n] are the ids that the controls leave, in
    the order in which they are drawn from, ``chances`` [n] (fp64, sum 1) their probabilities. ``remaining`` says how
    many tokens are left after each control that is on, by its name in ``SamplingConfig``.
    """

    before: Tensor
    candidates: Tensor
    chances: Tensor
    remaining: tuple[tuple[str, int], ...]

    @cached_property
    def after(self) -> Tensor:
        """Probabilities [V] (fp64) with which tokens are drawn: 0 for those that the controls cut."""
        spread = torch.zeros(len(self.before), dtype=self.chances.dtype)
        spread[self.candidates] = self.chances
        return spread

    @property
    def n_kept(self) -> int:
        """Tokens that can be drawn. Chances that are 0 in fp64 do not count."""
        return int((self.chances > 0).sum())

    @property
    def entropy_before(self) -> float:
        """Nats."""
        return entropy(self.before)

    @property
    def entropy_after(self) -> float:
        """Nats; 0.0 where one token is left."""
        return entropy(self.chances)

    def likeliest(self, n: int = 20) -> tuple[Chance, ...]:
        """The ``n`` tokens that the model finds likeliest, and those among the ``n`` likeliest to be drawn.

        Ordered by the model's own probability; between n and 2n tokens, because a repetition penalty reorders them.
        """
        of_model = self.before.topk(min(n, len(self.before))).indices.tolist()
        drawn = self.candidates[self.chances.topk(min(n, len(self.chances))).indices].tolist()
        ids = dict.fromkeys([*of_model, *(i for i in drawn if self.after[i] > 0)])
        rows = (Chance(i, float(self.before[i]), float(self.after[i])) for i in ids)
        return tuple(sorted(rows, key=lambda row: -row.before))


def entropy(probabilities: Tensor) -> float:
    """Shannon's entropy of ``probabilities`` [n], in nats. Its exponential is an effective number of choices."""
    wide = probabilities.double()
    return float(-torch.special.xlogy(wide, wide).sum()) + 0.0  # never -0.0


def filtered_distribution(logits: Tensor, context: Sequence[int], sampling: SamplingConfig) -> Distribution:
    """What ``logits`` [V] of the token after ``context`` amount to under ``sampling``: the truth that is drawn from.

    At temperature 0 the one token left is the likeliest after the penalty (the first of equals). ValueError: a token
    is to be drawn, and the logits hold NaN or infinity, or nothing but -inf.
    """
    logits = logits.float().cpu()
    scores = logits.double()  # room for a temperature near zero
    remaining = []
    if sampling.repetition_penalty != 1.0 and len(context):
        seen = torch.tensor(sorted(set(context)))
        there = scores[seen]
        scores[seen] = torch.where(there < 0, there * sampling.repetition_penalty, there / sampling.repetition_penalty)
    own = logits.softmax(-1)
    if sampling.temperature == 0:
        chosen = scores.argmax().view(1)
        return Distribution(own, chosen, torch.ones(1, dtype=torch.float64), (("temperature", 1),))

    best = scores.max()
    if not torch.isfinite(best):
        raise ValueError(
            f"The model's best score for the next token is {float(best)}, no number to draw by: "
            "its training went astray; choose an earlier checkpoint."
        )
    scores = (scores - best) / sampling.temperature  # 0 for the likeliest, never an overflow
    candidates = torch.arange(len(scores))
    if sampling.top_k is not None:
        if sampling.top_k < len(scores):
            scores, candidates = scores.topk(sampling.top_k)
        remaining.append(("top_k", len(scores)))
    chances = scores.softmax(-1)
    if sampling.top_p is not None:
        if sampling.top_p < 1:
            kept = _fewest(chances, sampling.top_p)
            chances, candidates = chances[kept] / chances[kept].sum(), candidates[kept]
        remaining.append(("top_p", len(chances)))
    if sampling.min_p is not None:
        if sampling.min_p > 0:
            likely = chances >= sampling.min_p * chances.max()
            chances, candidates = chances[likely] / chances[likely].sum(), candidates[likely]
        remaining.append(("min_p", len(chances)))
    return Distribution(own, candidates, chances, tuple(remaining))


def _fewest(chances: Tensor, share: float) -> Tensor:
    """Places of the fewest ``chances`` [n] whose sum reaches ``share``, the likeliest first, of equals the first.

    Nearly always a few hundred suffice, and all need not be sorted.
    """
    least = chances.topk(min(_SOME, len(chances))).values[-1]
    for places in ((chances >= least).nonzero()[:, 0], torch.arange(len(chances))):
        ordered, order = chances[places].sort(descending=True, stable=True)
        n = max(1, int((ordered.cumsum(-1) - ordered < share).sum()))
        if n < len(places):
            break
    return places[order[:n]]
