"""What samples are like, in words that can stand beside the published ones."""

from __future__ import annotations

from gptlab.events import Sampled
from gptlab.sample_words import longest_borrowed, read_samples


def sample(epoch: int, text: str) -> Sampled:
    return Sampled(epoch=epoch, prompt="Every effort moves you", token_ids=(), text=f"Every effort moves you{text}")


def test_samples_are_read_beside_what_the_published_ones_are_like() -> None:
    story = "It was one of the axioms he laid\ndown across the Sevres."
    found = read_samples(
        [sample(0, " x"), sample(1, ",,,,,"), sample(2, "   "), sample(10, " was one of the axioms he laid down too")],
        story,
    )
    assert [epoch for epoch, _, _ in found] == [1, 2, 10]
    assert found[0][1:] == ("commas and nothing else", "100 % punctuation marks")
    assert found[1][2] == "only spaces"
    assert found[2][2].endswith("8 words in a row as in the story")


def test_borrowed_words_are_counted_in_a_row() -> None:
    assert (
        longest_borrowed(["had", "the", "donkey", "and", "down"], "I had the donkey, the donkey and down he went") == 4
    )
    assert longest_borrowed([], "anything") == 0
