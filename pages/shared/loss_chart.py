"""The chart of one run's losses, as a person has chosen to see it. No widgets: page and route make it alike."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlencode

from gptlab.coach import TextFacts
from gptlab.config import RunConfig
from gptlab.figures import evaluation_table, training_figure
from gptlab.log import RunLog
from gptlab.metrics import Axis, Extent, epoch_marks
from gptlab.panels import AXIS_TITLES
from gptlab.runs import Run
from pages.shared.addresses import run_url
from pages.shared.live_chart import Chart, chart_of
from pages.shared.url_field import flag, number_in, one_of

AXES: dict[Axis, str] = {"epoch": "Epochs", "step": "Steps", "tokens": "Tokens", "time": "Time"}
MOST_SMOOTHING = 0.99


@dataclass(frozen=True)
class View:
    """What a person chooses: the x-axis, its scales, and how much the training loss is smoothed."""

    axis: Axis = "epoch"
    log_x: bool = False
    log_y: bool = False
    smoothing: float = 0.0

    def query(self) -> str:
        return urlencode({"axis": self.axis, "x": int(self.log_x), "y": int(self.log_y), "smoothing": self.smoothing})

    @classmethod
    def read(cls, axis: str, x: str, y: str, smoothing: str) -> View:
        """What ``query`` wrote. ValueError: it did not."""
        named: Axis = one_of(*AXES)(axis)  # type: ignore[assignment]
        return cls(named, flag(x), flag(y), number_in(0.0, MOST_SMOOTHING)(smoothing))


def loss_chart(
    run: Run | None,
    log: RunLog | None,
    extent: Extent,
    config: RunConfig | None,
    facts: TextFacts | None,
    view: View,
    *,
    live: bool = False,
) -> Chart:
    """Losses, learning rate and gradient norm; greyed axes where there is nothing to draw yet.

    ``live``: the chart asks for its next version by itself.
    """
    mark = log.offset if log else 0
    figure = training_figure(
        log,
        extent,
        vocab_size=config.model.vocab_size if config else 50_257,
        unigram_entropy=facts.unigram_entropy if facts else None,
        axis=view.axis,
        log_x=view.log_x,
        log_y=view.log_y,
        smoothing=view.smoothing,
        revision=run.id if run else "none",
    )
    return chart_of(
        figure,
        label=_told(log, view.axis),
        name=f"losses-{run.id}" if run else "losses",
        table=evaluation_table(log, extent) if log else None,
        csv_url=run_url(run, "metrics.csv") if run else None,
        run=run.id if run else "",
        epochs=epoch_marks(log, view.axis, extent) if log else None,
        note="The losses will appear here, point by point." if log is None or not log.steps else None,
        live=f"{run_url(run, 'losses.json')}?{view.query()}" if run and live else None,
        mark=mark,
    )


def _told(log: RunLog | None, axis: Axis) -> str:
    """The chart in a sentence."""
    if log is None or not log.evaluations:
        return "Training and validation loss: nothing to draw yet."
    last, best = log.evaluations[-1], log.best
    told = f"Losses against {AXIS_TITLES[axis]}: training {last.train_loss:.3f}, validation {last.val_loss:.3f}"
    return f"{told}; best validation {best.val_loss:.3f} in epoch {best.epoch}." if best else f"{told}."
