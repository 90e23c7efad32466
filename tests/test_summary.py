from __future__ import annotations

import pytest

from gptlab.config import PRESETS, DataConfig, RunConfig, TrainConfig
from gptlab.events import NAN, Ended, Evaluated, Started, Stepped
from gptlab.runs import Run, RunStore
from gptlab.summary import config_differences, fingerprint, folder_bytes, summarise


@pytest.fixture
def run() -> Run:
    run = RunStore().create(RunConfig(train=TrainConfig(num_epochs=3)), name="first", tags=["a"], notes="why")
    run.append(Started(step=0, time=10.0, device="cpu", n_parameters=1000, total_steps=6, threads=2))
    for step, val in enumerate((5.0, 4.0, 4.5)):
        common = {"step": step, "time": 11.0 + step, "epoch": step // 2 + 1, "tokens_seen": step}
        run.append(Stepped(**common, loss=9.0 - step))
        run.append(Evaluated(**common, train_loss=8.0 - step, val_loss=val))
    return run


def test_a_summary_tells_the_key_figures(run: Run) -> None:
    told = summarise(run)
    assert (told.name, told.tags, told.notes) == ("first", ("a",), "why")
    assert (told.steps, told.total_steps, told.epoch, told.num_epochs) == (3, 6, 2, 3)
    assert (told.best_val_loss, told.best_step, told.last_train_loss) == (4.0, 2, 6.0)
    assert (told.n_parameters, told.device, told.seconds) == (1000, "cpu", 3.0)
    assert (told.status, told.problem) == ("interrupted", None)


def test_a_run_that_ends_while_it_is_asked_for_is_told_as_it_ended(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def ends_now(run: Run) -> str:
        run.append(Evaluated(step=2, epoch=2, tokens_seen=3, time=14.0, train_loss=1.0, val_loss=3.5))
        return "finished"

    monkeypatch.setattr(Run, "status", ends_now)
    told = summarise(run)
    assert (told.status, told.best_val_loss) == ("finished", 3.5)


def test_without_an_evaluation_the_last_steps_loss_is_the_last_training_loss() -> None:
    run = RunStore().create(RunConfig())
    assert summarise(run).last_train_loss is None
    run.append(Stepped(step=0, epoch=1, tokens_seen=1, loss=7.5))
    assert summarise(run).last_train_loss == 7.5
    run.append(Evaluated(step=0, epoch=1, tokens_seen=1, train_loss=NAN, val_loss=NAN))
    told = summarise(run)
    assert (told.last_train_loss, told.best_val_loss) == (7.5, None)


def test_a_torn_configuration_is_a_problem_and_the_figures_stay(run: Run) -> None:
    (run.path / "config.json").write_text('{"model": ')
    told = summarise(Run(run.path))
    assert told.problem is not None
    assert run.id in told.problem
    assert told.status == "damaged"
    assert (told.steps, told.best_val_loss, told.num_epochs) == (3, 4.0, None)


def test_an_unreadable_log_is_a_problem_in_a_sentence(run: Run) -> None:
    run.events_path.unlink()
    run.events_path.mkdir()
    told = summarise(Run(run.path))
    assert told.status == "damaged"
    assert told.problem == f"The event log of run {run.id} cannot be read: Is a directory."


def test_size_counts_every_file_below_the_folder(run: Run) -> None:
    before = folder_bytes(run.path)
    folder = run.path / "checkpoints" / "best"
    folder.mkdir(parents=True)
    (folder / "weights.safetensors").write_bytes(b"x" * 1234)
    assert folder_bytes(run.path) == before + 1234


def test_the_fingerprint_changes_with_what_is_shown(run: Run) -> None:
    seen = [fingerprint(run)]
    run.append(Ended(step=2, reason="stopped"))
    seen.append(fingerprint(run))
    run.rename("another, longer name")
    seen.append(fingerprint(run))
    (run.path / "checkpoints").mkdir()
    seen.append(fingerprint(run))
    assert len(set(seen)) == 4
    assert fingerprint(run) == seen[-1]


def test_only_fields_that_differ_are_differences() -> None:
    first = RunConfig()
    second = RunConfig(data=DataConfig(batch_size=8), train=TrainConfig(prompts=("Once",)))
    assert config_differences([first, second, first]) == [
        ("data.batch_size", [2, 8, 2]),
        ("train.prompts", [("Every effort moves you",), ("Once",), ("Every effort moves you",)]),
    ]
    assert config_differences([first, first]) == []
    assert config_differences([PRESETS["tiny"]]) == []
    assert config_differences([]) == []
