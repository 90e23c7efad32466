"""Runs on disk: creation, status, requests, checkpoints, damage, deletion."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gptlab.config import PRESETS
from gptlab.events import Ended, Phase, Resumed, Saved, Stepped
from gptlab.launcher import AlreadyRunning, check_resumable, take_lock
from gptlab.runs import Run, RunStore


@pytest.fixture
def store(tmp_path: Path) -> RunStore:
    return RunStore(tmp_path / "runs")


@pytest.fixture
def run(store: RunStore) -> Run:
    return store.create(PRESETS["tiny"], name="first")


@contextmanager
def locked(run: Run) -> Iterator[None]:
    lock = take_lock(run)
    try:
        yield
    finally:
        os.close(lock)


def fake_checkpoint(run: Run, name: str, resumable: bool = False) -> Path:
    folder = run.path / "checkpoints" / name
    folder.mkdir(parents=True)
    (folder / "weights.safetensors").write_bytes(b"12345")
    if resumable:
        (folder / "resume.pt").write_bytes(b"678")
    return folder


def test_a_store_uses_the_data_folder_and_writes_nothing_before_it_must(home: Path) -> None:
    assert RunStore().list() == []
    assert not home.exists()
    RunStore().create(PRESETS["tiny"])
    assert len(list((home / "runs").iterdir())) == 1


def test_a_run_reads_back_as_it_was_made(store: RunStore) -> None:
    run = store.create(PRESETS["small"], name="my run", tags=["a"], notes="b", parent="p")
    again = store.get(run.id)
    assert again.config == PRESETS["small"]
    assert (again.about.name, again.about.tags, again.about.notes, again.about.parent) == ("my run", ("a",), "b", "p")


def test_runs_are_listed_newest_first(store: RunStore) -> None:
    made = [store.create(PRESETS["tiny"]).id for _ in range(4)]
    assert [run.id for run in store.list()] == made[::-1]


def test_a_run_is_found_by_id_beginning_name_or_last(store: RunStore, run: Run) -> None:
    second = store.create(PRESETS["tiny"], name="second")
    assert store.get(run.id).id == run.id
    assert store.get("first").id == run.id
    assert store.get("last").id == second.id
    assert store.get(second.id[:-1]).id == second.id
    with pytest.raises(ValueError, match="names 2 runs"):
        store.get(run.id[:8])
    with pytest.raises(ValueError, match="no run 'third'"):
        store.get("third")


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "a/b", "<script>alert(1)</script>", "日本語 🙂", "  spaced   out "]
)
def test_a_name_is_text_and_never_a_path(store: RunStore, name: str) -> None:
    run = store.create(PRESETS["tiny"], name=name)
    assert run.path.parent == store.root
    assert run.about.name == " ".join(name.split())
    assert sorted(path.name for path in store.root.iterdir()) == [run.id]


@pytest.mark.parametrize(("name", "words"), [("x" * 300, "300 characters"), ("a\x00b", "cannot be shown")])
def test_an_impossible_name_is_refused_and_nothing_is_made(store: RunStore, name: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        store.create(PRESETS["tiny"], name=name)
    assert store.list() == []


def test_renaming_changes_neither_the_id_nor_the_configuration(run: Run) -> None:
    before = (run.path / "config.json").read_bytes()
    run.rename("better")
    assert Run(run.path).name == "better"
    assert (run.path / "config.json").read_bytes() == before
    with pytest.raises(ValueError, match="300 characters"):
        run.rename("y" * 300)
    assert run.name == "better"


def test_status_follows_lock_and_log(run: Run) -> None:
    assert run.status() == "interrupted"
    with locked(run):
        assert run.status() == "running"
        run.append(Phase(phase="paused"))
        assert run.status() == "paused"
        run.append(Phase(phase="training"))
        assert run.status() == "running"
    assert run.status() == "interrupted"
    run.append(Ended(reason="stopped"))
    assert run.status() == "stopped"
    run.append(Resumed(step=1))
    assert run.status() == "interrupted"
    run.append(Ended(reason="finished"))
    assert run.status() == "finished"


def test_two_workers_never_hold_one_run(run: Run) -> None:
    with locked(run), pytest.raises(AlreadyRunning, match="training already"):
        take_lock(run, patience=0.1)


def test_a_reader_that_probes_does_not_stop_a_launcher(run: Run) -> None:
    (run.path / "worker.lock").touch()
    probe = os.open(run.path / "worker.lock", os.O_RDONLY)
    fcntl.flock(probe, fcntl.LOCK_SH)
    with pytest.raises(AlreadyRunning):
        take_lock(run, patience=0.05)
    os.close(probe)
    os.close(take_lock(run, patience=0.05))


def test_a_request_is_pending_until_it_is_taken_and_the_newest_counts(run: Run) -> None:
    assert run.take_request() is None
    run.request("pause")
    run.request("stop")
    assert run.pending_request() == "stop"
    assert run.take_request() == "stop"
    assert run.pending_request() is None
    assert run.take_request() is None


def test_an_unknown_or_damaged_request_is_no_request(run: Run) -> None:
    with pytest.raises(ValueError, match="no request 'dance'"):
        run.request("dance")  # type: ignore[arg-type]
    (run.path / "request.json").write_text("{")
    assert run.pending_request() is None
    assert run.take_request() is None


def test_appending_after_a_torn_line_keeps_the_new_event(run: Run) -> None:
    run.append(Stepped(step=0, epoch=1, tokens_seen=1))
    with open(run.events_path, "ab") as file:
        file.write(b'{"event": "stepp')
    run.append(Resumed(step=1))
    assert [type(event) for event in run.events()] == [Stepped, Resumed]


def test_checkpoints_are_listed_by_steps_completed(run: Run) -> None:
    fake_checkpoint(run, "step-000090", resumable=True)
    fake_checkpoint(run, "step-000009")
    fake_checkpoint(run, "best")
    (run.path / "checkpoints" / ".step-000099.tmp").mkdir()
    run.append(Saved(step=50, checkpoint="best", reason="best"))
    kept = run.checkpoints()
    assert [(item.name, item.step, item.bytes, item.resumable) for item in kept] == [
        ("step-000009", 9, 5, False),
        ("step-000090", 90, 8, True),
        ("best", 51, 5, False),
    ]
    assert run.checkpoint("last").name == "step-000090"
    assert run.checkpoint("best").name == "best"
    assert run.checkpoint("step-9").name == run.checkpoint("step-000009").name == "step-000009"
    with pytest.raises(ValueError, match=r"no checkpoint .step-5.*step-000009"):
        run.checkpoint("step-5")


def test_a_run_without_checkpoints_says_so(run: Run) -> None:
    with pytest.raises(ValueError, match="no checkpoint yet"):
        run.checkpoint("last")


@pytest.mark.parametrize("content", [None, b"", b'{"model": {', b"\xff\xfe\x00"])
def test_a_damaged_run_says_so_and_the_others_still_list(store: RunStore, run: Run, content: bytes | None) -> None:
    other = store.create(PRESETS["tiny"])
    config = run.path / "config.json"
    config.unlink() if content is None else config.write_bytes(content)
    assert {item.id for item in store.list()} == {run.id, other.id}
    assert run.status() == "damaged"
    assert "config.json" in (run.config_error or "")
    assert other.config_error is None
    with pytest.raises(ValueError, match=r"config\.json"):
        check_resumable(run)


@pytest.mark.parametrize("content", ["", "[]", '{"name": 3, "tags": 4}', "{"])
def test_a_damaged_about_file_costs_only_the_name(run: Run, content: str) -> None:
    (run.path / "about.json").write_text(content)
    assert run.config_error is None
    assert run.name in (run.id, "3")


def test_a_live_run_is_never_deleted(store: RunStore, run: Run) -> None:
    with locked(run), pytest.raises(ValueError, match="stop it first"):
        store.delete(run.id)
    assert run.path.exists()
    store.delete(run.id)
    assert store.list() == []
    with pytest.raises(ValueError, match="no run"):
        store.delete(run.id)


def test_deleting_never_leaves_the_store(store: RunStore, run: Run) -> None:
    outside = store.root.parent / "precious"
    outside.mkdir()
    (outside / "config.json").write_text("{}")
    with pytest.raises(ValueError, match="no run"):
        store.delete("../precious")
    assert outside.exists()


def test_only_an_unfinished_run_goes_on(run: Run) -> None:
    check_resumable(run)
    run.append(Ended(reason="finished"))
    with pytest.raises(ValueError, match="is finished: start a new run"):
        check_resumable(run)
    run.append(Resumed(step=1))
    run.append(Ended(reason="discarded"))
    with pytest.raises(ValueError, match="were discarded"):
        check_resumable(run)


def test_about_is_plain_json(run: Run) -> None:
    run.update_about(tags=("x", "y"), notes="n")
    raw = json.loads((run.path / "about.json").read_text())
    assert raw == {"name": "first", "tags": ["x", "y"], "notes": "n", "parent": None}
