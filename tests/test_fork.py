"""Forks: a new run from another's weights, which needs its parent no more."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from gptlab import fork as fork_module
from gptlab import worker
from gptlab.checkpoint import load_model, read_resume
from gptlab.config import PRESETS, RunConfig
from gptlab.events import Ended, Evaluated, Event, Resumed, Started, Stepped
from gptlab.fork import Parent, find_checkpoint, fork, parent_of
from gptlab.runs import Run, RunStore
from tests.fake_run import hold

MODEL = {"context_length": 16, "emb_dim": 8, "n_heads": 2, "n_layers": 1}
CONFIG = PRESETS["tiny"].with_fields(
    model=MODEL,
    data={"batch_size": 2},
    train={"device": "cpu", "max_steps": 3, "eval_freq": 1, "eval_iter": 1, "sample_tokens": 1},
)


def worked(run: Run, wishes: dict[int, str] | None = None) -> list[Event]:
    """What the worker does with a run, written down as it does; ``wishes``: what is asked at which time of asking."""
    asked = iter(range(10**6))
    events = []
    for event in worker.facts(run, lambda: (wishes or {}).get(next(asked))):
        run.append(event)
        events.append(event)
    return events


def losses(events: list[Event]) -> list[float]:
    return [event.loss for event in events if isinstance(event, Stepped)]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Models this small are slower on several threads; and no power cut is survived here."""
    monkeypatch.setattr(os, "fsync", lambda _: None)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def parent() -> Run:
    run = RunStore().create(CONFIG.with_fields(data={"corpus": "builtin"}), name="the parent")
    assert isinstance(worked(run)[-1], Ended)
    return run


def weights(run: Run) -> dict[str, torch.Tensor]:
    assert run.initial_weights is not None
    return load_model(run.initial_weights).state_dict()


def test_a_fork_begins_with_its_parents_weights_and_a_fresh_optimiser(parent: Run) -> None:
    config = CONFIG.with_fields(optim={"learning_rate": 1e-5}, train={"max_steps": 1})
    child = fork(RunStore(), parent, "step-3", config)
    kept = parent.checkpoint("step-3")
    assert all(torch.equal(value, weights(child)[name]) for name, value in load_model(kept.path).state_dict().items())
    (first,) = [event for event in worked(child) if isinstance(event, Evaluated)]
    before = parent.log().evaluations[-1]
    assert first.val_loss == pytest.approx(before.val_loss, abs=0.01)  # one tiny step from there, not from 10.8
    assert first.step == 0
    states = read_resume(child.checkpoint("last").path)["optimizer"].values()
    assert {float(state["step"]) for state in states} == {1.0}


def test_a_fork_says_where_it_comes_from(parent: Run) -> None:
    child = fork(RunStore(), parent, "best", CONFIG, name="again")
    best = parent.checkpoint("best")
    assert parent_of(child) == Parent(parent.id, "the parent", "best", best.step, epoch=1)
    assert child.about.parent == f"{parent.id}:best"
    assert child.name == "again"
    assert parent_of(child).told() == f"best, after {best.step} steps, in epoch 1"  # type: ignore[union-attr]
    assert parent_of(parent) is None


def test_a_deleted_parent_breaks_nothing(parent: Run) -> None:
    child = fork(RunStore(), parent, "last", CONFIG)
    RunStore().delete(parent.id)
    assert isinstance(worked(child)[-1], Ended)
    assert child.status() == "finished"
    assert parent_of(child).name == "the parent"  # type: ignore[union-attr]


def test_a_new_best_of_the_parent_leaves_the_fork_as_it_is(parent: Run) -> None:
    child = fork(RunStore(), parent, "best", CONFIG)
    before = weights(child)
    torch.manual_seed(0)
    from gptlab.checkpoint import save_best
    from gptlab.model import GPTModel

    save_best(parent.path / "checkpoints", GPTModel(CONFIG.model), 99)
    assert all(torch.equal(value, weights(child)[name]) for name, value in before.items())


def test_a_fork_killed_before_its_first_checkpoint_begins_with_these_weights_again(parent: Run) -> None:
    child = fork(RunStore(), parent, "best", CONFIG)
    unbroken = fork(RunStore(), parent, "best", CONFIG)
    events = worker.facts(child, lambda: None)
    for event in events:
        child.append(event)
        if isinstance(event, Stepped) and event.step == 1:
            break
    events.close()  # type: ignore[attr-defined]
    again = worked(child)
    assert [event.step for event in again if isinstance(event, Resumed)] == [0]
    assert losses(again) == losses(worked(unbroken))


def test_a_stopped_fork_goes_on_from_its_own_checkpoint(parent: Run) -> None:
    child, unbroken = (fork(RunStore(), parent, "best", CONFIG) for _ in range(2))
    first = worked(child, {2: "stop"})
    second = worked(child)
    assert [event.step for event in second if isinstance(event, Resumed)] == [2]
    assert losses(first) + losses(second) == losses(worked(unbroken))


def test_a_fork_of_a_fork_names_the_fork(parent: Run) -> None:
    child = fork(RunStore(), parent, "best", CONFIG, name="child")
    worked(child)
    RunStore().delete(parent.id)
    grandchild = fork(RunStore(), child, "last", CONFIG)
    assert parent_of(grandchild).name == "child"  # type: ignore[union-attr]
    assert isinstance(worked(grandchild)[-1], Ended)


def test_a_run_that_still_trains_can_be_forked(parent: Run) -> None:
    with hold(parent):
        child = fork(RunStore(), parent, "best", CONFIG)
    assert child.initial_weights is not None


def test_another_model_is_refused_and_more_dropout_is_not(parent: Run) -> None:
    with pytest.raises(ValueError, match="n_layers 2 instead of 1"):
        fork(RunStore(), parent, "best", CONFIG.with_fields(model={"n_layers": 2}))
    child = fork(RunStore(), parent, "best", CONFIG.with_fields(model={"drop_rate": 0.3}))
    assert child.config.model.drop_rate == 0.3
    started = next(event for event in worked(child) if isinstance(event, Started))
    assert started.total_steps == 3


def test_a_fork_may_read_another_text(parent: Run, tmp_path: Path) -> None:
    other = tmp_path / "other.txt"
    other.write_text("The lamp was not hers, she said, and the river rose. " * 400, encoding="utf-8")
    child = fork(RunStore(), parent, "best", CONFIG.with_fields(data={"corpus": str(other)}))
    assert child.config.data.corpus != parent.config.data.corpus
    assert isinstance(worked(child)[-1], Ended)


def test_a_checkpoint_that_is_gone_leaves_no_half_made_run(parent: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="no checkpoint 'step-77'"):
        fork(RunStore(), parent, "step-77", CONFIG)
    shutil.rmtree(parent.path / "checkpoints" / "best")
    with pytest.raises(ValueError, match="no checkpoint 'best'"):
        fork(RunStore(), parent, "best", CONFIG)

    def vanished(*_: object) -> None:
        raise FileNotFoundError

    monkeypatch.setattr(fork_module, "_link_or_copy", vanished)
    with pytest.raises(ValueError, match="try again"):
        fork(RunStore(), parent, "last", CONFIG)
    assert [run.id for run in RunStore().list()] == [parent.id]


def test_where_the_disk_knows_no_links_the_weights_are_copied(parent: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refused)
    child = fork(RunStore(), parent, "best", CONFIG)
    assert child.initial_weights is not None
    assert child.initial_weights.read_bytes() == parent.checkpoint("best").weights.read_bytes()


def test_a_checkpoint_is_found_as_people_write_it(parent: Run) -> None:
    store = RunStore()
    assert find_checkpoint(store, "last")[1] == "best"
    assert find_checkpoint(store, f"{parent.id}:step-3")[1] == "step-3"
    assert find_checkpoint(store, "the parent:last")[0].id == parent.id
    parent.rename("12:30")
    assert find_checkpoint(store, "12:30")[0].id == parent.id
    with pytest.raises(ValueError, match="There is no run"):
        find_checkpoint(store, "nobody")


def test_torn_words_about_the_parent_are_no_parent(parent: Run) -> None:
    child = fork(RunStore(), parent, "best", CONFIG)
    for written in ("", "[]", '{"run": "x"}', "\xff"):
        (child.path / "initial" / "parent.json").write_text(written, encoding="latin-1")
        assert parent_of(child) is None


def test_a_configuration_of_the_fork_is_checked_as_every_other(parent: Run) -> None:
    config: RunConfig = CONFIG.with_fields(data={"train_ratio": 0.0001})
    with pytest.raises(ValueError, match="training part"):
        fork(RunStore(), parent, "best", config)
