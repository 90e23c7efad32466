from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from gptlab.interop import load_reference_state_dict, to_reference_state_dict
from tests.small_models import small_model, some_ids

REFERENCE = json.loads((Path(__file__).parent / "reference" / "small_reference.json").read_text())


def weights(seed: int = 1, **changes: object) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in to_reference_state_dict(small_model(seed, **changes)).items()}


def same(model: torch.nn.Module, other: torch.nn.Module) -> bool:
    ids = some_ids(16).view(1, 16)
    return torch.equal(model(ids), other(ids))


@pytest.mark.parametrize("changes", [{}, {"qkv_bias": True}, {"tie_weights": True}])
def test_a_model_travels_through_the_reference_names(changes: dict[str, object]) -> None:
    model = small_model(**changes)
    place = model.tok_emb.weight
    load_reference_state_dict(model, weights(**changes))
    assert same(model, small_model(1, **changes))
    assert model.tok_emb.weight is place


def test_the_names_are_the_references() -> None:
    assert list(weights(n_layers=3)) == REFERENCE["parameters"]
    biased = weights(qkv_bias=True)
    assert {"trf_blocks.0.att.W_query.bias", "trf_blocks.1.att.W_value.bias"} <= biased.keys()


def test_masks_are_ignored() -> None:
    model, state = small_model(), weights()
    state |= {f"trf_blocks.{block}.att.mask": torch.ones(16, 16).triu(1) for block in range(2)}
    load_reference_state_dict(model, state)
    assert same(model, small_model(1))


def test_every_fault_is_told_at_once_and_nothing_is_changed() -> None:
    model, state = small_model(), weights()
    del state["pos_emb.weight"], state["out_head.weight"]
    state["mask"] = state["extra.weight"] = torch.ones(1)
    state["final_norm.scale"] = torch.ones(25)
    state["final_norm.shift"] = "no tensor"  # type: ignore[assignment]
    with pytest.raises(ValueError, match="do not fit") as raised:
        load_reference_state_dict(model, state)
    for told in (
        "missing: pos_emb.weight, out_head.weight",
        "unexpected: mask, extra.weight",
        "final_norm.scale (is [25], the model has [24])",
        "final_norm.shift (is str, the model has [24])",
    ):
        assert told in str(raised.value)
    assert same(model, small_model())


def test_a_tied_model_takes_a_file_without_the_head() -> None:
    model, state = small_model(tie_weights=True), weights(tie_weights=True)
    del state["out_head.weight"]
    load_reference_state_dict(model, state)
    assert same(model, small_model(1, tie_weights=True))


def test_a_tied_model_refuses_a_head_of_its_own() -> None:
    with pytest.raises(ValueError, match=r"out_head.weight differs from tok_emb.weight"):
        load_reference_state_dict(small_model(tie_weights=True), weights())


def test_an_untied_model_says_what_to_do_with_a_tied_file() -> None:
    state = weights()
    del state["out_head.weight"]
    with pytest.raises(ValueError, match=r"missing: out_head.weight.*switch tie_weights on"):
        load_reference_state_dict(small_model(), state)


def test_a_file_saved_from_the_exercise_loads(tmp_path: Path) -> None:
    state = weights()
    state["trf_blocks.0.att.mask"] = torch.ones(16, 16).triu(1)
    torch.save(state, tmp_path / "model.pth")
    model = small_model()
    load_reference_state_dict(model, torch.load(tmp_path / "model.pth", weights_only=True))
    assert same(model, small_model(1))
