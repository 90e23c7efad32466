"""Configuration: the fixed names, the reference's values, and a sentence for every fault."""

from __future__ import annotations

import json
import math

import pytest
from pydantic import ValidationError

from gptlab.config import PRESETS, DataConfig, ModelConfig, OptimConfig, RunConfig, SamplingConfig, TrainConfig, preset
from gptlab.parsing import explain_validation_error, parse_config, set_fields

NAMES = {
    "model": "vocab_size context_length emb_dim n_heads n_layers drop_rate qkv_bias tie_weights init",
    "data": "corpus train_ratio batch_size stride shuffle drop_last order num_workers",
    "optim": "learning_rate weight_decay betas schedule warmup_steps min_learning_rate grad_clip grad_accumulation",
    "train": "num_epochs max_steps eval_freq eval_iter prompts sample_tokens seed device precision compile "
    "keep_checkpoints patience",
}


def test_the_names_of_all_fields_are_fixed() -> None:
    fields = RunConfig().model_dump()
    assert {section: " ".join(names) for section, names in fields.items()} == NAMES


def test_the_reference_preset_is_the_published_exercise() -> None:
    config = PRESETS["gpt2-124m"]
    assert config.model.model_dump() == {
        "vocab_size": 50257,
        "context_length": 256,
        "emb_dim": 768,
        "n_heads": 12,
        "n_layers": 12,
        "drop_rate": 0.1,
        "qkv_bias": False,
        "tie_weights": False,
        "init": "torch",
    }
    assert (config.data.batch_size, config.stride, config.data.train_ratio) == (2, 256, 0.9)
    assert (config.optim.learning_rate, config.optim.weight_decay, config.optim.schedule) == (4e-4, 0.1, "constant")
    train = config.train
    assert (train.num_epochs, train.eval_freq, train.eval_iter, train.sample_tokens, train.seed) == (10, 5, 5, 50, 123)
    assert train.prompts == ("Every effort moves you",)


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_survives_its_file(name: str) -> None:
    assert parse_config(PRESETS[name].to_json()) == PRESETS[name]


def test_the_dictionary_of_the_exercise_makes_a_model_configuration() -> None:
    reference = {
        "vocab_size": 50257,
        "context_length": 256,
        "emb_dim": 768,
        "n_heads": 12,
        "n_layers": 12,
        "drop_rate": 0.1,
        "qkv_bias": False,
    }
    assert ModelConfig(**reference) == ModelConfig()


def test_a_configuration_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        RunConfig().model.emb_dim = 1  # type: ignore[misc]


def test_every_field_says_what_it_is() -> None:
    for part in (ModelConfig, DataConfig, OptimConfig, TrainConfig, SamplingConfig):
        for name, field in part.model_fields.items():
            assert field.title, name
            assert len(field.description or "") > 10, name


@pytest.mark.parametrize(
    ("assignment", "words"),
    [
        ("model.emb_dim=100", ["emb_dim 100", "n_heads 3"]),
        ("model.n_layers=0", ["model.n_layers is 0", "at least 1"]),
        ("model.context_length=-4", ["-4", "at least 1"]),
        ("optim.learning_rate=0", ["optim.learning_rate is 0", "above 0"]),
        ("optim.learning_rate=-1", ["-1", "above 0"]),
        ("optim.learning_rate=NaN", ["optim.learning_rate", "finite"]),
        ("optim.learning_rate=Infinity", ["optim.learning_rate"]),
        ("optim.learning_rate=1e9", ["at most 1"]),
        ("data.train_ratio=0", ["data.train_ratio is 0", "above 0"]),
        ("data.train_ratio=1", ["data.train_ratio is 1", "below 1"]),
        ("train.device=tpu", ["'tpu'", "cpu, cuda"]),
        ("train.prompts=[]", ["0 prompts", "one to five"]),
        ("train.precision=fp8", ["'fp8'", "bf16"]),
        ("optim.betas=[0.9, 1.0]", ["optim.betas.1", "below 1"]),
        ("train.num_epochs=two", ["train.num_epochs", "'two'"]),
        ("train.epochs=2", ["no field 'epochs'", "num_epochs"]),
        ("trian.seed=2", ["no section 'trian'", "train"]),
        ("seed=2", ["'seed=2'", "section.field=value"]),
        ('data.corpus=""', ["no name", "builtin"]),
    ],
)
def test_a_faulty_assignment_is_refused_in_a_sentence(assignment: str, words: list[str]) -> None:
    base = RunConfig(model=ModelConfig(emb_dim=96, n_heads=3))
    with pytest.raises(ValueError) as fault:
        set_fields(base, [assignment])
    assert not isinstance(fault.value, ValidationError)
    for word in words:
        assert word in str(fault.value)


def test_all_faults_are_told_at_once() -> None:
    with pytest.raises(ValueError) as fault:
        set_fields(RunConfig(), ["model.n_layers=0", "optim.learning_rate=0", "train.seed=-1"])
    assert len(str(fault.value).splitlines()) == 3


def test_assignments_are_checked_together_whatever_their_order() -> None:
    config = set_fields(RunConfig(), ["model.emb_dim=100", "model.n_heads=5"])
    assert (config.model.emb_dim, config.model.n_heads) == (100, 5)


def test_a_value_is_json_where_it_parses_and_else_a_string() -> None:
    config = set_fields(RunConfig(), ['data.corpus=["a.txt", "b.txt"]', "train.device=cpu", "train.max_steps=null"])
    assert config.data.sources == ("a.txt", "b.txt")
    assert (config.train.device, config.train.max_steps) == ("cpu", None)


def test_an_unknown_preset_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match="gpt2-124m"):
        preset("huge")


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '"x"', '{"modle": {}}', b"\xff\xfe"])
def test_a_broken_configuration_file_is_refused_in_a_sentence(text: str | bytes) -> None:
    with pytest.raises(ValueError) as fault:
        parse_config(text)
    assert not isinstance(fault.value, ValidationError)
    assert str(fault.value).endswith(".")


def test_not_a_number_never_enters_a_configuration() -> None:
    with pytest.raises(ValidationError) as fault:
        OptimConfig(weight_decay=math.nan)
    assert "finite" in explain_validation_error(fault.value)


def test_a_configuration_file_is_plain_json() -> None:
    assert json.loads(RunConfig().to_json())["model"]["emb_dim"] == 768
