from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from gptlab import checkpoint
from gptlab.checkpoint import (
    SaveError,
    keep_newest,
    load_model,
    load_weights,
    newest_resumable,
    read_facts,
    read_resume,
    remove_all,
    save_best,
    save_checkpoint,
    save_weights,
    step_checkpoints,
    tidy,
)
from gptlab.direct_file import DirectFile
from tests.small_models import small_config, small_model, some_ids

RESUME = {"step": 3, "moments": torch.ones(4)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "checkpoints"


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@pytest.mark.parametrize("changes", [{}, {"tie_weights": True}, {"qkv_bias": True, "init": "gpt2"}])
def test_a_model_comes_back_as_it_was_saved(folder: Path, changes: dict[str, object]) -> None:
    model = small_model(5, **changes).train()
    place = save_checkpoint(folder, model, 90, RESUME, epoch=10)
    assert names(folder) == ["step-000090", "step-000090/resume.pt", "step-000090/weights.safetensors"]
    ids = some_ids(16).view(1, 16)
    expected = model.eval()(ids)
    for path in (place, place / "weights.safetensors", str(place)):
        loaded = load_model(path)
        assert loaded.config == small_config(**changes)
        assert not loaded.training
        assert torch.equal(loaded(ids), expected)
    assert (loaded.out_head.weight is loaded.tok_emb.weight) == bool(changes.get("tie_weights"))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_weights_of_another_type_come_back_too(folder: Path, dtype: torch.dtype) -> None:
    model = small_model(5).to(dtype)
    loaded = load_model(save_best(folder, model, 1))
    assert loaded.tok_emb.weight.dtype == dtype
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), loaded.parameters(), strict=True))


def test_everybody_may_read_a_checkpoint_where_new_files_are_private(folder: Path) -> None:
    before = os.umask(0o077)
    try:
        place = save_best(folder, small_model(), 1)
    finally:
        os.umask(before)
    assert [oct(path.stat().st_mode & 0o777) for path in (place, place / "weights.safetensors")] == ["0o755", "0o644"]


def test_a_loaded_model_can_be_trained(folder: Path) -> None:
    loaded = load_model(save_checkpoint(folder, small_model(), 1))
    loaded(some_ids(4).view(1, 4)).sum().backward()
    assert all(parameter.requires_grad and parameter.grad is not None for parameter in loaded.parameters())


def test_a_tied_head_is_stored_once(tmp_path: Path) -> None:
    save_weights(small_model(tie_weights=True), tmp_path / "tied.safetensors")
    assert "out_head.weight" not in load_file(tmp_path / "tied.safetensors")


def test_the_file_says_what_it_holds(folder: Path) -> None:
    facts = read_facts(save_checkpoint(folder, small_model(), 90, epoch=10, val_loss=6.5))
    assert (facts["step"], facts["epoch"], facts["val_loss"]) == (90, 10, 6.5)
    assert facts["model"] == small_config().model_dump()
    assert facts["gptlab"]


def test_only_the_newest_can_be_resumed_from(folder: Path) -> None:
    for step in (9, 18, 27):
        save_checkpoint(folder, small_model(), step, {**RESUME, "step": step})
    assert [path.name for path in step_checkpoints(folder)] == ["step-000009", "step-000018", "step-000027"]
    assert [(path / "resume.pt").exists() for path in step_checkpoints(folder)] == [False, False, True]
    newest = newest_resumable(folder)
    assert newest is not None
    assert newest.name == "step-000027"
    assert newest_resumable(newest) == newest
    resume = read_resume(newest)
    assert resume["step"] == 27
    assert torch.equal(resume["moments"], torch.ones(4))


def test_steps_are_sorted_as_numbers(folder: Path) -> None:
    for step in (1_000_000, 999_999, 5):
        save_checkpoint(folder, small_model(), step)
    assert [path.name for path in step_checkpoints(folder)] == ["step-000005", "step-999999", "step-1000000"]


def test_a_folder_that_is_not_there_holds_no_checkpoint(folder: Path) -> None:
    assert newest_resumable(folder) is None
    assert step_checkpoints(folder) == []


def test_best_is_replaced(folder: Path) -> None:
    save_best(folder, small_model(1), 6, val_loss=2.0)
    save_best(folder, small_model(2), 11, val_loss=1.0)
    assert names(folder) == ["best", "best/weights.safetensors"]
    assert read_facts(folder / "best")["step"] == 11
    assert torch.equal(load_model(folder / "best").tok_emb.weight, small_model(2).tok_emb.weight)


def test_a_checkpoint_of_the_same_step_is_replaced(folder: Path) -> None:
    save_checkpoint(folder, small_model(1), 6, RESUME)
    save_checkpoint(folder, small_model(2), 6, {**RESUME, "step": 6})
    assert names(folder) == ["step-000006", "step-000006/resume.pt", "step-000006/weights.safetensors"]
    assert read_resume(folder / "step-000006")["step"] == 6


@pytest.mark.parametrize(("keep", "left"), [(None, [1, 2, 3, 4]), (2, [3, 4]), (9, [1, 2, 3, 4]), (1, [4]), (0, [4])])
def test_only_the_newest_are_kept(folder: Path, keep: int | None, left: list[int]) -> None:
    for step in (1, 2, 3, 4):
        save_checkpoint(folder, small_model(), step, RESUME)
    save_best(folder, small_model(), 2)
    keep_newest(folder, keep)
    assert [int(path.name[5:]) for path in step_checkpoints(folder)] == left
    assert (folder / "best").exists()
    assert newest_resumable(folder) is not None
    keep_newest(folder, keep, finished=True)
    assert (newest_resumable(folder) is None) == (keep == 0)


def _full_disk(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the next save fail as a full disk makes it fail, at the place that ``kind`` names."""
    if kind == "before":
        monkeypatch.setattr(checkpoint, "free_bytes", lambda path: 1000)
    elif kind == "weights":

        def refuse(*_: object) -> int:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "write", refuse)
    elif kind == "resume":

        def torn(_: object, file: DirectFile) -> None:
            file.write(b"half a fi")
            raise RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 896 vs 790")

        monkeypatch.setattr(torch, "save", torn)
    elif kind == "sync":

        def fail(descriptor: int) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "fsync", fail)


@pytest.mark.parametrize("kind", ["before", "weights", "resume", "sync"])
def test_a_full_disk_leaves_the_previous_checkpoint_as_it_was(
    folder: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    save_checkpoint(folder, small_model(), 9, RESUME)
    save_best(folder, small_model(), 6)
    before = {name: (folder / name).stat().st_mtime_ns for name in names(folder) if (folder / name).is_file()}
    _full_disk(kind, monkeypatch)
    with pytest.raises(SaveError, match="step-000018"):
        save_checkpoint(folder, small_model(1), 18, RESUME)
    if kind != "resume":
        with pytest.raises(SaveError, match="best"):
            save_best(folder, small_model(1), 18)
    after = {name: (folder / name).stat().st_mtime_ns for name in names(folder) if (folder / name).is_file()}
    assert after == before
    assert read_resume(folder / "step-000009")["step"] == 3


def test_too_little_space_is_told_in_numbers(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "free_bytes", lambda path: 1_500)
    with pytest.raises(SaveError, match=r"needs 0\.\d MB, but only 0\.0 MB are free.*free some space"):
        save_checkpoint(folder, small_model(), 9, RESUME)


def test_leftovers_of_an_interrupted_save_are_removed_and_never_read(folder: Path) -> None:
    save_checkpoint(folder, small_model(), 9, RESUME)
    for name in (".saving-step-000018-x", ".removing-step-000001"):
        (folder / name).mkdir()
        (folder / name / "weights.safetensors").write_bytes(b"half")
    assert [path.name for path in step_checkpoints(folder)] == ["step-000009"]
    tidy(folder)
    assert names(folder) == ["step-000009", "step-000009/resume.pt", "step-000009/weights.safetensors"]


def test_everything_can_be_removed(folder: Path) -> None:
    save_checkpoint(folder, small_model(), 9, RESUME)
    save_best(folder, small_model(), 6)
    remove_all(folder)
    assert names(folder) == []


def test_no_code_runs_while_a_resume_is_loaded(folder: Path) -> None:
    place = save_checkpoint(folder, small_model(), 9, RESUME)
    torch.save({"step": Path("x")}, place / "resume.pt")
    with pytest.raises(ValueError, match="cannot be read"):
        read_resume(place)


def test_damage_is_told_in_a_sentence(tmp_path: Path, folder: Path) -> None:
    place = save_checkpoint(folder, small_model(), 9, RESUME)
    with pytest.raises(ValueError, match="There is no checkpoint"):
        load_model(folder / "step-000099")
    with pytest.raises(ValueError, match=r"holds no resume\.pt"):
        read_resume(folder)
    with pytest.raises(ValueError, match="do not fit the model"):
        load_weights(small_model(n_layers=3), place)
    weights = place / "weights.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="no whole safetensors file"):
        load_model(place)
    (place / "resume.pt").write_bytes(b"torn")
    with pytest.raises(ValueError, match=r"resume\.pt cannot be read"):
        read_resume(place)
    save_file({"x": torch.ones(1)}, weights)
    with pytest.raises(ValueError, match="was not written by gptlab"):
        load_model(place)
    save_file({"x": torch.ones(1)}, weights, metadata={"model": '{"emb_dim": "wide"}'})
    with pytest.raises(ValueError, match="describes no model"):
        load_model(place)
