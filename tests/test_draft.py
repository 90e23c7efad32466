"""The draft: one file that pages, tabs and restarts share."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from gptlab.config import PRESETS
from pages.shared import draft


def test_first_draft_is_tiny_on_the_built_in_story() -> None:
    assert draft.load_draft() == PRESETS["tiny"]
    assert draft.load_draft().data.corpus == "builtin"
    assert (draft.draft_preset(), draft.draft_name()) == ("tiny", "")


def test_reading_a_draft_writes_nothing(home: Path) -> None:
    draft.load_draft()
    assert not home.exists()


def test_saved_draft_is_read_back_whole() -> None:
    config = PRESETS["small"].with_fields(optim={"betas": (0.9, 0.95)}, train={"prompts": ("One", "<b>two</b>")})
    draft.save_draft(config, preset="small", name="Löwe")
    assert draft.read_draft() == draft.Draft(config, "small", "Löwe")


def test_saving_one_part_keeps_the_others() -> None:
    draft.save_draft(PRESETS["small"], preset="small", name="first")
    draft.save_draft(name="second")
    assert draft.read_draft() == draft.Draft(PRESETS["small"], "small", "second")


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '{"config": {"model": {"width": 3}}, "preset": "tiny"}'])
def test_damaged_draft_is_the_first_draft_again(home: Path, content: str) -> None:
    home.mkdir()
    (home / "draft.json").write_text(content)
    assert draft.read_draft() == draft.Draft(PRESETS["tiny"])


def test_unknown_preset_in_the_file_keeps_the_configuration(home: Path) -> None:
    draft.save_draft(PRESETS["small"], preset="small")
    path = home / "draft.json"
    path.write_text(path.read_text().replace('"preset": "small"', '"preset": "gone"'))
    assert draft.read_draft() == draft.Draft(PRESETS["small"], "tiny")


def test_impossible_edit_leaves_the_draft_as_it_was() -> None:
    draft.save_draft(PRESETS["small"], preset="small")
    with pytest.raises(ValidationError):
        draft.edit_draft(model={"n_heads": 7})
    assert draft.load_draft() == PRESETS["small"]


def test_name_too_long_for_a_run_is_refused() -> None:
    with pytest.raises(ValueError, match="300 characters"):
        draft.save_draft(name="x" * 300)
    assert draft.draft_name() == ""


def test_choosing_a_preset_keeps_text_device_and_prompts() -> None:
    own = PRESETS["tiny"].with_fields(
        data={"corpus": "sha256:ab"}, train={"device": "cpu", "prompts": ("Once",)}, optim={"learning_rate": 0.5}
    )
    draft.save_draft(own, name="kept")
    draft.choose_preset("small")
    chosen = draft.load_draft()
    assert (chosen.data.corpus, chosen.train.device, chosen.train.prompts) == ("sha256:ab", "cpu", ("Once",))
    assert chosen.model == PRESETS["small"].model
    assert chosen.optim == PRESETS["small"].optim
    assert draft.read_draft() == draft.Draft(chosen, "small", "kept")


def test_reference_exercise_is_exact_but_for_the_device() -> None:
    draft.save_draft(PRESETS["tiny"].with_fields(train={"device": "cpu", "prompts": ("Once",), "seed": 7}))
    draft.choose_reference_exercise("the-verdict")
    assert draft.load_draft() == PRESETS["gpt2-124m"].with_fields(
        data={"corpus": "the-verdict"}, train={"device": "cpu"}
    )
    assert draft.draft_preset() == "gpt2-124m"


def test_choosing_a_corpus_changes_nothing_else() -> None:
    draft.save_draft(PRESETS["small"], preset="small")
    draft.choose_corpus("the-verdict")
    assert draft.load_draft() == PRESETS["small"].with_fields(data={"corpus": "the-verdict"})
