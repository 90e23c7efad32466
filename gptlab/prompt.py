"""A text as a model is given it: what it starts from where it is empty, and what does not fit into the context."""

from __future__ import annotations

from dataclasses import dataclass, field

from gptlab.tokenizer import END_OF_TEXT, get_tokenizer

LONGEST_PROMPT = 100_000  # characters that are tokenised, from the end: far more than any context here


@dataclass(frozen=True)
class FittedPrompt:
    """``text_ids`` are the tokens of the text; ``ids``, the last of them, are what the model reads at once.

    ``notes`` say in sentences what was added or left out.
    """

    text_ids: tuple[int, ...] = field(repr=False)
    context_length: int
    dropped_characters: int = 0
    from_end_of_text: bool = False

    @property
    def ids(self) -> tuple[int, ...]:
        return self.text_ids[-self.context_length :]

    @property
    def dropped_tokens(self) -> int:
        """How many of the first tokens the model does not see."""
        return max(0, len(self.text_ids) - self.context_length)

    @property
    def notes(self) -> tuple[str, ...]:
        notes = []
        if self.from_end_of_text:
            notes.append(f"The text is empty: the model starts from {END_OF_TEXT}.")
        if self.dropped_characters:
            notes.append(
                f"Only the last {LONGEST_PROMPT:,} characters were tokenised; {self.dropped_characters:,} before them "
                "were left out."
            )
        if self.dropped_tokens:
            notes.append(
                f"There are {len(self.text_ids):,} tokens and the model reads {self.context_length:,} at once: "
                f"the first {self.dropped_tokens:,} were left out."
            )
        return tuple(notes)


def fit_prompt(text: str, context_length: int) -> FittedPrompt:
    """``text`` for a model that reads ``context_length`` tokens; <|endoftext|>, where every text begins, if empty."""
    read = text[-LONGEST_PROMPT:]
    ids = get_tokenizer().encode(read or END_OF_TEXT, allowed_special={END_OF_TEXT}, disallowed_special=())
    return FittedPrompt(tuple(ids), context_length, len(text) - len(read), from_end_of_text=not text)
