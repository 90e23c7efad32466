"""A text as a model is given it: what it starts from where it is empty, and what does not fit into the context."""

from __future__ import annotations

from dataclasses import dataclass

from gptlab.tokenizer import END_OF_TEXT, END_OF_TEXT_ID, get_tokenizer

LONGEST_PROMPT = 100_000  # characters that are tokenised, from the end: far more than any context here


@dataclass(frozen=True)
class FittedPrompt:
    """``ids`` are the tokens that the model reads; ``notes`` say in sentences what was added or left out."""

    ids: tuple[int, ...]
    dropped_tokens: int = 0
    dropped_characters: int = 0
    from_end_of_text: bool = False

    @property
    def notes(self) -> tuple[str, ...]:
        notes = []
        if self.from_end_of_text:
            notes.append(f"The text is empty: the model starts from {END_OF_TEXT}.")
        if self.dropped_characters:
            notes.append(
                f"Only the last {LONGEST_PROMPT:,} characters were tokenised: {self.dropped_characters:,} before them "
                "were left out."
            )
        if self.dropped_tokens:
            total = len(self.ids) + self.dropped_tokens
            notes.append(
                f"The text has {total:,} tokens and the model reads {len(self.ids):,}: the first "
                f"{self.dropped_tokens:,} were left out."
            )
        return tuple(notes)


def fit_prompt(text: str, context_length: int) -> FittedPrompt:
    """The last ``context_length`` tokens of ``text``; <|endoftext|>, where every text begins, if it is empty."""
    if not text:
        return FittedPrompt((END_OF_TEXT_ID,), from_end_of_text=True)
    read = text[-LONGEST_PROMPT:]
    ids = get_tokenizer().encode(read, allowed_special={END_OF_TEXT}, disallowed_special=())
    kept = tuple(ids[-context_length:])
    return FittedPrompt(kept, len(ids) - len(kept), len(text) - len(read))
