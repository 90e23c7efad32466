"""Before a run: what forbids a start, and what a run keeps of its text."""

from __future__ import annotations

from pathlib import Path

import pytest

from gptlab import preflight
from gptlab.config import PRESETS, RunConfig
from gptlab.corpus import open_corpus
from gptlab.runs import RunStore


@pytest.fixture
def store(home: Path) -> RunStore:
    return RunStore(home / "runs")


def faults(config: RunConfig, store: RunStore) -> str:
    with pytest.raises(ValueError) as refusal:
        preflight.prepare(store, config)
    assert store.list() == []
    return str(refusal.value)


def test_a_run_refers_to_its_text_by_hash(store: RunStore) -> None:
    run = preflight.prepare(store, PRESETS["tiny"], name="mine")
    reference = open_corpus("builtin").reference
    assert run.config == PRESETS["tiny"].with_fields(data={"corpus": reference})
    assert open_corpus(run.config.data.corpus).text == open_corpus("builtin").text


def test_all_faults_are_told_at_once_and_no_run_is_made(store: RunStore) -> None:
    config = PRESETS["tiny"].with_fields(model={"context_length": 8192, "vocab_size": 100}, train={"device": "cuda:99"})
    told = faults(config, store)
    assert "context_length 8,192" in told
    assert "vocab_size 100" in told
    assert "cuda:99" in told


def test_too_little_disk_is_refused_with_both_figures(store: RunStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "free_bytes", lambda _path: 5_000_000_000)
    told = faults(RunConfig(), store)
    assert "5.00 GB are free" in told
    assert "keep_checkpoints" in told
    kept = RunConfig().with_fields(train={"keep_checkpoints": 1})
    assert preflight.check(kept, store).faults == ()


def test_few_validation_windows_warn_but_allow(store: RunStore) -> None:
    checked = preflight.check(PRESETS["gpt2-124m"], store)
    assert checked.faults == ()
    assert checked.lengths.val_windows == 2
    assert any("2" in warning for warning in checked.warnings)


def test_the_reference_exercise_is_described_with_its_figures(verdict: str, tmp_path: Path) -> None:
    path = tmp_path / "the-verdict.txt"
    path.write_text(verdict, encoding="utf-8")
    facts = preflight.describe(PRESETS["gpt2-124m"].with_fields(data={"corpus": str(path)}))
    assert (facts["characters"], facts["bytes"], facts["tokens"]) == (20479, 20479, 5145)
    assert (facts["train_tokens"], facts["val_tokens"]) == (4612, 534)
    assert (facts["train_batches"], facts["val_batches"]) == (9, 1)


@pytest.mark.parametrize(("native", "warned"), [(True, False), (False, True)])
def test_bf16_where_it_is_slow_warns(
    store: RunStore, monkeypatch: pytest.MonkeyPatch, native: bool, warned: bool
) -> None:
    monkeypatch.setattr(preflight, "multiplies_bf16", lambda _device: native)
    checked = preflight.check(PRESETS["tiny"].with_fields(train={"precision": "bf16"}), store)
    assert any("no instructions for bf16" in warning for warning in checked.warnings) == warned
