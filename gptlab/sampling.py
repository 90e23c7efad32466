"""One generator of tokens behind everything: the epoch samples, the playground and the command line.

Greedy by default; temperature, top-k, top-p (Holtzman et al. 2020, "The Curious Case of Neural Text Degeneration") and
repetition penalty (Keskar et al. 2019, CTRL) in the order and with the meaning that Hugging Face gives them. Draws
come from a random stream of their own: taking a sample never changes a training that goes on around it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gptlab.config import SamplingConfig
from gptlab.fast.decoding import Reader, Weights, check_weights
from gptlab.model import GPTModel, KVCache, evaluating
from gptlab.tokenizer import END_OF_TEXT_ID

N_ALTERNATIVES = 10


@dataclass(frozen=True)
class GeneratedToken:
    """One new token and how sure the model was of it.

    ``probability`` and ``alternatives`` (the likeliest tokens first) are the model's own: before temperature, top-k,
    top-p and repetition penalty. ``drawn_from`` counts the tokens that those left to choose among, and
    ``chance`` is the probability with which this one was drawn from them (1.0 when greedy).
    """

    id: int
    probability: float
    alternatives: tuple[tuple[int, float], ...]
    drawn_from: int
    chance: float


def generate(
    model: GPTModel,
    ids: Tensor | Sequence[int],
    sampling: SamplingConfig | None = None,
    on_step: Callable[[GeneratedToken], None] | None = None,
    weights: str = "fp32",
) -> Iterator[int]:
    """Yield the ids of the new tokens, one by one, that continue ``ids`` ([1, n], [n] or a list).

    An empty prompt starts from <|endoftext|>. The model sees the last ``context_length`` tokens. With
    ``stop_at_end`` <|endoftext|> is the last token yielded. ``on_step`` is told of each token before it is yielded.
    The model's mode is never changed between two tokens, so it may be trained, or this iterator dropped, at any time.
    ``weights``: fp32, or on a CPU bf16 or int8, which take a half or a quarter of the time and round.
    """
    steps = generate_steps(model, ids, sampling, weights)

    def only_ids() -> Iterator[int]:
        for token in steps:
            if on_step is not None:
                on_step(token)
            yield token.id

    return only_ids()


def generate_steps(
    model: GPTModel, ids: Tensor | Sequence[int], sampling: SamplingConfig | None = None, weights: str = "fp32"
) -> Iterator[GeneratedToken]:
    """As ``generate``, with each token's probability and alternatives. Faults are raised by the call itself."""
    together = generate_batch(model, [ids], sampling, weights)
    return (tokens[0] for tokens in together if tokens[0] is not None)


def generate_batch(
    model: GPTModel,
    prompts: Sequence[Tensor | Sequence[int]],
    sampling: SamplingConfig | None = None,
    weights: str = "fp32",
) -> Iterator[tuple[GeneratedToken | None, ...]]:
    """Continue B prompts side by side: yields the B next tokens; None for a text that has ended.

    Each text is what ``generate_steps`` alone would make of its prompt, a seed included. Faults are raised at once.
    """
    if not prompts:
        raise ValueError("There is no prompt: give at least one.")
    kind = check_weights(weights, model)
    return _steps(model, [_checked_ids(model, ids) for ids in prompts], sampling or SamplingConfig(), kind)


def _checked_ids(model: GPTModel, ids: Tensor | Sequence[int]) -> list[int]:
    """``ids`` as a list, or a ValueError that says what is wrong with it."""
    vocabulary = model.config.vocab_size
    if isinstance(ids, Tensor):
        if ids.is_floating_point() or ids.dim() not in (1, 2) or (ids.dim() == 2 and ids.shape[0] != 1):
            raise ValueError(
                f"The prompt is a {ids.dtype} tensor of shape {list(ids.shape)}: give whole numbers, [n] or [1, n]."
            )
        ids = ids.flatten().tolist()
    prompt = [int(i) for i in ids]
    if not prompt and vocabulary <= END_OF_TEXT_ID:
        raise ValueError(
            f"The prompt is empty, and a vocabulary of {vocabulary:,} tokens has no <|endoftext|> to start from: "
            "give at least one token."
        )
    outside = [i for i in prompt if not 0 <= i < vocabulary]
    if outside:
        raise ValueError(
            f"The prompt holds token id {outside[0]}, but the model's vocabulary ends at {vocabulary - 1}: "
            "use the tokenizer that the model was trained with."
        )
    return prompt or [END_OF_TEXT_ID]


def _steps(
    model: GPTModel, texts: list[list[int]], sampling: SamplingConfig, weights: Weights
) -> Iterator[tuple[GeneratedToken | None, ...]]:
    streams = [torch.Generator() for _ in texts]
    for stream in streams:
        stream.seed() if sampling.seed is None else stream.manual_seed(sampling.seed)
    next_logits = _Decoder(model, max(map(len, texts)) + sampling.max_new_tokens, weights)
    ended = [False] * len(texts)
    for _ in range(sampling.max_new_tokens):
        rows = next_logits(texts)
        tokens = tuple(
            None if over else choose(logits, text, sampling, stream)
            for logits, text, stream, over in zip(rows, texts, streams, ended, strict=True)
        )
        for number, token in enumerate(tokens):
            texts[number].append(END_OF_TEXT_ID if token is None else token.id)
            ended[number] |= sampling.stop_at_end and texts[number][-1] == END_OF_TEXT_ID
        yield tokens
        if all(ended):
            return


class _Decoder:
    """Logits of the token after each text, reading only what is new while it all fits into the context.

    Past the context length the window moves, and with learnt absolute positions every token in it then gets another
    position, so that nothing kept is of use: the whole window is read again, as the straightforward loop does.
    """

    def __init__(self, model: GPTModel, longest: int, weights: Weights) -> None:
        self.model, self.weights = model, weights
        self.room = min(longest, model.config.context_length)
        self.cache: KVCache | None = None
        self.reader: Reader | None = None

    def __call__(self, texts: list[list[int]]) -> Tensor:
        """Logits [B, V], fp32 on the CPU."""
        with torch.inference_mode():
            if type(self.model) is GPTModel and self.model.tok_emb.weight.device.type == "cpu":
                return self._read(texts)
            return torch.stack([self._read_alone(text, keep=len(texts) == 1) for text in texts])

    def _read(self, texts: list[list[int]]) -> Tensor:
        """All texts at once: they end together, shorter ones begin later. What stands before them is not looked at."""
        context = self.model.config.context_length
        longest = max(map(len, texts))
        windows = [text[-context:] for text in texts]
        length = min(longest, context)
        if self.reader is None or longest > context:
            self.reader = Reader(self.model, self.weights, len(texts), self.room)
            self.starts = [length - len(window) for window in windows]
        unread = length - self.reader.length
        padded = [[0] * (unread - len(window)) + window[-unread:] for window in windows]
        start = torch.tensor(self.starts) if any(self.starts) else None
        return self.reader.read(torch.tensor(padded), start)

    def _read_alone(self, ids: list[int], keep: bool) -> Tensor:
        """One text by the textbook model, on any device."""
        model = self.model
        with evaluating(model):
            if len(ids) > model.config.context_length or not keep:
                self.cache = None
                unread = ids[-model.config.context_length :]
            else:
                self.cache = self.cache or KVCache(model, length=self.room)
                unread = ids[self.cache.length :]
            read = torch.tensor([unread], device=model.tok_emb.weight.device)  # [1, T]
            last = model.features(read, self.cache)[:, -1]  # [1, C]
            return model.out_head(last)[0].float().cpu()


def choose(logits: Tensor, context: Sequence[int], sampling: SamplingConfig, stream: torch.Generator) -> GeneratedToken:
    """The next token after ``context`` given ``logits`` [V] (fp32, CPU)."""
    own = logits.softmax(-1)
    best = own.topk(min(N_ALTERNATIVES, len(own)))
    alternatives = tuple(zip(best.indices.tolist(), best.values.tolist(), strict=True))

    scores = logits.double()  # room for a temperature near zero
    if sampling.repetition_penalty != 1.0:
        seen = torch.tensor(sorted(set(context)))
        there = scores[seen]
        scores[seen] = torch.where(there < 0, there * sampling.repetition_penalty, there / sampling.repetition_penalty)
    if sampling.temperature == 0:
        chosen = int(scores.argmax())
        return GeneratedToken(chosen, float(own[chosen]), alternatives, 1, 1.0)

    scores = (scores - scores.max()) / sampling.temperature  # 0 for the likeliest, never an overflow
    candidates = torch.arange(len(scores))
    if sampling.top_k is not None and sampling.top_k < len(scores):
        scores, candidates = scores.topk(sampling.top_k)
    chances = scores.softmax(-1)
    if sampling.top_p is not None and sampling.top_p < 1:
        chances, order = chances.sort(descending=True, stable=True)
        before = chances.cumsum(-1) - chances
        kept = max(1, int((before < sampling.top_p).sum()))  # the fewest whose sum reaches top_p
        chances, candidates = chances[:kept] / chances[:kept].sum(), candidates[order[:kept]]
    index = int(torch.multinomial(chances, 1, generator=stream))
    chosen = int(candidates[index])
    return GeneratedToken(chosen, float(own[chosen]), alternatives, int((chances > 0).sum()), float(chances[index]))
