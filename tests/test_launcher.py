"""The launcher and the worker it starts: real processes, killed, resumed, asked to stop."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gptlab import launcher
from gptlab.config import RunConfig
from gptlab.events import Phase
from gptlab.preflight import prepare
from gptlab.runs import Run, RunStore

PATIENCE = 90.0  # seconds for something that usually takes one


def small(**train: object) -> RunConfig:
    return RunConfig.model_validate(
        {
            "model": {"n_layers": 1, "emb_dim": 16, "n_heads": 2, "context_length": 16},
            "data": {"batch_size": 16, "stride": 32},
            "train": {"num_epochs": 3, "sample_tokens": 4, "device": "cpu", **train},
        }
    )


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.fixture
def store(home: Path) -> Iterator[RunStore]:
    store = RunStore(home / "runs")
    yield store
    for run in store.list():
        launcher.force_stop(run, grace=0.1)


def wait_for(condition: Callable[[], object], run: Run) -> None:
    give_up = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < give_up, f"{run.status()}\n{launcher.log_tail(run)}"
        time.sleep(0.02)


def losses(run: Run) -> list[float]:
    return [row.loss for row in run.log().steps]


def uninterrupted(store: RunStore, config: RunConfig) -> list[float]:
    run = prepare(store, config)
    launcher.start(run)
    wait_for(lambda: not run.is_locked(), run)
    assert run.status() == "finished", launcher.log_tail(run)
    return losses(run)


def test_a_run_is_running_from_the_start_on_and_two_starts_make_one_worker(store: RunStore) -> None:
    run = prepare(store, small(max_steps=4))
    outcomes: list[str] = []

    def press_start() -> None:
        try:
            launcher.start(run)
            outcomes.append("started")
        except launcher.AlreadyRunning:
            outcomes.append("refused")

    presses = [threading.Thread(target=press_start) for _ in range(2)]
    for press in presses:
        press.start()
    for press in presses:
        press.join()
    assert sorted(outcomes) == ["refused", "started"]
    assert run.status() in ("running", "finished")
    wait_for(lambda: not run.is_locked(), run)
    assert run.status() == "finished", launcher.log_tail(run)
    assert [row.step for row in run.log().steps] == [0, 1, 2, 3]


def test_a_killed_run_is_interrupted_at_once_and_resumes_with_the_same_losses(store: RunStore) -> None:
    config = small()
    expected = uninterrupted(store, config)
    run = prepare(store, config)
    launcher.start(run)
    per_epoch = len(expected) // 3
    wait_for(lambda: run.log().steps_completed > per_epoch + 2, run)
    pid = run.worker_pid()
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not run.is_locked(), run)
    assert run.status() == "interrupted"
    with open(run.events_path, "ab") as file:
        file.write(b'{"event": "stepped", "st')  # what a death in mid-line leaves
    launcher.resume(run)
    wait_for(lambda: not run.is_locked(), run)
    assert run.status() == "finished", launcher.log_tail(run)
    assert losses(run) == expected
    assert [row.step for row in run.log().steps] == list(range(len(expected)))
    assert run.log().resumed[0].step % per_epoch == 0
    with pytest.raises(ValueError, match="is finished"):
        launcher.resume(run)


def test_a_run_killed_before_its_first_checkpoint_begins_again(store: RunStore) -> None:
    config = small(num_epochs=1)
    expected = uninterrupted(store, config)
    run = prepare(store, config)
    launcher.start(run)
    wait_for(lambda: run.log().steps_completed >= 1, run)
    pid = run.worker_pid()
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not run.is_locked(), run)
    launcher.resume(run)
    wait_for(lambda: not run.is_locked(), run)
    assert losses(run) == expected
    assert [row.epoch for row in run.log().samples] == [0, 1]


def test_pause_step_save_and_stop_are_honoured_between_steps(store: RunStore) -> None:
    config = small(num_epochs=30)
    run = prepare(store, config)
    launcher.start(run)
    wait_for(lambda: run.log().steps_completed >= 2, run)
    run.request("pause")
    wait_for(lambda: run.status() == "paused", run)
    completed = run.log().steps_completed
    run.request("step")
    wait_for(lambda: run.log().steps_completed == completed + 1 and run.status() == "paused", run)
    time.sleep(0.5)
    assert run.log().steps_completed == completed + 1
    run.request("save")
    wait_for(lambda: any(saved.reason == "requested" for saved in run.log().saved), run)
    assert run.checkpoint("last").step == completed + 1
    assert run.checkpoint("last").resumable
    run.request("resume")
    wait_for(lambda: run.log().steps_completed > completed + 3, run)
    run.request("stop")
    wait_for(lambda: not run.is_locked(), run)
    assert run.status() == "stopped"
    assert run.checkpoint("last").step == run.log().steps_completed
    assert run.log().ended is not None
    assert run.checkpoint("last").name in run.log().ended.message


def test_stop_works_while_paused_and_discard_deletes_the_checkpoints(store: RunStore) -> None:
    run = prepare(store, small(num_epochs=30))
    launcher.start(run)
    wait_for(run.checkpoints, run)
    run.request("pause")
    wait_for(lambda: run.status() == "paused", run)
    run.request("discard")
    wait_for(lambda: not run.is_locked(), run)
    assert run.status() == "discarded"
    assert run.checkpoints() == []
    assert run.log().steps
    with pytest.raises(ValueError, match="discarded"):
        launcher.resume(run)


def test_sigterm_saves_before_the_worker_goes(store: RunStore) -> None:
    run = prepare(store, small(num_epochs=30))
    launcher.start(run)
    wait_for(lambda: run.log().steps_completed >= 2, run)
    pid = run.worker_pid()
    assert pid is not None
    os.kill(pid, signal.SIGTERM)
    wait_for(lambda: not run.is_locked(), run)
    assert run.status() == "stopped"
    assert run.checkpoint("last").step == run.log().steps_completed


def test_a_worker_that_does_not_answer_is_ended_by_force(store: RunStore) -> None:
    run = prepare(store, small(num_epochs=30))
    launcher.start(run)
    wait_for(lambda: run.log().steps_completed >= 1, run)
    pid = run.worker_pid()
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    assert launcher.force_stop(run, grace=0.2)
    assert run.status() == "interrupted"


def test_a_text_that_vanished_ends_the_run_as_failed_with_a_sentence(store: RunStore, home: Path) -> None:
    run = prepare(store, small(max_steps=2))
    for path in (home / "corpora").rglob("*"):
        if path.is_file():
            path.unlink()
    launcher.start(run)
    wait_for(lambda: not run.is_locked(), run)
    assert run.status() == "failed"
    assert run.log().ended is not None
    assert run.config.data.sources[0].removeprefix("sha256:")[:8] in run.log().ended.message


def test_the_original_text_may_vanish_once_a_run_has_it(store: RunStore, tmp_path: Path) -> None:
    path = tmp_path / "mine.txt"
    path.write_text("One two three four five six seven eight nine ten. " * 200, encoding="utf-8")
    run = prepare(store, small(max_steps=2).with_fields(data={"corpus": str(path)}))
    path.unlink()
    launcher.start(run)
    wait_for(lambda: not run.is_locked(), run)
    assert run.status() == "finished", launcher.log_tail(run)


def test_a_worker_gets_its_settings_but_never_against_the_user() -> None:
    assert launcher.needs_settings({}) == (os.uname().sysname == "Linux")
    environment = launcher.worker_environment({"MALLOC_TOP_PAD_": "1", "PATH": "/bin"})
    assert environment["MALLOC_TOP_PAD_"] == "1"
    assert environment["GOMP_SPINCOUNT"] == "1000"
    assert environment["MALLOC_TRIM_THRESHOLD_"] == launcher.SETTINGS["MALLOC_TRIM_THRESHOLD_"]
    assert not launcher.needs_settings(environment)


@pytest.mark.parametrize(
    ("own", "told"),
    [
        ({}, {"GOMP_SPINCOUNT": "1000", "KMP_BLOCKTIME": "0"}),
        ({"OMP_WAIT_POLICY": "PASSIVE"}, {"OMP_WAIT_POLICY": "PASSIVE"}),
        ({"GOMP_SPINCOUNT": "7"}, {"GOMP_SPINCOUNT": "7", "KMP_BLOCKTIME": "0"}),
    ],
)
def test_threads_wait_as_the_user_said(own: dict[str, str], told: dict[str, str]) -> None:
    environment = launcher.worker_environment(own)
    names = {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"}
    assert {k: v for k, v in environment.items() if k in names} == told
    assert not launcher.needs_settings(environment)


def test_an_old_wish_does_not_stop_a_new_worker(store: RunStore) -> None:
    run = prepare(store, small(max_steps=2))
    run.request("stop")
    launcher.start(run)
    wait_for(lambda: not run.is_locked(), run)
    assert run.status() == "finished"


def test_loading_is_the_first_thing_a_worker_reports(store: RunStore) -> None:
    run = prepare(store, small(max_steps=1))
    launcher.start(run)
    wait_for(lambda: not run.is_locked(), run)
    first = run.events()[0]
    assert isinstance(first, Phase)
    assert first.phase == "loading"
