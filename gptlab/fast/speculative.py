"""Speculative decoding: 8-bit weights draft a few tokens, and fp32 reads them all in one go.

Reading the weights is all the work, and a few tokens read together cost little more than one. Each token is still
chosen from fp32's logits of the text before it, by its own draw: a draft that is wrong costs time and nothing else.
Leviathan et al. 2023, "Fast Inference from Transformers via Speculative Decoding", accept or reject a draft by draws of
their own; here draft and choice come from the same random numbers, so that drawn texts do not depend on drafts either.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from gptlab.fast.decoding import Reader
from gptlab.model import GPTModel

Chooser = Callable[[Tensor, list[int]], int]  # logits [V] of the token after a text, that text -> the token

DRAFTED = 6  # tokens at a time
_TRIED = 32  # drafted tokens after which it is asked whether they are accepted
_ENOUGH = 0.4  # share of them that must be, to be worth their time
_RESTED = 48  # tokens without drafts where they were not; then they are tried again
_LEAST_NEW = 32  # tokens: for fewer the 8-bit weights are not worth making
_LEAST_READ = 40_000_000  # parameters read for a token: smaller models spend their time elsewhere


def pays(model: GPTModel, n_new: int) -> bool:
    """Whether ``n_new`` tokens come sooner with drafts: by sizes, so that the same text is always made the same way."""
    read = sum(p.numel() for p in model.trf_blocks.parameters()) + model.out_head.weight.numel()
    return n_new >= _LEAST_NEW and read >= _LEAST_READ


class SpeculativeReader:
    """Logits of the token after a text that grows token by token, read ahead of what is asked for."""

    def __init__(self, model: GPTModel, length: int, chooser: Callable[[], Chooser]) -> None:
        """``length``: of the longest text that will be read. ``chooser`` is asked for before each draft."""
        self.target = Reader(model, "fp32", 1, length)
        self.drafter = Reader(model, "int8", 1, length, self.target.store)  # so it never reads a text of its own
        self.room, self.chooser = length, chooser
        self.ids: list[int] = []  # a text and the draft after it, as fp32 has read them
        self.logits = torch.empty(0)  # [1 + drafted, V]: after that text, and after each token of the draft
        self.drafted = self.accepted = 0  # since it was last asked
        self.rest = 0  # tokens that are still read without drafts

    def __call__(self, text: list[int]) -> Tensor:
        """Logits [V] (fp32) of the token after ``text``."""
        agreed = _alike(text, self.ids)
        first = len(self.ids) - len(self.logits) + 1  # length of the text that the first logits follow
        if agreed < len(text) or len(text) < first:
            self.accepted += max(0, agreed - first)
            self._read(text, min(agreed, len(text) - 1))
            first = len(text)
        return self.logits[len(text) - first]

    def _read(self, text: list[int], known: int) -> None:
        """``text``, of which ``known`` tokens are read already, and a draft of what follows."""
        self.target.forget(known)
        self.drafter.length = self.target.length
        self.ids, choose = list(text), self.chooser()
        n = self._n_drafted(len(text)) if known == len(text) - 1 == self.target.length else 0  # first a prompt is read
        for _ in range(n):
            logits = self.drafter.read(torch.tensor([self.ids[-1:]]))
            self.ids.append(choose(logits[0], self.ids))
        self.drafted += n
        self.logits = self.target.read_each(torch.tensor([self.ids[self.target.length :]]), n + 1)[0]

    def _n_drafted(self, length: int) -> int:
        if self.drafted >= _TRIED:
            if self.accepted < _ENOUGH * self.drafted:
                self.rest = _RESTED
            self.drafted = self.accepted = 0
        if self.rest:
            self.rest -= 1
            return 0
        return min(DRAFTED, self.room - length)


def _alike(a: list[int], b: list[int]) -> int:
    """How many tokens at the beginning are the same."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
