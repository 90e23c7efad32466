from __future__ import annotations

import pytest

from gptlab.cloze import cloze_question
from gptlab.corpus import open_corpus
from gptlab.tokenizer import encode_text, get_tokenizer

IDS = encode_text("The river rose and rose, unfinished as it was, until nobody could say how high it stood. " * 3)


def piece(token: int) -> str:
    return get_tokenizer().decode([token])


def test_the_hidden_token_is_a_whole_word_with_its_surroundings() -> None:
    ids = open_corpus("builtin").token_ids()
    for number in range(60):
        asked = cloze_question(ids, 64, seed=1, number=number)
        assert piece(asked.answer)[0] == " "
        assert piece(asked.answer)[1:].isalpha()
        assert len(piece(asked.answer)) >= 4
        assert not piece(asked.after[0])[0].isalpha()
        assert ids[asked.index] == asked.answer
        assert list(asked.before) == ids[max(0, asked.index - 64) : asked.index].tolist()
        assert list(asked.after) == ids[asked.index + 1 : asked.index + 13].tolist()
        assert asked.passage == (*asked.before, asked.answer)


def test_no_place_is_asked_twice_before_all_have_been() -> None:
    places = [cloze_question(IDS, 32, seed=2, number=number).index for number in range(200)]
    kinds = len(set(places))
    assert 10 < kinds < 100
    assert len(set(places[:kinds])) == kinds
    assert sorted(places[kinds : 2 * kinds]) == sorted(set(places))


def test_a_seed_repeats_its_quiz_and_another_has_another() -> None:
    quizzes = [tuple(cloze_question(IDS, 32, seed, n).index for n in range(8)) for seed in (1, 1, 2)]
    assert quizzes[0] == quizzes[1] != quizzes[2]


def test_a_short_context_is_enough() -> None:
    assert len(cloze_question(IDS, 3, seed=1).before) == 3


@pytest.mark.parametrize("text", ["", "The river", "1 2 3 4 5 6 7 8 9 10 11 12"])
def test_a_text_without_a_word_to_hide_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="hold no whole word behind 8 others: choose a longer text"):
        cloze_question(encode_text(text), 32, seed=1)
