"""What a run is called where one chooses among several."""

from __future__ import annotations

from pathlib import Path

from gptlab.config import PRESETS
from gptlab.events import Phase
from gptlab.runs import RunStore
from pages.shared.run_picker import run_label
from tests.fake_run import hold


def test_a_label_tells_a_paused_run_from_one_that_trains(home: Path) -> None:
    run = RunStore().create(PRESETS["tiny"], name="mine")
    assert run_label(run).startswith("mine · ")
    with hold(run):
        run.append(Phase(phase="training"))
        assert run_label(run).endswith("training now")
        run.append(Phase(phase="paused"))
        assert run_label(run).endswith("paused")
    assert "paused" not in run_label(run)
