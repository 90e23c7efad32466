"""A passage tinted by how sure the model was of each token."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from pages.shared.surprise import surprise_tokens


def test_a_score_that_is_no_number_is_sent_as_none() -> None:
    """Weights that training has spoilt score so; a browser reads no NaN."""
    tokens = surprise_tokens([1, 2, 3, 4], np.array([0.5, math.nan, math.inf]))
    json.dumps(tokens, allow_nan=False)
    assert [token.get("p") for token in tokens] == [None, pytest.approx(math.exp(-0.5)), None, 0.0]
