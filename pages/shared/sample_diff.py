"""Two samples of the same prompt side by side: which tokens one has and the other has not. No Streamlit."""

from __future__ import annotations

from dataclasses import dataclass
from difflib import SequenceMatcher

from gptlab.events import Sampled
from pages.shared.epoch_samples import sample_tokens
from pages.shared.token_strip import Token


@dataclass(frozen=True)
class Compared:
    """``now`` with its additions marked, ``then`` with its removals, and the share of ``now`` that is new."""

    now: list[Token]
    then: list[Token]
    changed: float


def compare(now: Sampled, then: Sampled) -> Compared:
    """Mark what ``now`` wrote and ``then`` did not, and the other way round; the prompts are left alone."""
    ours, theirs = sample_tokens(now), sample_tokens(then)
    mine, other = _written(ours), _written(theirs)
    matcher = SequenceMatcher(None, [t["id"] for t in mine], [t["id"] for t in other], autojunk=False)
    new = 0
    for change, a, b, c, d in matcher.get_opcodes():
        if change != "equal":
            new += b - a
            for token in mine[a:b]:
                token["mark"] = "added"
            for token in other[c:d]:
                token["mark"] = "removed"
    return Compared(ours, theirs, new / len(mine) if mine else 0.0)


def _written(tokens: list[Token]) -> list[Token]:
    return [token for token in tokens if token.get("mark") != "prompt"]


def certainty(sample: Sampled) -> float | None:
    """The mean probability that the model gave to what it wrote; None where that was not recorded."""
    known = [chance for chance in sample.probabilities if chance is not None]
    return sum(known) / len(known) if known else None
