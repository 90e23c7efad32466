"""A token of a text is hidden: which is it? A person guesses, then sees what models guess. Needs no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gptlab.tokenizer import Ids, get_tokenizer

SHORTEST_WORD = 3  # letters
LEAST_BEFORE = 8  # tokens that a person is shown at least


@dataclass(frozen=True)
class ClozeQuestion:
    """``before`` are the tokens that a model reads, ``answer`` the hidden one, ``after`` what a person may read too.

    ``index`` is the hidden token's place in the text's tokens. GPT-2 reads from the left only: it never sees ``after``.
    """

    index: int
    before: tuple[int, ...]
    answer: int
    after: tuple[int, ...]

    @property
    def passage(self) -> tuple[int, ...]:
        """What a model's loss at the answer is taken on; the answer is its last token."""
        return (*self.before, self.answer)


def cloze_question(
    ids: Ids | Sequence[int], context_length: int, seed: int, number: int = 0, n_after: int = 12
) -> ClozeQuestion:
    """Question ``number`` (from 0) of the quiz ``seed`` over the tokens ``ids`` [n] of a text.

    A whole word of three letters or more is hidden, behind at least eight tokens (fewer where the context is shorter).
    No word is asked twice before all have been. ValueError: the text holds no such word.
    """
    ids = np.asarray(ids)
    least = min(LEAST_BEFORE, context_length)
    asked = _whole_words(ids)
    asked = asked[asked >= least]
    if not len(asked):
        raise ValueError(
            f"The text's {len(ids):,} tokens hold no whole word behind {least} others: choose a longer text."
        )
    round_, turn = divmod(number, len(asked))
    index = int(np.random.default_rng((seed, round_)).permutation(asked)[turn])
    before = ids[max(0, index - context_length) : index]
    after = ids[index + 1 : index + 1 + n_after]
    return ClozeQuestion(index, tuple(before.tolist()), int(ids[index]), tuple(after.tolist()))


def _whole_words(ids: Ids) -> npt.NDArray[np.int64]:
    """Places of the tokens that are a word of three letters or more, and that the next token does not go on with."""
    kinds = np.unique(ids)
    pieces = [get_tokenizer().decode_single_token_bytes(int(kind)).decode("utf-8", "replace") for kind in kinds]
    words = [p[0] == " " and p[1:].isalpha() and len(p) > SHORTEST_WORD for p in pieces]
    endings = [p[0].isalpha() or p[0] in "\N{REPLACEMENT CHARACTER}'\N{RIGHT SINGLE QUOTATION MARK}" for p in pieces]
    whole = np.isin(ids, kinds[np.array(words, dtype=bool)])
    whole[:-1] &= ~np.isin(ids, kinds[np.array(endings, dtype=bool)])[1:]  # " unf" before "inished" is no word
    return np.flatnonzero(whole)
