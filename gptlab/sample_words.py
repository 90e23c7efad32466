"""Samples of the exercise in words, beside what the published ones are like."""

from __future__ import annotations

from collections.abc import Sequence

from gptlab.events import Sampled
from gptlab.published import SAMPLES


def read_samples(samples: Sequence[Sampled], story: str | None) -> list[tuple[int, str, str]]:
    """For the epochs that the exercise describes: the epoch, what the published sample is like, what this one is like.

    ``story``: the text, to look for borrowed words in; None where it is not here any more.
    """
    text = " ".join(story.split()) if story else ""
    first = {sample.epoch: sample for sample in reversed(samples)}  # of the first prompt
    return [(epoch, told, _sample_in_words(first[epoch], text)) for epoch, told in SAMPLES if epoch in first]


def _sample_in_words(sample: Sampled, story: str) -> str:
    words = sample.text.removeprefix(sample.prompt).split()
    written = "".join(words)
    if not written:
        return "only spaces"
    marks = sum(not character.isalnum() for character in written) / len(written)
    real = [word for word in words if any(map(str.isalnum, word))]
    said = [f"{100 * marks:.0f} % punctuation marks"]
    if real:
        said.append(f"{len(real)} word{'s' * (len(real) != 1)}, {len(set(map(str.lower, real)))} different")
    if story:
        longest = longest_borrowed(words, story)
        if longest > 1:
            said.append(f"{longest} words in a row as in the story")
    return ", ".join(said)


def longest_borrowed(words: Sequence[str], story: str) -> int:
    """The most words in a row that stand so in ``story`` (words parted by single spaces)."""
    longest = 0
    for start in range(len(words)):
        while start + longest < len(words) and " ".join(words[start : start + longest + 1]) in story:
            longest += 1
    return longest
