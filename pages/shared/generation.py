"""An answer that a thread writes while a page looks on. Plain Python: no Streamlit, nothing shared but the weights."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from gptlab.config import SamplingConfig
from pages.shared.watched_thread import PATIENCE, WatchedThread

if TYPE_CHECKING:
    from gptlab.model import GPTModel
    from gptlab.sampling import GeneratedToken

MOST_SEARCHED = 100  # new tokens of a beam search, which cannot be stopped half-way
LONGEST_PROMPT = 100_000  # characters; far more than any model here can read

State = Literal["loading", "writing", "done", "stopped", "left", "failed"]


@dataclass(frozen=True)
class Prompt:
    """What the model is given: token ids, and how many of the first of them do not fit into its context."""

    ids: tuple[int, ...]
    from_nothing: bool = False
    cut_characters: int = 0

    def beyond(self, context_length: int | None) -> int:
        """Tokens at the beginning that the model does not see."""
        return max(0, len(self.ids) - context_length) if context_length else 0


def read_prompt(text: str) -> Prompt:
    """The tokens of ``text``, of its end where it is huge; <|endoftext|>, where every text begins, if it is empty."""
    from gptlab.tokenizer import END_OF_TEXT, get_tokenizer

    read = text[-LONGEST_PROMPT:]
    ids = get_tokenizer().encode(read or END_OF_TEXT, allowed_special={END_OF_TEXT}, disallowed_special=())
    return Prompt(tuple(ids), from_nothing=not text, cut_characters=len(text) - len(read))


class Generation(WatchedThread):
    """One answer, from the prompt on. ``open_model`` is called in the thread, so that loading can be watched too.

    ``kept``: tokens that the answer begins with, from an earlier one. ``more``: further prompts, continued side by
    side with the first. ``beams`` above 1: beam search. Of a seed, the n-th text takes the n-th after it, so that
    samples of one prompt differ.

    The thread ends when the answer is complete, after ``stop()``, or when the page was left. ``texts``, one list of
    tokens a prompt, only grow; ``state`` and ``fault`` say how it stands.
    """

    broke_off = "The answer broke off"

    def __init__(
        self,
        open_model: Callable[[], GPTModel],
        prompt: Prompt,
        sampling: SamplingConfig,
        *,
        kept: Sequence[GeneratedToken] = (),
        more: Sequence[Prompt] = (),
        beams: int = 1,
        title: str = "",
        sparing: bool = False,
        patience: float = PATIENCE,
    ) -> None:
        super().__init__("playground", sparing=sparing, patience=patience)
        self.prompts = (prompt, *more)
        self.n_kept = len(kept)
        self.sampling, self.title = sampling, title
        self.beams = beams
        self.notes: tuple[str, ...] = ()  # of beam search: one for each text
        self.manner = f"beam search with {beams} beams" if beams > 1 else ""
        self.texts: list[list[GeneratedToken]] = [list(kept), *([] for _ in more)]
        self.state: State = "loading"
        self.first_at = self.last_at = 0.0
        self._open_model = open_model
        self._outcome: State = "failed"

    @property
    def prompt(self) -> Prompt:
        return self.prompts[0]

    @property
    def tokens(self) -> list[GeneratedToken]:
        """The first text, or the only one: what was kept and what was written."""
        return self.texts[0]

    @property
    def n_written(self) -> int:
        """New tokens of all texts."""
        return sum(map(len, self.texts)) - self.n_kept

    @property
    def seconds(self) -> float:
        """From the moment the model was ready to the newest token."""
        return max(0.0, self.last_at - self.first_at)

    @property
    def tokens_per_second(self) -> float | None:
        return self.n_written / self.seconds if self.n_written and self.seconds > 0 else None

    def text(self, number: int = 0) -> str:
        """Prompt and answer as one text."""
        from gptlab.tokenizer import END_OF_TEXT, token_ids_to_text

        prompt = self.prompts[number]
        text = token_ids_to_text([*prompt.ids, *(token.id for token in list(self.texts[number]))])
        return text.removeprefix(END_OF_TEXT) if prompt.from_nothing else text

    def work(self) -> None:
        self._outcome = self._write()

    def ended(self) -> None:
        self.state = self._outcome
        del self._open_model  # a cached model may leave as soon as nobody writes with it

    def _write(self) -> State:
        model = self._open_model()
        self.use_cores_for(model)
        self.first_at = self.last_at = time.monotonic()
        self.state = "writing"
        if self.beams > 1:
            self._search(model)
            return "done"
        steps = self._steps(model)
        while True:
            if self.stopped:
                return "stopped"
            if self.left:
                return "left"
            tokens = next(steps, None)
            if tokens is None:
                return "done"
            for text, token in zip(self.texts, tokens, strict=True):
                if token is not None:
                    text.append(token)
            self.last_at = time.monotonic()

    def _steps(self, model: GPTModel) -> Iterator[tuple[GeneratedToken | None, ...]]:
        """The next token of each text, one after another; None for a text that has ended."""
        from gptlab import sampling

        texts = [self._ids(number) for number in range(len(self.prompts))]
        if len(texts) == 1:
            return ((token,) for token in sampling.generate_steps(model, texts[0], self.sampling))
        seed = self.sampling.seed
        seeds = [None if seed is None else seed + number for number in range(len(texts))]
        return sampling.generate_batch_steps(model, texts, self.sampling, seeds=seeds)

    def _search(self, model: GPTModel) -> None:
        """The best beams as texts, the likeliest first; how likely each of their tokens was is read off afterwards."""
        from gptlab.beams import beam_search
        from gptlab.perplexity import score_ids
        from gptlab.sampling import GeneratedToken

        ids, kept = self._ids(0), self.texts[0]
        most = min(self.sampling.max_new_tokens, MOST_SEARCHED)
        found = beam_search(model, ids, self.beams, most, stop_at_end=self.sampling.stop_at_end)
        self.prompts = (self.prompt,) * len(found)
        self.notes = tuple(f"{beam.logprob:.1f} nats as a whole" for beam in found)
        texts = []
        for beam in found:
            losses = score_ids(model, [*ids, *beam.ids]).losses[-len(beam.ids) :] if beam.ids else ()
            new = [
                GeneratedToken(id_, math.exp(-float(loss)), (), 0, 0.0)
                for id_, loss in zip(beam.ids, losses, strict=True)
            ]
            texts.append([*kept, *new])
        self.n_kept *= len(found)
        self.texts = texts
        self.last_at = time.monotonic()

    def _ids(self, number: int) -> list[int]:
        """What the model is given for one text."""
        return [*self.prompts[number].ids, *(token.id for token in self.texts[number])]


def alternative_pieces(tokens: Sequence[GeneratedToken]) -> list[list[list[object]]]:
    """For each token its likeliest alternatives as ``[[text, probability], ...]``."""
    from gptlab.tokenizer import token_pieces

    return [
        [[piece, p] for piece, (_, p) in zip(token_pieces([i for i, _ in t.alternatives]), t.alternatives, strict=True)]
        for t in tokens
    ]
