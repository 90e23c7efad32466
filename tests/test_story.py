"""The built-in story: long enough for the exercise, short enough for a first run, plain text."""

from __future__ import annotations

import re
from importlib import resources

from gptlab.config import PRESETS, RunConfig
from gptlab.dataset import check_lengths, split_text
from gptlab.tokenizer import encode_text

STORY = (resources.files("gptlab") / "story.txt").read_bytes().decode("utf-8")


def tokens_of_both_parts() -> tuple[int, int]:
    train, val = split_text(STORY, 0.9)
    return len(encode_text(train)), len(encode_text(val))


def test_length() -> None:
    assert 18_000 <= len(STORY) <= 24_000
    assert 5_000 <= len(encode_text(STORY)) <= 5_700


def test_split_gives_the_batches_of_the_exercise() -> None:
    train, val = tokens_of_both_parts()
    assert train >= 4_620
    assert val >= 515
    report = check_lengths(train, val, RunConfig())
    assert (report.train_batches, report.val_windows, report.val_batches) == (9, 2, 1)
    assert report.faults == []


def test_first_run_preset_warns_of_nothing() -> None:
    report = check_lengths(*tokens_of_both_parts(), PRESETS["tiny"])
    assert report.faults == []
    assert report.warnings == []


def test_plain_ascii_without_odd_characters() -> None:
    assert set(re.findall(r"[^A-Za-z0-9 \n.,;:!?\"'()-]", STORY)) == set()


def test_a_title_then_paragraphs_parted_by_one_blank_line() -> None:
    title, blank, *_ = STORY.split("\n")
    assert 5 < len(title) < 60
    assert blank == ""
    assert STORY.endswith(".\n")
    assert not re.search(r"\n\n\n|[^\n]\n[^\n]| \n|\n |  ", STORY)


def test_dialogue_and_every_quotation_is_closed() -> None:
    paragraphs = STORY.split("\n\n")
    spoken = [paragraph for paragraph in paragraphs if '"' in paragraph]
    assert len(spoken) > 50
    assert all(paragraph.count('"') % 2 == 0 for paragraph in spoken)


def test_names_and_phrases_come_back_for_a_small_model_to_learn() -> None:
    least = {"anselm": 20, "tobias": 8, "what does the river say": 8, "forty-one": 5, "falling": 10}
    for phrase, times in least.items():
        assert STORY.lower().count(phrase) >= times, phrase


def test_the_phrases_stand_in_both_parts() -> None:
    train, val = split_text(STORY, 0.9)
    for phrase in ("Anselm", "Mrs. Hale", "What does the river say?", "the year of the two weddings", "go down again"):
        assert phrase in train, phrase
        assert phrase in val, phrase
