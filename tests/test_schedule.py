from __future__ import annotations

import pytest

from gptlab.config import OptimConfig
from gptlab.schedule import learning_rate_at


def rates(total: int, **settings: object) -> list[float]:
    optim = OptimConfig.model_validate({"learning_rate": 1.0, **settings})
    return [learning_rate_at(step, total, optim) for step in range(total)]


def test_constant_is_constant() -> None:
    assert rates(4) == [1.0] * 4


def test_a_warm_up_climbs_in_equal_steps_and_never_starts_at_zero() -> None:
    assert rates(6, warmup_steps=4) == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]


def test_the_cosine_starts_at_the_highest_and_ends_at_the_lowest_rate() -> None:
    found = rates(5, schedule="cosine", min_learning_rate=0.2)
    assert found == pytest.approx([1.0, 0.2 + 0.8 * 0.8535533905932737, 0.6, 0.2 + 0.8 * 0.1464466094067262, 0.2])


def test_the_cosine_begins_where_the_warm_up_ends() -> None:
    found = rates(12, schedule="cosine", warmup_steps=3)
    assert found[2] == found[3] == 1.0
    assert found[3:] == sorted(found[3:], reverse=True)
    assert found[-1] == pytest.approx(0.0)


@pytest.mark.parametrize("warmup", [0, 1, 5, 9])
@pytest.mark.parametrize("total", [1, 2, 5])
def test_a_run_shorter_than_its_schedule_stays_within_bounds(total: int, warmup: int) -> None:
    assert all(0 <= rate <= 1 for rate in rates(total, schedule="cosine", warmup_steps=warmup))
    assert rates(total, schedule="cosine", warmup_steps=warmup)[0] > 0
