"""A run's log as the figures that a person watches. No Streamlit: what it says depends on the run and the clock."""

from __future__ import annotations

import math
import time

from gptlab.config import RunConfig
from gptlab.log import RunLog
from gptlab.metrics import Extent, extent_of, seconds_per_step
from gptlab.runs import LIVE, Run
from pages.shared.look import ago, duration, number, size
from pages.shared.status_card import Fact, Standing, Tone

PHASES: dict[str, str] = {
    "loading": "Loading",
    "compiling": "Compiling",
    "training": "Training",
    "evaluating": "Evaluating",
    "sampling": "Sampling",
    "saving": "Saving",
    "paused": "Paused",
}
ENDS: dict[str, tuple[str, Tone]] = {
    "finished": ("Done", "good"),
    "stopped": ("Stopped", "rest"),
    "discarded": ("Discarded", "rest"),
    "failed": ("Failed", "bad"),
    "interrupted": ("Interrupted", "bad"),
    "damaged": ("Damaged", "bad"),
}
ACKNOWLEDGED: dict[str, str] = {
    "pause": "Pausing after this step …",
    "resume": "Going on …",
    "step": "Making one step …",
    "stop": "Stopping after this step, then saving …",
    "discard": "Stopping after this step …",
    "save": "Saving after this step …",
}
GRACE = 10.0  # seconds after which a worker that does not answer may be forced


def run_extent(run: Run, log: RunLog, config: RunConfig | None) -> Extent:
    """How far the run is meant to go, also where its configuration cannot be read."""
    return extent_of(log, config.train.num_epochs, config.train.max_steps) if config else extent_of(log, 0)


def config_of(run: Run) -> RunConfig | None:
    try:
        return run.config
    except ValueError:
        return None


def standing(run: Run, log: RunLog, status: str, config: RunConfig | None, now: float | None = None) -> Standing:
    """The card of a run."""
    now = time.time() if now is None else now
    extent = run_extent(run, log, config)
    total = log.started.total_steps if log.started else extent.total_steps
    made = log.steps_completed
    live = status in LIVE
    chip, tone = _chip(log, status)
    said = ACKNOWLEDGED.get(run.pending_request() or "", "") if live else ""
    line = f"step {made:,} of {total:,}" if total else "not started yet"
    if total and extent.steps_per_epoch:
        reached, epochs = made / extent.steps_per_epoch, total / extent.steps_per_epoch
        whole = f"{epochs:,.2f}".rstrip("0").rstrip(".")  # most runs end with an epoch
        line += f" · epoch {reached:,.2f} of {whole}"
    done = min(1.0, made / total) if total else 0.0
    return Standing(chip, tone, line, said, done, _facts(run, log, live, status, total, now))


def _chip(log: RunLog, status: str) -> tuple[str, Tone]:
    if status == "paused":
        return "Paused", "wait"
    if status == "running":
        return PHASES.get(log.phase or "loading", "Training"), "busy"
    return ENDS.get(status, (status.capitalize(), "rest"))


def _facts(run: Run, log: RunLog, live: bool, status: str, total: int, now: float) -> tuple[Fact, ...]:
    last = log.evaluations[-1] if log.evaluations else None
    best = log.best
    speed = log.steps[-1].tokens_per_second if log.steps else math.nan
    pace = seconds_per_step(log)
    elapsed = log.seconds_trained()
    if status == "running" and not math.isnan(log.last_time):
        elapsed += max(0.0, now - log.last_time)
    left = (total - log.steps_completed) * pace if live and total else math.nan
    if live:
        ending: Fact = ("Time left", duration(left), f"until {_clock(now + left)}" if left < 86_400 else "")
    else:
        ending = ("Ended", ago(log.last_time, now) if not math.isnan(log.last_time) else "–", "")
    return (
        ("Train loss", number(last.train_loss if last else math.nan, 3), "evaluated"),
        ("Validation loss", number(last.val_loss if last else math.nan, 3), _best(best)),
        ("Elapsed", duration(elapsed) if log.started else "–", "pauses excluded"),
        ending,
        ("Tokens a second", number(speed), "training alone"),
        ("Tokens seen", number(log.steps[-1].tokens_seen if log.steps else math.nan), ""),
        ("Device", log.device or "–", f"{log.started.threads} threads" if log.started else ""),
        ("Memory", size(worker_memory(run)) if live else "–", "of the worker" if live else ""),
    )


def _best(best: object) -> str:
    value = getattr(best, "val_loss", math.nan)
    return f"best {value:.3f}, epoch {getattr(best, 'epoch', 0)}" if math.isfinite(value) else ""


def _clock(moment: float) -> str:
    return time.strftime("%H:%M", time.localtime(moment)) if math.isfinite(moment) else ""


def worker_memory(run: Run) -> int | None:
    """Main memory that the run's worker holds, in bytes; None where it is not there."""
    import psutil

    pid = run.worker_pid()
    try:
        return None if pid is None else int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:
        return None


def unanswered(run: Run, log: RunLog, now: float | None = None) -> bool:
    """Whether a request has waited for longer than the worker should need: then it may be forced to stop."""
    if run.pending_request() is None:
        return False
    try:
        asked = (run.path / "request.json").stat().st_mtime
    except OSError:
        return False
    pace = seconds_per_step(log)
    patience = max(GRACE, 3 * pace if math.isfinite(pace) else 0.0)
    return (time.time() if now is None else now) - asked > patience
