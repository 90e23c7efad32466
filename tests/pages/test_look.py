"""How the pages write numbers for people."""

from __future__ import annotations

import pytest

from pages.shared.look import roughly


@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        (0.2, "10 s"),
        (44, "40 s"),
        (57, "1 min"),
        (66, "1 min"),
        (329, "5 min"),
        (580, "10 min"),
        (1565, "25 min"),
        (3550, "1 h"),
        (9100, "2 h 30 min"),
        (200_000, "2 d 7 h"),
    ],
)
def test_a_guess_has_no_more_digits_than_it_is_good_for(seconds: float, told: str) -> None:
    assert roughly(seconds) == told
