"""``python -m bench.agreement MODEL``: how far bf16 and int8 weights write what fp32 weights write, greedily.

``MODEL``: the ``model.safetensors`` of a 124M run on The Verdict, as ``bench.calibrate`` leaves it. It goes on from the
exercise's own prompt and from the beginnings of sentences all over the story.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from gptlab.config import SamplingConfig, preset
from gptlab.corpus import THE_VERDICT, open_corpus
from gptlab.fast.decoding import Reader
from gptlab.model import GPTModel
from gptlab.sampling import generate
from gptlab.tokenizer import encode_text

NEAR_TIE = 0.1  # logits between the likeliest token and the next: below this, rounding may decide
PROMPT_TOKENS = 8


@dataclass
class Agreement:
    """Positions compared, and equal ones: in texts of their own until fp32's first near-tie, and on fp32's text."""

    until_tie: int = 0
    equal_until_tie: int = 0
    read: int = 0
    equal_read: int = 0
    same_texts: int = 0
    widest_overruled: float = 0.0  # margin, in logits, of fp32's choice where the other one chose differently

    def __str__(self) -> str:
        until, read = _share(self.equal_until_tie, self.until_tie), _share(self.equal_read, self.read)
        return (
            f"{self.equal_until_tie} of {self.until_tie} equal until the first near-tie ({until}); {self.same_texts} "
            f"texts equal to their end; reading fp32's text, {self.equal_read} of {self.read} choices equal ({read}), "
            f"the clearest one overruled had a margin of {self.widest_overruled:.3f}"
        )


def compare(
    model: GPTModel, prompts: list[list[int]], n_new: int, kind: Literal["bf16", "int8"], near_tie: float = NEAR_TIE
) -> Agreement:
    """Greedy texts of ``n_new`` tokens after each prompt, from ``kind`` weights beside fp32 ones."""
    told = Agreement()
    sampling = SamplingConfig(max_new_tokens=n_new, stop_at_end=False)
    for prompt in prompts:
        right, other = (list(generate(model, prompt, sampling, weights=kind)) for kind in ("fp32", kind))
        its = _logits(model, prompt, right, "fp32")
        best = its.topk(2, -1).values
        margins = best[:, 0] - best[:, 1]  # [n_new]
        ties = (margins < near_tie).nonzero().flatten().tolist()
        until = ties[0] if ties else n_new
        told.until_tie += until
        told.equal_until_tie += sum(a == b for a, b in zip(right[:until], other[:until], strict=True))
        told.same_texts += right == other
        same = _logits(model, prompt, right, kind).argmax(-1) == its.argmax(-1)
        told.read += n_new
        told.equal_read += int(same.sum())
        if not bool(same.all()):
            told.widest_overruled = max(told.widest_overruled, float(margins[~same].max()))
    return told


def _logits(model: GPTModel, prompt: list[int], text: list[int], kind: Literal["fp32", "bf16", "int8"]) -> torch.Tensor:
    """[n, V]: what is thought before each token of ``text``, read one by one."""
    reader = Reader(model, kind, 1, len(prompt) + len(text))
    with torch.inference_mode():
        steps = [reader.read(torch.tensor([prompt]))]
        steps += [reader.read(torch.tensor([[token]])) for token in text[:-1]]
    return torch.cat(steps)


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.2%}" if whole else "none"


def beginnings(story: str, n: int) -> list[list[int]]:
    """The first tokens of ``n`` sentences, evenly chosen."""
    sentences = [s for s in story.replace("\n", " ").split(". ") if len(encode_text(s)) >= PROMPT_TOKENS]
    return [[*map(int, encode_text(sentences[i * len(sentences) // n])[:PROMPT_TOKENS])] for i in range(n)]


def main() -> int:
    from safetensors.torch import load_model

    parser = argparse.ArgumentParser(prog="python -m bench.agreement", description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--prompts", type=int, default=7, help="beside the exercise's own")
    parser.add_argument("--tokens", type=int, default=100)
    arguments = parser.parse_args()
    model = GPTModel(preset("gpt2-124m").model).eval()
    load_model(model, str(arguments.model))
    story = open_corpus(THE_VERDICT).text
    prompts = [[*map(int, encode_text("Every effort moves you"))], *beginnings(story, arguments.prompts)]
    kinds: tuple[Literal["bf16", "int8"], ...] = ("bf16", "int8")
    for kind in kinds:
        print(f"{kind}: {compare(model, prompts, arguments.tokens, kind)}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
