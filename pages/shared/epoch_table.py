"""All epochs as a table: the texts and their figures, also for those who cannot see the film."""

from __future__ import annotations

from gptlab.log import RunLog
from gptlab.runs import Run
from pages.shared.copied import Copies
from pages.shared.epoch_samples import continuation, written_ids
from pages.shared.text_table import Kind, text_table
from pages.shared.theatre import Frames, figures_of, prompts_of

COLUMNS: tuple[tuple[str, str], ...] = (
    ("tokens", "Tokens"), ("words", "Words"), ("sure", "Sure"), ("copied", "Copied"), ("longest", "Longest copy"),
    ("distinct-2", "Distinct-2"), ("validation loss", "Validation loss"),
)  # fmt: skip


def epoch_table(run: Run, frames: Frames, log: RunLog, copies: Copies | None, wanted: int | None) -> None:
    """One row for each epoch and prompt; pressing an epoch shows it in the theatre."""
    several = len(prompts_of(log.samples)) > 1
    rows, epochs = [], []
    for epoch, samples in frames.items():
        for sample in samples:
            figures = figures_of(sample, log, copies.of(written_ids(sample)) if copies else None)
            text = continuation(sample) or "(only white space)"
            name = "Before training" if epoch == 0 else f"Epoch {epoch:,}"
            rows.append([name, f"{sample.prompt} ▸ {text}" if several else text, *(figures[key] for key, _ in COLUMNS)])
            epochs.append(epoch)
    numbers: list[tuple[str, Kind]] = [(title, "number") for _, title in COLUMNS]
    text_table(
        [("Epoch", ""), ("What it wrote", "prose"), *numbers],
        rows,
        key="all-epochs",
        label="Samples of all epochs",
        chosen=epochs.index(wanted) if wanted in epochs else len(rows) - 1,
        epochs=epochs,
        run=run.id,
    )
