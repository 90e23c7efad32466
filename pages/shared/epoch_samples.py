"""What the model wrote after an epoch: what can be said of one sample."""

from __future__ import annotations

import re
from bisect import bisect_right
from functools import lru_cache

from gptlab.events import Sampled
from gptlab.log import RunLog


def written_ids(sample: Sampled) -> tuple[int, ...]:
    """The tokens that the model added to the prompt."""
    return sample.token_ids[prompt_length(sample) :]


def prompt_length(sample: Sampled) -> int:
    """Tokens of the prompt, at the beginning of the sample's."""
    ids = _encoded(sample.prompt)
    if sample.token_ids[: len(ids)] == ids:
        return len(ids)
    chances = sample.probabilities  # written by another tokenizer: a token of the prompt has no probability
    return next((at for at, chance in enumerate(chances) if chance is not None), len(sample.token_ids))


@lru_cache(maxsize=64)
def _encoded(prompt: str) -> tuple[int, ...]:
    from gptlab.tokenizer import END_OF_TEXT, get_tokenizer

    return tuple(get_tokenizer().encode(prompt, allowed_special={END_OF_TEXT}, disallowed_special=()))


def continuation(sample: Sampled) -> str:
    """What the model added to the prompt, on one line."""
    return " ".join(sample.text.removeprefix(sample.prompt).split())


def count_words(text: str) -> int:
    """Runs of letters or digits, with inner apostrophes and hyphens; commas are no words."""
    return len(re.findall(r"[^\W_]+(?:['’-][^\W_]+)*", text))


def certainty(sample: Sampled) -> float | None:
    """The mean probability that the model gave to what it wrote; None where that was not recorded."""
    known = [chance for chance in sample.probabilities if chance is not None]
    return sum(known) / len(known) if known else None


def val_loss_at(log: RunLog, sample: Sampled) -> float | None:
    """The last validation loss measured before the sample was taken; None before the first, or where it is unknown."""
    if sample.epoch == 0:
        return None
    end = bisect_right(log.evaluations, sample.step, key=lambda row: row.step)
    return next((row.val_loss for row in reversed(log.evaluations[:end]) if row.val_loss == row.val_loss), None)


def epoch_name(epoch: int) -> str:
    return "Before training" if epoch == 0 else f"After epoch {epoch:,}"
