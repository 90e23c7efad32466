"""One generator of tokens behind everything: the epoch samples, the playground and the command line.

Greedy by default; what temperature, top-k, top-p, min-p and repetition penalty leave to draw from is said by
``distribution``. Draws come from a random stream of their own: taking a sample never changes a training that goes on
around it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from gptlab.config import SamplingConfig
from gptlab.distribution import Distribution, filtered_distribution
from gptlab.fast.decoding import Reader, Weights, check_weights
from gptlab.fast.speculative import Chooser, SpeculativeReader, pays
from gptlab.model import GPTModel, KVCache, evaluating
from gptlab.tokenizer import END_OF_TEXT_ID

N_ALTERNATIVES = 10
MOST_SAMPLES = 64


@dataclass(frozen=True)
class GeneratedToken:
    """One new token and how sure the model was of it.

    ``probability`` and ``alternatives`` (the likeliest tokens first) are the model's own: before temperature, top-k,
    top-p, min-p and repetition penalty. ``drawn_from`` counts the tokens that those left to choose among, and
    ``chance`` is the probability with which this one was drawn from them (1.0 when greedy). ``logits`` [V] (fp32, CPU;
    4 V bytes) are kept where that was asked for: ``filtered_distribution`` of them tells what other controls would do.
    """

    id: int
    probability: float
    alternatives: tuple[tuple[int, float], ...]
    drawn_from: int
    chance: float
    logits: Tensor | None = field(default=None, compare=False, repr=False)


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
    model: GPTModel,
    ids: Tensor | Sequence[int],
    sampling: SamplingConfig | None = None,
    weights: str = "fp32",
    keep_logits: bool = False,
) -> Iterator[GeneratedToken]:
    """As ``generate``, with each token's probability and alternatives. Faults are raised by the call itself."""
    together = generate_batch_steps(model, [ids], sampling, weights, keep_logits=keep_logits)
    return (tokens[0] for tokens in together if tokens[0] is not None)


def generate_batch(
    model: GPTModel,
    prompts: Sequence[Tensor | Sequence[int]],
    sampling: SamplingConfig | None = None,
    weights: str = "fp32",
    *,
    seeds: Sequence[int | None] | None = None,
) -> Iterator[Tensor]:
    """Continue B prompts side by side: yields the ids of the B next tokens, a tensor [B] (int64, CPU).

    A text that has ended goes on with <|endoftext|> until all have. Faults are raised at once, as by
    ``generate_batch_steps``, which also tells how sure the model was.
    """
    steps = generate_batch_steps(model, prompts, sampling, weights, seeds=seeds)
    return (torch.tensor([END_OF_TEXT_ID if token is None else token.id for token in tokens]) for tokens in steps)


def generate_batch_steps(
    model: GPTModel,
    prompts: Sequence[Tensor | Sequence[int]],
    sampling: SamplingConfig | None = None,
    weights: str = "fp32",
    *,
    seeds: Sequence[int | None] | None = None,
    keep_logits: bool = False,
) -> Iterator[tuple[GeneratedToken | None, ...]]:
    """Continue B prompts side by side: yields the B next tokens; None for a text that has ended.

    Each text is what ``generate_steps`` alone would make of its prompt with its own of the B ``seeds`` (default: the
    seed of ``sampling`` for each). Faults are raised at once.
    """
    if not prompts:
        raise ValueError("There is no prompt: give at least one.")
    sampling = sampling or SamplingConfig()
    seeds = [sampling.seed] * len(prompts) if seeds is None else seeds
    if len(seeds) != len(prompts):
        raise ValueError(f"There are {len(seeds)} seeds for {len(prompts)} prompts: give one for each.")
    kind = check_weights(weights, model)
    return _steps(model, [checked_ids(model, ids) for ids in prompts], sampling, kind, seeds, keep_logits)


def generate_samples(
    model: GPTModel,
    ids: Tensor | Sequence[int],
    n_samples: int,
    sampling: SamplingConfig | None = None,
    weights: str = "fp32",
    keep_logits: bool = False,
) -> Iterator[tuple[GeneratedToken | None, ...]]:
    """Continue one prompt ``n_samples`` times side by side (1 to 64), as ``generate_batch_steps``, drawn differently.

    With a seed, sample i is what ``seed + i`` alone would give, so that the first is the plain answer and each can be
    had again; without one, all draws are new. Greedy samples are all the same.
    """
    if not 1 <= n_samples <= MOST_SAMPLES:
        raise ValueError(f"{n_samples:,} samples were asked for: ask for 1 to {MOST_SAMPLES}.")
    seed = sampling.seed if sampling else None
    seeds = [None if seed is None else (seed + i) % 2**63 for i in range(n_samples)]
    return generate_batch_steps(model, [ids] * n_samples, sampling, weights, seeds=seeds, keep_logits=keep_logits)


def checked_ids(model: GPTModel, ids: Tensor | Sequence[int]) -> list[int]:
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
    model: GPTModel,
    texts: list[list[int]],
    sampling: SamplingConfig,
    weights: Weights,
    seeds: Sequence[int | None],
    keep_logits: bool,
) -> Iterator[tuple[GeneratedToken | None, ...]]:
    streams = [torch.Generator() for _ in texts]
    for stream, seed in zip(streams, seeds, strict=True):
        stream.seed() if seed is None else stream.manual_seed(seed)
    next_logits = Decoder(model, max(map(len, texts)) + sampling.max_new_tokens, weights)
    if len(texts) == 1:
        next_logits.speculate(lambda: _chooser(sampling, streams[0]), len(texts[0]))
    ended = [False] * len(texts)
    for _ in range(sampling.max_new_tokens):
        rows = next_logits(texts)
        tokens = tuple(
            None if over else choose(logits, text, sampling, stream, keep_logits)
            for logits, text, stream, over in zip(rows, texts, streams, ended, strict=True)
        )
        for number, token in enumerate(tokens):
            texts[number].append(END_OF_TEXT_ID if token is None else token.id)
            ended[number] |= sampling.stop_at_end and texts[number][-1] == END_OF_TEXT_ID
        yield tokens
        if all(ended):
            return


class Decoder:
    """Logits of the token after each text, reading only what is new while it all fits into the context.

    Past the context length the window moves, and with learnt absolute positions every token in it then gets another
    position, so that nothing kept is of use: the whole window is read again, as the straightforward loop does.
    """

    def __init__(self, model: GPTModel, longest: int, weights: Weights) -> None:
        self.model, self.weights = model, weights
        self.room = min(longest, model.config.context_length)
        self.cache: KVCache | None = None
        self.reader: Reader | None = None
        self.ahead: SpeculativeReader | None = None
        self.starts: list[int] = []

    @property
    def prepared(self) -> bool:
        """Whether prepared weights are read, or the textbook model."""
        return type(self.model) is GPTModel and self.model.tok_emb.weight.device.type == "cpu"

    def speculate(self, chooser: Callable[[], Chooser], length: int) -> None:
        """From a text of ``length`` tokens on, draft what follows, where that pays."""
        if self.prepared and self.weights == "fp32" and pays(self.model, self.room - length):
            self.ahead = SpeculativeReader(self.model, self.room, chooser)

    def __call__(self, texts: list[list[int]]) -> Tensor:
        """Logits [B, V], fp32 on the CPU."""
        with torch.inference_mode():
            if self.ahead is not None and len(texts[0]) <= self.room:
                return self.ahead(texts[0])[None]
            if self.prepared:
                return self._read(texts)
            return torch.stack([self._read_alone(text, keep=len(texts) == 1) for text in texts])

    def reorder(self, parents: Sequence[int]) -> None:
        """From now on text i follows what was text ``parents[i]``; there may be more of them, or fewer."""
        if self.reader is not None:
            self.reader.reorder(parents)
            self.starts = [self.starts[i] for i in parents]

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


def choose(
    logits: Tensor, context: Sequence[int], sampling: SamplingConfig, stream: torch.Generator, keep_logits: bool = False
) -> GeneratedToken:
    """The next token after ``context`` given ``logits`` [V], drawn from ``filtered_distribution`` by ``stream``."""
    spread = filtered_distribution(logits, context, sampling)
    own, chosen = spread.before, drawn(spread, sampling, stream)
    best = own.topk(min(N_ALTERNATIVES, len(own)))
    return GeneratedToken(
        id=chosen,
        probability=float(own[chosen]),
        alternatives=tuple(zip(best.indices.tolist(), best.values.tolist(), strict=True)),
        drawn_from=spread.n_kept,
        chance=float(spread.after[chosen]),
        logits=logits.float().cpu() if keep_logits else None,
    )


def drawn(spread: Distribution, sampling: SamplingConfig, stream: torch.Generator) -> int:
    """An id drawn from all of the vocabulary, so that a token's random number does not depend on its rank.

    Logits that differ by their rounding then give the same text, but for tokens that nearly tie for the draw itself.
    """
    if sampling.temperature == 0:
        return int(spread.candidates[0])
    return int(torch.multinomial(spread.after, 1, generator=stream))


def _chooser(sampling: SamplingConfig, stream: torch.Generator) -> Chooser:
    """Chooses as ``choose`` will, token after token, while ``stream`` itself stays where it is."""
    ahead = torch.Generator()
    ahead.set_state(stream.get_state())
    return lambda logits, text: drawn(filtered_distribution(logits, text, sampling), sampling, ahead)
