"""Several configurations from one."""

from __future__ import annotations

import pytest

from gptlab.config import PRESETS
from gptlab.grid import MOST, expand, read_axes

TINY = PRESETS["tiny"]


def test_every_combination_is_there_once_the_last_field_changing_fastest() -> None:
    points = expand(TINY, {"optim.learning_rate": [1e-3, 4e-3], "train.seed": [1, 2, 2]})
    assert [(p.config.optim.learning_rate, p.config.train.seed) for p in points] == [
        (1e-3, 1), (1e-3, 2), (4e-3, 1), (4e-3, 2),
    ]  # fmt: skip
    assert points[1].label == "learning_rate 0.001, seed 2"
    assert points[1].named("sweep") == "sweep · learning_rate 0.001, seed 2"


def test_no_field_means_the_configuration_itself() -> None:
    (point,) = expand(TINY, {})
    assert (point.config, point.label, point.named("plain")) == (TINY, "", "plain")


def test_fields_that_are_only_possible_together_may_be_varied_together() -> None:
    points = expand(TINY.with_fields(model={"n_heads": 1}), {"model.emb_dim": [33, 96], "model.n_heads": [3]})
    assert [point.config.model.emb_dim for point in points] == [33, 96]


def test_more_than_the_most_is_refused_with_the_number() -> None:
    with pytest.raises(ValueError, match=f"These are 65 configurations, more than {MOST}"):
        expand(TINY, {"train.seed": list(range(65))})
    assert len(expand(TINY, {"train.seed": list(range(64))})) == 64


@pytest.mark.parametrize(
    ("axes", "fault"),
    [
        ({"optim.learning_rate": [1e-3, -1]}, "learning_rate -1: optim.learning_rate is -1: it must be above 0"),
        ({"model.n_heads": [4, 5]}, "emb_dim 96 is not divisible by n_heads 5"),
        ({"model.width": [1, 2]}, "There is no field model.width"),
        ({"shape.width": [1, 2]}, "There is no section 'shape'"),
        ({"train.seed": []}, "train.seed has no value"),
    ],
)
def test_what_is_impossible_is_a_sentence(axes: dict[str, list[object]], fault: str) -> None:
    with pytest.raises(ValueError, match=fault.replace("(", r"\(")):
        expand(TINY, axes)


def test_a_list_makes_an_axis_but_is_the_value_of_a_field_that_is_a_list() -> None:
    config, axes = read_axes(
        TINY,
        [
            "train.seed=[1, 2]",
            'train.prompts=["a", "b"]',
            "optim.betas=[[0.9, 0.95], [0.9, 0.99]]",
            "data.batch_size=8",
        ],
    )
    assert axes == {"train.seed": [1, 2], "optim.betas": [[0.9, 0.95], [0.9, 0.99]]}
    assert config.train.prompts == ("a", "b")
    assert config.data.batch_size == 8
    assert len(expand(config, axes)) == 4


def test_a_long_name_is_cut_to_what_a_run_may_be_called() -> None:
    assert len(expand(TINY, {"train.seed": [1, 2]})[0].named("x" * 120)) == 120
