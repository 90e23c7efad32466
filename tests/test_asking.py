"""The commands that ask a trained model something, in this process but for one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from gptlab.__main__ import main
from gptlab.checkpoint import save_best, save_checkpoint
from gptlab.config import RunConfig
from gptlab.runs import Run, RunStore
from tests.small_models import small_model

ROOT = Path(__file__).resolve().parent.parent
LONG = "one two three four five six " * 4  # 25 tokens; the model reads 16
DRAWN = ["--prompt=The river", "--max-new-tokens=6", "--temperature=1", "--min-p=0.0001", "--seed=3"]


class Answer(NamedTuple):
    code: int
    out: str
    err: str


Ask = Callable[..., Answer]


@pytest.fixture
def run(home: Path) -> Run:
    model = small_model(vocab_size=50257)
    run = RunStore().create(RunConfig().with_fields(model=model.config.model_dump()), name="one")
    save_checkpoint(run.path / "checkpoints", model, 7)
    save_best(run.path / "checkpoints", small_model(seed=1, vocab_size=50257), 5)
    return run


@pytest.fixture
def ask(run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Ask:
    def ask(command: str, *options: str) -> Answer:
        monkeypatch.setattr(sys, "argv", ["gptlab", command, "one", "--device=cpu", *options])
        code = main()
        return Answer(code, *capsys.readouterr())

    return ask


def test_several_samples_differ_and_the_first_is_the_plain_answer(ask: Ask) -> None:
    texts = [text.strip("\n") for text in ask("sample", *DRAWN, "--samples=3").out.split("--- ")[1:]]
    assert [text[:11] for text in texts] == ["1\nThe river", "2\nThe river", "3\nThe river"]
    assert len({text[2:] for text in texts}) == 3
    assert ask("sample", *DRAWN).out.strip("\n") == texts[0][2:]


def test_the_best_beams_are_shown_with_their_log_probability(ask: Ask) -> None:
    shown = ask("sample", "--prompt=The river", "--max-new-tokens=4", "--beams=3", "--samples=2").out
    assert shown.count("log probability -") == shown.count("The river") == 2
    best = ask("sample", "--prompt=The river", "--max-new-tokens=4", "--beams=3").out
    assert best.strip("\n") in shown


@pytest.mark.parametrize(
    ("command", "options", "told"),
    [
        ("sample", ["--prompt=x", "--max-new-tokens=1000000"], "max_new_tokens is 1000000: it must be at most 100,000"),
        ("sample", ["--prompt=x", "--max-new-tokens=1000000", "--beams=2"], "must be at most 100,000"),
        ("sample", ["--prompt=x", "--samples=0"], "0 samples were asked for: ask for 1 to 64"),
        ("sample", ["--prompt=x", "--samples=1000000"], "1,000,000 samples were asked for: ask for 1 to 64"),
        ("sample", ["--prompt=x", "--min-p=2"], "min_p is 2"),
        ("sample", ["--prompt=x", "--beams=65"], "n_beams is 65: it must be 1 to 64"),
        ("sample", ["--prompt=x", "--beams=2", "--samples=3"], "--samples is 3, and 2 beams give 1 to 2"),
        ("sample", [*DRAWN, "--beams=2"], "no use for --temperature, --min-p, --seed: leave that or --beams out"),
        ("sample", ["--prompt=x", "--checkpoint=step-4"], "no checkpoint 'step-4': use last or one of step-000007"),
        ("explain", ["--text=x", "--checkpoint=step-4"], "no checkpoint 'step-4': use last or one of step-000007"),
        ("explain", ["--text=x", "--top=0"], "--top is 0: it must be 1 to 1,000"),
    ],
    ids=lambda value: " ".join(value)[:60] if isinstance(value, list) else "",
)
def test_an_impossible_request_is_a_sentence_and_prints_nothing_else(
    ask: Ask, command: str, options: list[str], told: str
) -> None:
    answer = ask(command, *options)
    assert (answer.code, answer.out) == (2, "")
    assert told in answer.err


def test_explain_tells_surprise_rank_and_predictions_of_what_the_model_sees(ask: Ask) -> None:
    facts = json.loads(ask("explain", "--text", LONG, "--checkpoint=best", "--top=3", "--json").out)
    assert (facts["checkpoint"], facts["step"]) == ("best", 0)
    assert facts["notes"] == ["There are 25 tokens and the model reads 16 at once: the first 9 were left out."]
    assert len(facts["tokens"]) == 16
    assert facts["tokens"][0]["surprise"] is facts["tokens"][0]["rank"] is None
    assert facts["loss"] == pytest.approx(sum(row["surprise"] for row in facts["tokens"][1:]) / 15)
    assert {len(row["predictions"]) for row in facts["tokens"][1:]} == {len(facts["next"])} == {3}

    shown = ask("explain", "--text", LONG, "--checkpoint=best", "--top=3")
    assert "the first 9 were left out" in shown.err
    assert f"Mean surprise over 15 tokens: {facts['loss']:.3f} nats." in shown.out
    assert len(shown.out.splitlines()) == 2 + 16 + 1 + 1


def test_emoji_combining_marks_and_what_a_terminal_obeys_are_shown_harmlessly(ask: Ask) -> None:
    shown = ask("explain", "--text=x\u0336 👍🏽\x1b[31m\n")
    assert shown.code == 0
    assert r"\xf0" in shown.out
    assert r"'\x1b'" in shown.out
    assert r"'\n'" in shown.out
    assert "\x1b" not in shown.out
    assert "'◌\u0336'" in shown.out


def test_an_empty_text_starts_from_the_end_of_text_and_says_so(ask: Ask) -> None:
    for answer in (ask("explain", "--text="), ask("sample", "--prompt=", "--max-new-tokens=2")):
        assert answer.code == 0
        assert "The text is empty: the model starts from <|endoftext|>." in answer.err
    assert json.loads(ask("explain", "--text=", "--json").out)["loss"] is None


def test_a_long_prompt_is_continued_as_before_and_what_the_model_does_not_see_is_said(ask: Ask) -> None:
    answer = ask("sample", "--prompt", LONG, "--max-new-tokens=2")
    assert answer.out.startswith(LONG)
    assert "the first 9 were left out" in answer.err


def test_damaged_weights_are_a_sentence_that_names_the_others_which_still_open(ask: Ask, run: Run) -> None:
    weights = run.checkpoint("last").weights
    weights.write_bytes(weights.read_bytes()[:1000])
    answer = ask("explain", "--text=x")
    assert (answer.code, answer.out) == (2, "")
    assert answer.err.startswith("The weights step-000007 cannot be read: use one of best. (")
    assert ask("explain", "--text=x", "--checkpoint=best").code == 0


def test_a_checkpoint_that_vanishes_is_a_sentence(ask: Ask, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    there = run.checkpoint("last")
    monkeypatch.setattr(Run, "checkpoint", lambda *_: there)
    there.weights.unlink()
    answer = ask("sample", "--prompt=x")
    assert answer.code == 2
    assert answer.err.startswith("The weights step-000007 cannot be read: use one of best. (There is no checkpoint")


def test_a_sample_streams_token_by_token(run: Run, home: Path) -> None:
    command = [sys.executable, "-m", "gptlab", "sample", "one", "--prompt=x", "--temperature=1", "--device=cpu"]
    streaming = subprocess.Popen(
        [*command, "--max-new-tokens=100000"],
        cwd=ROOT,
        env={**os.environ, "GPTLAB_HOME": str(home), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
    )
    assert streaming.stdout is not None
    try:
        assert len(streaming.stdout.read(200)) == 200
        assert streaming.poll() is None  # they are here long before the 100,000 tokens are written
    finally:
        streaming.kill()
        streaming.communicate()
