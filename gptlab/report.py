"""A run in one file: a page that opens anywhere, offline, with interactive charts, samples, configuration and facts.

Everything stands in the file; a content security policy in it forbids the browser to fetch anything. Whatever a corpus,
a model or a person wrote is escaped.
"""

from __future__ import annotations

import importlib.util
import json
import math
import time
from collections.abc import Iterator, Sequence
from html import escape
from importlib import resources
from pathlib import Path
from typing import Any

from gptlab.config import RunConfig
from gptlab.environment import read_environment
from gptlab.events import Sampled
from gptlab.figures import DARK, evaluation_table, training_figure
from gptlab.log import RunLog
from gptlab.metrics import Axis, extent_of
from gptlab.runs import Run
from gptlab.script import script_of_run

AXES: dict[Axis, str] = {"epoch": "Epochs", "step": "Steps", "tokens": "Tokens", "time": "Time"}
MOST_SAMPLES, MOST_ROWS, LONGEST_SAMPLE = 60, 500, 4000
LEVELS = ((0.5, "50 % and more"), (0.2, "20 to 50 %"), (0.05, "5 to 20 %"), (0.01, "1 to 5 %"), (0.0, "below 1 %"))
POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"


def report(run: Run) -> Iterator[str]:
    """The report as pieces of HTML. What cannot be read of a damaged run is left out, and the report says so."""
    status, log = run.status(), run.log()
    try:
        config, fault = run.config, ""
    except ValueError as error:
        config, fault = None, str(error)
    title = escape(run.name)
    yield (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title} · gptlab</title>\n<style>\n{_own('report.css')}</style>\n</head>\n<body>\n<main>\n"
        f"<h1>{title}</h1>\n"
    )
    yield _head(run, log, status, config, fault)
    yield _charts(log, config)
    yield _samples(log)
    yield _facts_table("Configuration", _config_rows(config)) if config else ""
    yield _facts_table("Text", _corpus_rows(config)) if config else ""
    yield _facts_table("Environment", _environment_rows(run, log, config))
    yield _script(run) if config else ""
    yield "</main>\n"
    if log.steps:
        yield f'<script type="application/json" id="figures">{_json(_figures(log, config))}</script>\n<script>\n'
        yield _plotly().replace("</script", "<\\/script")
        yield f"\n</script>\n<script>\n{_own('report.js')}</script>\n"
    yield "</body>\n</html>\n"


def _own(name: str) -> str:
    return (resources.files("gptlab") / name).read_text(encoding="utf-8")


def _plotly() -> str:
    spec = importlib.util.find_spec("plotly")
    folder = Path(next(iter(spec.submodule_search_locations or ()))) if spec else Path()
    return (folder / "package_data" / "plotly.min.js").read_text(encoding="utf-8")


def _json(value: Any) -> str:
    """JSON that cannot end the script element that it stands in."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False).replace("<", "\\u003c")


def _head(run: Run, log: RunLog, status: str, config: RunConfig | None, fault: str) -> str:
    made = time.strftime("%d %B %Y, %H:%M", time.localtime(run.created))
    about, best = run.about, log.best
    last = log.evaluations[-1] if log.evaluations else None
    ended = f" {escape(log.ended.message)}" if log.ended and log.ended.message else ""
    parts = [f'<p class="muted">Run {escape(run.id)}, made on {made}: {escape(status)}.{ended}</p>\n']
    if fault:
        parts.append(f"<p><strong>{escape(fault)}</strong></p>\n")
    if log.unreadable:
        parts.append(f"<p><strong>Its event log cannot be read: {escape(log.unreadable)}.</strong></p>\n")
    if about.parent:
        parts.append(f'<p class="muted">It began with the weights of run {escape(about.parent)}.</p>\n')
    if about.tags:
        parts.append(f'<p class="muted">Tags: {escape(", ".join(about.tags))}</p>\n')
    if about.notes:
        parts.append(f'<p class="notes">{escape(about.notes)}</p>\n')
    total = f"of {log.started.total_steps:,}" if log.started else ""
    facts = [
        ("Best validation loss", _number(best.val_loss if best else None, 4), f"epoch {best.epoch}" if best else ""),
        ("Its perplexity", _number(math.exp(min(best.val_loss, 700)) if best else None, 1), "e to that loss"),
        ("Last validation loss", _number(last.val_loss if last else None, 4), ""),
        ("Last training loss", _number(last.train_loss if last else None, 4), "evaluated"),
        ("Steps", f"{log.steps_completed:,}", total),
        ("Parameters", f"{log.started.n_parameters:,}" if log.started else "–", ""),
        ("Trained for", _duration(log.seconds_trained()), "pauses left out"),
        ("Seed", str(config.train.seed) if config else "–", ""),
    ]
    rows = "".join(f"<div><dt>{a}</dt><dd>{escape(b)} <small>{escape(c)}</small></dd></div>\n" for a, b, c in facts)
    return "".join(parts) + f'<dl class="facts">\n{rows}</dl>\n'


def _charts(log: RunLog, config: RunConfig | None) -> str:
    if not log.steps:
        return '<h2>Losses</h2>\n<p class="muted">This run made no step, so there is nothing to draw.</p>\n'
    first = _first_axis(log, config)
    axes = "".join(
        f'<button type="button" data-axis="{axis}" aria-pressed="{str(axis == first).lower()}">{label}</button>\n'
        for axis, label in AXES.items()
    )
    logs = "".join(
        f'<button type="button" data-log="{name}" aria-pressed="false">{label}</button>\n'
        for name, label in (("logX", "Logarithmic x-axis"), ("logY", "Logarithmic losses"))
    )
    table = evaluation_table(log, _extent(log, config))
    told = _told(log)
    return (
        f'<h2>Losses</h2>\n<div class="options">\n{axes}<span class="muted">·</span>\n{logs}</div>\n'
        f'<div id="chart" role="img" aria-label="{escape(told)}"></div>\n<p class="muted">{escape(told)}</p>\n'
        f"<details><summary>The numbers as a table</summary>\n{_table(table['columns'], table['rows'])}</details>\n"
    )


def _told(log: RunLog) -> str:
    best = log.best
    if best is None:
        return "Training loss of each step; there was no validation."
    last = log.evaluations[-1]
    said = f"Validation loss was lowest at step {best.step:,}, epoch {best.epoch}: {best.val_loss:.4f}."
    if last is not best:
        said += f" At the last evaluation it was {last.val_loss:.4f}, training loss {last.train_loss:.4f}."
    return said


def _extent(log: RunLog, config: RunConfig | None) -> Any:
    return extent_of(log, config.train.num_epochs, config.train.max_steps) if config else extent_of(log, 0)


def _first_axis(log: RunLog, config: RunConfig | None) -> Axis:
    return "epoch" if _extent(log, config).steps_per_epoch else "step"


def _figures(log: RunLog, config: RunConfig | None) -> dict[str, Any]:
    extent, vocab_size = _extent(log, config), config.model.vocab_size if config else 50_257
    figures = {axis: training_figure(log, extent, vocab_size=vocab_size, axis=axis) for axis in AXES}
    return {"first": _first_axis(log, config), "dark": DARK, "figures": figures}


def _samples(log: RunLog) -> str:
    found = log.samples
    if not found:
        return '<h2>Samples</h2>\n<p class="muted">This run wrote no sample.</p>\n'
    shown = _evenly(found, MOST_SAMPLES)
    legend = "".join(f'<span><span class="t p{n}">token</span>{text}</span>\n' for n, (_, text) in enumerate(LEVELS))
    left_out = f"{len(shown)} of {len(found):,} samples, evenly chosen. " if len(shown) < len(found) else ""
    note = f"{left_out}Tinted by the probability that the model gave to each token; point at one to see it."
    body = "".join(map(_sample, shown))
    return f'<h2>Samples</h2>\n<p class="muted">{note}</p>\n<div class="legend">{legend}</div>\n{body}'


def _sample(sample: Sampled) -> str:
    from gptlab.tokenizer import get_tokenizer, token_pieces

    ids, chances = list(sample.token_ids[:LONGEST_SAMPLE]), sample.probabilities
    pieces = token_pieces(ids, get_tokenizer())
    spans = []
    for place, (id_, piece) in enumerate(zip(ids, pieces, strict=True)):
        chance = chances[place] if place < len(chances) else None
        if chance is None:
            spans.append(f'<span class="prompt">{escape(piece)}</span>')
        else:
            level = next(n for n, (bound, _) in enumerate(LEVELS) if chance >= bound or n == len(LEVELS) - 1)
            spans.append(f'<span class="t p{level}" title="id {id_}, {chance:.2%}">{escape(piece)}</span>')
    when = "Before training" if sample.epoch == 0 else f"After epoch {sample.epoch:,}"
    return f'<article class="sample"><h3>{when}</h3><p>{"".join(spans)}</p></article>\n'


def _config_rows(config: RunConfig) -> list[tuple[str, str, bool]]:
    default = RunConfig()
    rows = []
    for section, part in config:
        for name, info in type(part).model_fields.items():
            value = getattr(part, name)
            changed = value != getattr(getattr(default, section), name)
            rows.append((f"{info.title or name} ({section}.{name})", _said(value), changed))
    return rows


def _corpus_rows(config: RunConfig) -> list[tuple[str, str, bool]]:
    from gptlab.corpus import open_corpus

    source = config.data.corpus
    try:
        corpus = open_corpus(source, download=False)
        statistics = corpus.statistics()
        train, val = corpus.split_ids(config.data.train_ratio)
    except (OSError, ValueError):
        return [("Reference", _said(source), False), ("Its text", "is no longer kept here", False)]
    facts = {
        "Name": corpus.name,
        "SHA-256": corpus.sha256,
        "Characters": f"{statistics.characters:,}",
        "Words": f"{statistics.words:,}",
        "Tokens": f"{statistics.tokens:,}, {statistics.distinct_tokens:,} different ones",
        "Characters a token": f"{statistics.characters_per_token:.2f}",
        "Training part": f"{len(train):,} tokens",
        "Validation part": f"{len(val):,} tokens",
    }
    return [(name, value, False) for name, value in facts.items()]


def _environment_rows(run: Run, log: RunLog, config: RunConfig | None) -> list[tuple[str, str, bool]]:
    known, started = read_environment(run.path), log.started
    facts = {
        "Device": log.device or (config.train.device if config else ""),
        "Threads": str(started.threads) if started else "",
        "Precision": started.precision if started else "",
        "PyTorch": known.torch,
        "Python": known.python,
        "Machine": known.machine,
        "gptlab": known.gptlab,
        "Commit": known.commit,
    }
    return [(name, value or "not recorded", False) for name, value in facts.items()]


def _script(run: Run) -> str:
    return (
        "<h2>The Python that does this</h2>\n<details><summary>Show it</summary>\n"
        f'<pre tabindex="0">{escape(script_of_run(run))}</pre></details>\n'
    )


def _facts_table(title: str, rows: Sequence[tuple[str, str, bool]]) -> str:
    made = "".join(
        f"<tr{' class=changed' if changed else ''}><td>{escape(name)}</td><td>{escape(value)}</td></tr>\n"
        for name, value, changed in rows
    )
    note = '<p class="muted">Bold: not as in the reference exercise.</p>\n' if any(row[2] for row in rows) else ""
    return f'<h2>{title}</h2>\n{note}<table class="words"><tbody>\n{made}</tbody></table>\n'


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    shown = _evenly(rows, MOST_ROWS)
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in columns)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>\n" for row in shown)
    cut = f"<caption>{len(shown)} of {len(rows):,} rows, evenly chosen</caption>" if len(shown) < len(rows) else ""
    made = f"<table>{cut}<thead><tr>{head}</tr></thead><tbody>\n{body}</tbody></table>"
    return f'<div class="scroll" tabindex="0">{made}</div>'


def _evenly(rows: Sequence[Any], most: int) -> list[Any]:
    """At most ``most`` of the rows, the first and the last among them."""
    if len(rows) <= most:
        return list(rows)
    return [rows[round(place * (len(rows) - 1) / (most - 1))] for place in range(most)]


def _said(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, (tuple, list)):
        return ", ".join(map(_said, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _number(value: float | None, digits: int) -> str:
    return "–" if value is None or not math.isfinite(value) else f"{value:,.{digits}f}"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
