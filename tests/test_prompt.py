from __future__ import annotations

import pytest

from gptlab.prompt import LONGEST_PROMPT, fit_prompt
from gptlab.tokenizer import END_OF_TEXT_ID, text_to_token_ids, token_ids_to_text


def test_an_empty_text_starts_from_the_end_of_text_and_says_so() -> None:
    prompt = fit_prompt("", 8)
    assert prompt.ids == (END_OF_TEXT_ID,)
    assert prompt.notes == ("The text is empty: the model starts from <|endoftext|>.",)
    assert fit_prompt("<|endoftext|>", 8).notes == ()


def test_a_text_that_fits_is_read_whole_and_nothing_is_said() -> None:
    prompt = fit_prompt("one two three", 3)
    assert list(prompt.ids) == text_to_token_ids("one two three")[0].tolist()
    assert (prompt.dropped_tokens, prompt.notes) == (0, ())


def test_a_text_longer_than_the_context_loses_its_beginning_and_the_loss_is_said() -> None:
    prompt = fit_prompt("one two three four five", 2)
    assert token_ids_to_text(prompt.ids) == " four five"
    assert token_ids_to_text(prompt.text_ids) == "one two three four five"
    assert prompt.notes == ("There are 5 tokens and the model reads 2 at once: the first 3 were left out.",)


def test_a_huge_text_is_bounded_and_the_bound_is_said() -> None:
    prompt = fit_prompt("ab " * LONGEST_PROMPT, 4)
    assert len(prompt.text_ids) <= LONGEST_PROMPT
    assert prompt.dropped_characters == 2 * LONGEST_PROMPT
    assert "Only the last 100,000 characters were tokenised; 200,000 before them" in prompt.notes[0]


@pytest.mark.parametrize("text", ["👍🏽", "e\u0301", "\u0301", "👩\u200d👩\u200d👧", "a\x00b", "\u202eabc", "日本語"])
def test_emoji_combining_marks_and_controls_come_back_as_they_were(text: str) -> None:
    assert token_ids_to_text(fit_prompt(text, 64).ids) == text
