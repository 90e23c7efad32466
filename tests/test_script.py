"""The Python that does what a run did, really run."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from gptlab.events import Started
from gptlab.launcher import take_lock
from gptlab.preflight import prepare
from gptlab.runs import RunStore
from gptlab.script import script_of, script_of_run
from gptlab.worker import work
from tests.test_launcher import small

ROOT = Path(__file__).resolve().parent.parent


def run_script(script: str, folder: Path) -> str:
    path = folder / "again.py"
    path.write_text(script, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, str(path)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_script_of_a_run_gives_its_losses_to_the_last_digit(home: Path, tmp_path: Path) -> None:
    config = small(num_epochs=1, max_steps=6, eval_freq=2).with_fields(
        model={"drop_rate": 0.2}, optim={"schedule": "cosine", "warmup_steps": 2, "betas": (0.9, 0.95)}
    )
    run = prepare(RunStore(), config, name='the "first" \\ one')
    for _ in work(run, take_lock(run)):
        pass
    log = run.log()
    told = run_script(script_of_run(run).replace(":.4f", "!r"), tmp_path)
    losses = re.findall(r"step (\d+): train (\S+), validation (\S+)", told)
    assert [(int(step), float(a), float(b)) for step, a, b in losses] == [
        (row.step, row.train_loss, row.val_loss) for row in log.evaluations
    ]
    assert repr(log.samples[-1].text) in told
    assert len(losses) == 3


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_script_of_a_run_names_the_precision_that_was_automatic(home: Path, precision: str) -> None:
    run = RunStore().create(small(num_epochs=1))
    assert '"precision"' not in script_of_run(run)
    run.append(Started(device="cpu", n_parameters=1, total_steps=6, threads=1, precision=precision))
    assert f"\"precision\": '{precision}'" in script_of_run(run)


def test_it_names_only_what_differs_from_the_defaults() -> None:
    script = script_of(small())
    assert '"emb_dim": 16' in script
    assert "vocab_size" not in script
    assert "learning_rate" not in script


@pytest.mark.parametrize("title", ['"""\nimport os\n"""', "\\", 'a"', "x\x00y", ""])
def test_no_name_can_become_code(title: str) -> None:
    tree = ast.parse(script_of(small(), title=title, forked_from=title))
    assert [type(node) for node in tree.body[1:4]] == [ast.ImportFrom, ast.ImportFrom, ast.Assign]
    assert len(tree.body) == 7


def test_a_fork_says_that_it_began_elsewhere() -> None:
    assert "That run began with the weights of mother" in script_of(small(), forked_from="mother")
