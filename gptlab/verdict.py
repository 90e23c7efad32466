"""Is a run the reference exercise? Its evaluations beside the published ones, and a verdict in words.

Two right runs do not give the same digits: the two traces in ``published`` differ by up to 31 % in late training loss
and 2 % in validation loss, a third one with another order of batches by a little more. So every figure is held against
the band that the two traces span, widened by what right runs have been seen to need (docs/measurements.md), and never
against one of them. A constant rate without warm-up also makes the loss shoot up for one step between 20 and 25, in
four of five draws that were looked at, the published order among them; and some draws learn more slowly from there on.
So a run may then be behind by some steps, and an evaluation of the weights that the loss shot up with is left out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from gptlab.config import PRESETS, RunConfig
from gptlab.corpus import BY_HASH, THE_VERDICT, THE_VERDICT_SHA256
from gptlab.events import Evaluated
from gptlab.log import RunLog
from gptlab.published import EVALUATIONS, Published

Outcome = Literal["waiting", "matches", "differs"]
EXERCISE = PRESETS["gpt2-124m"]
EARLY = 20  # the last step at which right runs still agree closely in training loss
VAL_TOLERANCE = 0.05  # beyond the band, relative: right runs have needed 0.028
TRAIN_TOLERANCE_EARLY = 0.08  # right runs have needed 0.035
TRAIN_TOLERANCE_LATE = 0.35  # right runs have needed 0.14; the two traces differ by 0.31
SPIKE = 1.5  # a step's loss this many times that of the steps around it
THROWN_BACK = 15  # steps that a run may be behind, after EARLY: right runs have been by 13
SETTLED = 2  # steps after an evaluation, until which a spike cannot be told from a loss that stays high
CLOSE = 0.01  # what the published order on a CPU keeps to, of the CPU trace, until ...
CLOSE_UNTIL = 40

#: Fields that make the exercise (none named: all of the section); the others (device, precision, prompts, ...) may
#: differ and are told as reasons. The stride is apart, because empty means the context length.
ESSENTIAL: dict[str, tuple[str, ...]] = {
    "model": (),
    "optim": (),
    "data": ("train_ratio", "batch_size", "shuffle", "drop_last"),
    "train": ("num_epochs", "eval_freq", "eval_iter"),
}


@dataclass(frozen=True)
class Row:
    """One evaluation beside the published one. ``*_off``: relative to it (+0.03 is 3 % higher)."""

    published: Published
    train: float
    val: float
    train_inside: bool
    val_inside: bool
    on_spike: bool = False  # the loss shot up with the weights that were evaluated

    @property
    def train_off(self) -> float:
        return self.train / self.published.train - 1

    @property
    def val_off(self) -> float:
        return self.val / self.published.val - 1

    @property
    def cpu_off(self) -> float:
        """The larger of both distances from the CPU trace, without sign."""
        return max(abs(self.train / self.published.cpu_train - 1), abs(self.val / self.published.cpu_val - 1))

    @property
    def inside(self) -> bool:
        return self.on_spike or (self.train_inside and self.val_inside)


@dataclass(frozen=True)
class Verdict:
    """``headline`` says it in a sentence; ``reasons`` are what a difference can honestly come from."""

    outcome: Outcome
    headline: str
    reasons: tuple[str, ...]
    rows: tuple[Row, ...]
    remarks: tuple[str, ...] = ()


def departures(config: RunConfig) -> list[str]:
    """Where a configuration is not the reference exercise, each in words; empty for the exercise itself."""
    said = []
    if config.data.corpus not in (THE_VERDICT, BY_HASH + THE_VERDICT_SHA256):
        said.append("another text")
    if config.stride != EXERCISE.stride:
        said.append(f"stride {config.stride} instead of {EXERCISE.stride}")
    for section, names in ESSENTIAL.items():
        ours, theirs = getattr(config, section), getattr(EXERCISE, section)
        for name in names or type(ours).model_fields:
            if getattr(ours, name) != getattr(theirs, name):
                said.append(f"{name} {getattr(ours, name)} instead of {getattr(theirs, name)}")
    return said


def is_exercise(config: RunConfig) -> bool:
    """Whether a configuration is the reference exercise: its model, its text, its optimiser, its length."""
    return not departures(config)


def is_comparable(config: RunConfig) -> bool:
    """Whether a run can stand beside the published log: the exercise, or a change of it on the same text and shape."""
    model = config.model.model_copy(update={"drop_rate": EXERCISE.model.drop_rate})
    on_the_text = config.data.corpus in (THE_VERDICT, BY_HASH + THE_VERDICT_SHA256)
    return on_the_text and model == EXERCISE.model and config.train.eval_freq == EXERCISE.train.eval_freq


def judge(log: RunLog, config: RunConfig) -> Verdict:
    """The verdict on a run, as far as it has come.

    One that was configured otherwise differs whatever its losses: they cannot show everything. Without dropout, say,
    a run stays within the spread of right ones.
    """
    spikes = spikes_in([(row.step, row.loss) for row in log.steps])
    rows = compare(log.evaluations, spikes)
    if (
        rows
        and not rows[-1].inside
        and log.ended is None
        and log.steps_completed - 1 - rows[-1].published.step < SETTLED
    ):
        rows = rows[:-1]
    device = (log.device or config.train.device).partition(":")[0]
    precision = log.started.precision if log.started else config.train.precision
    reasons = tuple(_reasons(config, device, precision, spikes))
    outside = [row for row in rows if not row.inside]
    if otherwise := departures(config):
        told = f"Differs: this is not the exercise, but has {', '.join(otherwise)}."
        if rows:
            told += f" {len(outside)} of {len(rows)} evaluations lie outside the spread of right runs."
        return Verdict("differs", told, reasons, rows)
    if not rows:
        return Verdict("waiting", "The first evaluation comes after the first step.", reasons, ())
    remarks = [
        f"The evaluation at step {row.published.step} is left out: with those weights the loss shot up, and came back."
        for row in rows
        if row.on_spike
    ]
    if config.data.order == "published" and device == "cpu" and config.train.seed == EXERCISE.train.seed:
        remarks.append(_close(rows))
    if not outside:
        return Verdict("matches", _matching(rows), reasons, rows, tuple(remarks))
    return Verdict("differs", _differing(rows, outside), reasons, rows, tuple(remarks))


def compare(evaluations: Sequence[Evaluated], spikes: Sequence[int] = ()) -> tuple[Row, ...]:
    """Each evaluation that the exercise has too, beside it. ``spikes``: steps at which the loss shot up.

    An evaluation comes after its step: it reads the weights that the next step begins with.
    """
    by_step = {row.step: row for row in evaluations}
    return tuple(_row(row, by_step[row.step], spikes) for row in EVALUATIONS if row.step in by_step)


def _row(published: Published, found: Evaluated, spikes: Sequence[int]) -> Row:
    behind = THROWN_BACK if published.step > EARLY else 0
    near = [row for row in EVALUATIONS if 0 <= published.step - row.step <= behind]
    tolerance = TRAIN_TOLERANCE_EARLY if published.step <= EARLY else TRAIN_TOLERANCE_LATE
    train = [loss for row in near for loss in (row.train, row.cpu_train)]
    val = [loss for row in near for loss in (row.val, row.cpu_val)]
    return Row(
        published,
        found.train_loss,
        found.val_loss,
        _beyond(found.train_loss, train) <= tolerance,
        _beyond(found.val_loss, val) <= VAL_TOLERANCE,
        published.step + 1 in spikes,
    )


def _beyond(loss: float, band: Sequence[float]) -> float:
    """How far a loss lies outside a band, relative to the nearer edge; infinite for no number."""
    if not math.isfinite(loss) or loss <= 0:
        return math.inf
    return max(0.0, loss / max(band) - 1, min(band) / loss - 1)


def spikes_in(losses: Sequence[tuple[int, float]]) -> list[int]:
    """The steps whose loss shot up and came back: ``losses`` are (step, training loss of that step)."""
    return [
        step
        for (_, before), (step, loss), (_, after) in zip(losses, losses[1:], losses[2:], strict=False)
        if loss > SPIKE * max(before, after)
    ]


def _matching(rows: Sequence[Row]) -> str:
    told = [row for row in rows if not row.on_spike] or rows
    val, train = max(told, key=lambda row: abs(row.val_off)), max(told, key=lambda row: abs(row.train_off))
    whole = len(rows) == len(EVALUATIONS)
    begun = "Matches" if whole else "Matches so far"
    return (
        f"{begun}: {_all(rows)} within the spread of right runs. Largest distance from the published log: validation "
        f"{_percent(val.val_off)} at step {val.published.step}, training {_percent(train.train_off)} at step "
        f"{train.published.step}."
    )


def _differing(rows: Sequence[Row], outside: Sequence[Row]) -> str:
    first = outside[0]
    which, off, loss, published = (
        ("validation", first.val_off, first.val, first.published.val)
        if not first.val_inside
        else ("training", first.train_off, first.train, first.published.train)
    )
    if not math.isfinite(loss):
        how = f"{which} loss is not a number"
    else:
        how = f"{which} loss {loss:.3f} instead of {published:.3f} ({_percent(off)})"
    return (
        f"Differs: {len(outside)} of {len(rows)} evaluations lie outside the spread of right runs, the first at step "
        f"{first.published.step}: {how}."
    )


def _all(rows: Sequence[Row]) -> str:
    spikes = sum(row.on_spike for row in rows)
    if spikes:
        return f"{len(rows)} evaluations, but {spikes} that fell on a spike of the loss, are"
    if len(rows) == 1:
        return "the first evaluation is"
    return f"all {len(rows)} evaluations are" if len(rows) == len(EVALUATIONS) else f"the first {len(rows)} are"


def _close(rows: Sequence[Row]) -> str:
    """In the published order on a CPU more can be asked for."""
    early = [row for row in rows if row.published.step <= CLOSE_UNTIL]
    worst = max(early, key=lambda row: row.cpu_off)
    off = f"{100 * worst.cpu_off:.2g} %, at step {worst.published.step}"
    if worst.cpu_off <= CLOSE:
        return f"In the published order, until step {early[-1].published.step}, it keeps to the CPU trace within {off}."
    return (
        f"In the published order on a CPU each evaluation until step {CLOSE_UNTIL} should keep to the CPU trace within "
        f"{100 * CLOSE:.0f} %; the largest distance is {off}. Other processors and PyTorch versions round differently."
    )


def _reasons(config: RunConfig, device: str, precision: str, spikes: Sequence[int]) -> list[str]:
    kinds = {"cpu": "a CPU", "cuda": "a CUDA GPU", "mps": "Apple's MPS"}
    said = []
    if device != "mps":
        said.append(f"Device: {kinds.get(device, device)} here, Apple's MPS there; sums are rounded in another order.")
    if precision != "fp32":
        said.append(f"Precision: {precision} here, fp32 there: three digits instead of seven in each product.")
    if config.train.compile == "on" or (config.train.compile == "auto" and precision == "bf16" and device == "cpu"):
        said.append("Compiled: dropout is drawn from another stream than in the plain model.")
    if config.data.order == "own":
        said.append(
            "Order: the batches, the dropout and the windows that an evaluation reads are drawn in gptlab's own order "
            "(data.order: published follows the exercise's)."
        )
    if config.train.seed != EXERCISE.train.seed:
        said.append(f"Seed: {config.train.seed} here, {EXERCISE.train.seed} there.")
    for step in spikes[:3]:
        said.append(
            f"Spike: the loss shot up at step {step} and came back. A constant rate without warm-up does that now and "
            f"then; it can cost some {THROWN_BACK} steps."
        )
    return said


def _percent(off: float) -> str:
    return f"{100 * off:+.1f} %" if math.isfinite(off) else "no number"
