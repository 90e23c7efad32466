"""The command line as people type it: every command in a process of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gptlab.__main__ import _run_row
from gptlab.config import RunConfig
from gptlab.events import Stepped
from gptlab.runs import Run, RunStore

ROOT = Path(__file__).resolve().parent.parent
MINUTE = 60.0
SMALL = [
    "--set=model.n_layers=1",
    "--set=model.emb_dim=16",
    "--set=model.n_heads=2",
    "--set=model.context_length=16",
    "--set=data.batch_size=64",
    "--set=train.sample_tokens=4",
    "--device=cpu",
]
Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def gptlab(home: Path) -> Command:
    environment = {**os.environ, "GPTLAB_HOME": str(home), "GPTLAB_CORPORA": "", "OMP_NUM_THREADS": "1"}

    def command(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "gptlab", *arguments],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            timeout=3 * MINUTE,
            **options,
        )

    return command


def events_of(result: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_train_resume_sample_and_runs_work_together(gptlab: Command, home: Path) -> None:
    trained = gptlab("train", *SMALL, "--set=train.num_epochs=2", "--name=one", "--seed=7", "--json")
    assert trained.returncode == 0, trained.stderr
    events = events_of(trained)
    assert all({"event", "time", "step"} <= set(event) for event in events)
    by_kind = {kind: [e for e in events if e["event"] == kind] for kind in {e["event"] for e in events}}
    total = by_kind["started"][0]["total_steps"]
    assert [e["step"] for e in by_kind["stepped"]] == list(range(total))
    assert [e["step"] for e in by_kind["evaluated"]] == list(range(0, total, 5))
    assert [e["epoch"] for e in by_kind["sampled"]] == [0, 1, 2]
    assert events[-1]["event"] == "ended"
    assert events[-1]["reason"] == "finished"

    listed = json.loads(gptlab("runs", "--json").stdout)
    assert [set(row) for row in listed] == [{"run", "name", "status", "created", "step", "best_val_loss"}]
    assert (listed[0]["name"], listed[0]["status"], listed[0]["step"]) == ("one", "finished", total)
    assert listed[0]["best_val_loss"] == min(e["val_loss"] for e in by_kind["evaluated"])

    run = listed[0]["run"]
    assert RunStore(home / "runs").get(run).config.train.seed == 7
    sampled = gptlab("sample", run, "--prompt", "The river", "--max-new-tokens", "5", "--checkpoint", "best")
    assert sampled.returncode == 0, sampled.stderr
    assert sampled.stdout.startswith("The river")
    warm = ["--temperature=1.5", "--top-k=40", "--top-p=0.9", "--seed=3", "--max-new-tokens=8", "--prompt=The river"]
    first, second = (gptlab("sample", run, *warm).stdout for _ in range(2))
    assert first == second

    again = gptlab("resume", run)
    assert again.returncode == 2
    assert "is finished: start a new run" in again.stderr
    missing = gptlab("sample", run, "--prompt", "x", "--checkpoint", "step-4711")
    assert missing.returncode == 2
    assert "no checkpoint 'step-4711'" in missing.stderr


def test_a_run_shows_progress_and_its_samples(gptlab: Command) -> None:
    shown = gptlab("train", *SMALL, "--set=train.max_steps=3", "--set=train.num_epochs=1")
    assert shown.returncode == 0, shown.stderr
    assert "epoch 0: Every effort moves you" in shown.stdout
    assert "finished" in shown.stdout
    assert "3/3" in shown.stderr
    assert "val=" in shown.stderr


def test_ctrl_c_saves_and_says_how_to_resume_and_the_losses_go_on_the_same(gptlab: Command, home: Path) -> None:
    arguments = [*SMALL, "--set=train.num_epochs=3", "--set=train.eval_freq=2", "--json"]
    whole = events_of(gptlab("train", *arguments))
    expected = [event["loss"] for event in whole if event["event"] == "stepped"]

    process = subprocess.Popen(
        [sys.executable, "-m", "gptlab", "train", *arguments, "--runs", str(home / "other")],
        cwd=ROOT,
        env={**os.environ, "GPTLAB_HOME": str(home), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    steps = 0
    for line in process.stdout:
        steps += json.loads(line)["event"] == "stepped"
        if steps == 4:
            process.send_signal(signal.SIGINT)
            break
    rest, stderr = process.communicate(timeout=MINUTE)
    assert json.loads(rest.splitlines()[-1])["reason"] == "stopped"
    assert process.returncode == 0
    run = RunStore(home / "other").list()[0]
    assert f"python -m gptlab resume {run.id} --runs" in stderr
    stopped_at = run.log().steps_completed
    assert 4 <= stopped_at < len(expected)

    resumed = gptlab("resume", run.id, "--runs", str(home / "other"), "--json")
    assert resumed.returncode == 0, resumed.stderr
    assert [row.loss for row in run.log().steps] == expected
    assert [row.step for row in run.log().resumed] == [stopped_at]


def test_the_corpus_command_tells_the_figures_of_the_exercise(gptlab: Command, tmp_path: Path, verdict: str) -> None:
    path = tmp_path / "the-verdict.txt"
    path.write_text(verdict, encoding="utf-8")
    facts = json.loads(gptlab("corpus", str(path), "--json").stdout)
    assert (facts["characters"], facts["tokens"]) == (20479, 5145)
    assert (facts["train_batches"], facts["val_batches"], facts["batch_shape"]) == (9, 1, [2, 256])
    assert facts["sha256"] == "b41e41a68f0398a3154ae69e2e4c0e2694e17fe0d66730536837f1b01935b31f"
    by_name = json.loads(gptlab("corpus", "the-verdict", "--json").stdout)  # known by its hash now: no network needed
    assert by_name["sha256"] == facts["sha256"]
    shown = gptlab("corpus", str(path), "--preset=tiny").stdout
    assert "20,479" in shown
    assert "[4, 64]" in shown or "4; 64" in shown


def test_several_files_are_joined_in_the_order_given(gptlab: Command, tmp_path: Path) -> None:
    for name in ("b", "a"):
        (tmp_path / f"{name}.txt").write_text(f"{name} " * 2000, encoding="utf-8")
    facts = json.loads(gptlab("corpus", str(tmp_path / "b.txt"), str(tmp_path / "a.txt"), "--json").stdout)
    assert facts["parts"] == ["b.txt", "a.txt"]
    assert facts["characters"] == 8000 + len("<|endoftext|>")


def test_presets_are_listed(gptlab: Command) -> None:
    assert "gpt2-124m" in gptlab("presets").stdout
    assert json.loads(gptlab("presets", "--json").stdout)["tiny"]["data"]["corpus"] == "builtin"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train", "--preset=huge"], "no preset 'huge': use one of tiny"),
        (["train", "--set=model.n_layers=0"], "model.n_layers is 0: it must be at least 1"),
        (["train", "--set=nonsense"], "not of the form section.field=value"),
        (["train", "--device=tpu"], "no device 'tpu'"),
        (["train", "--device=cuda:77"], "cuda:77"),
        (["train", "--corpus=nowhere.txt"], "nowhere.txt"),
        (["train", "--set=model.context_length=9000"], "context_length 9,000"),
        (["train", "--name=" + "x" * 300], "300 characters"),
        (["resume", "nothing"], "no run 'nothing'"),
        (["sample", "last", "--prompt=x"], "no run 'last'"),
        (["corpus", "nowhere.txt"], "nowhere.txt"),
    ],
    ids=lambda value: value[-1][:30] if isinstance(value, list) else "",
)
def test_a_faulty_request_is_a_sentence_and_leaves_no_run(
    gptlab: Command, home: Path, arguments: list[str], words: str
) -> None:
    result = gptlab(*arguments)
    assert result.returncode == 2
    assert words in result.stderr
    assert "Traceback" not in result.stderr
    assert RunStore(home / "runs").list() == []


def test_train_from_a_run_begins_with_its_weights(gptlab: Command, home: Path) -> None:
    assert (
        gptlab(
            "train",
            *SMALL,
            "--set=data.batch_size=2",
            "--set=train.max_steps=2",
            "--set=train.eval_freq=1",
            "--name=one",
        ).returncode
        == 0
    )
    forked = gptlab("train", "--from", "one:best", "--set=optim.learning_rate=1e-5", "--name=two")
    assert forked.returncode == 0, forked.stderr
    assert "Begins with the weights of one, best, after" in forked.stdout
    two = RunStore(home / "runs").get("two")
    assert (two.config.model.n_layers, two.config.train.max_steps) == (1, 2)  # as the parent's
    one = RunStore(home / "runs").get("one")
    assert two.log().evaluations[0].val_loss == pytest.approx(one.log().evaluations[-1].val_loss, abs=0.02)
    refused = gptlab("train", "--from", "one", "--set=model.n_layers=2")
    assert (refused.returncode, "n_layers 2 instead of 1" in refused.stderr) == (2, True)


def test_a_run_that_goes_on_while_it_is_listed_is_as_new_as_its_status(monkeypatch: pytest.MonkeyPatch) -> None:
    run = RunStore().create(RunConfig())

    def goes_on(run: Run) -> str:
        run.append(Stepped(step=0, epoch=1, tokens_seen=1, loss=7.5))
        return "finished"

    monkeypatch.setattr(Run, "status", goes_on)
    row = _run_row(run)
    assert (row["status"], row["step"]) == ("finished", 1)
