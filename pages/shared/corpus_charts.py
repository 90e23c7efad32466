"""Drawings of a text: its most frequent tokens, rank against frequency, the split to scale. No widgets."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any, NamedTuple

from gptlab.corpus import FrequentToken
from gptlab.figures import TRAIN, VAL, Figure

MOST_CELLS = 160
GLYPHS = str.maketrans({" ": "·", "\t": "⇥", "\n": "↵", "\r": "␍"})


def visible(text: str) -> str:
    """Token text with its white space drawn."""
    return text.translate(GLYPHS)


def _label(text: str) -> str:
    """For plotly, which reads some HTML and %-codes in texts."""
    return escape(visible(text), quote=False).replace("%", "&#37;").replace("$", "&#36;")


def frequency_figure(tokens: Sequence[FrequentToken], total: int) -> Figure:
    """Bars of the most frequent tokens, the first on top."""
    places = list(range(len(tokens)))
    bars: Figure = {
        "type": "bar",
        "orientation": "h",
        "x": [token.occurrences for token in tokens],
        "y": places,
        "marker": {"color": TRAIN},
        "text": [f" {token.occurrences:,}" for token in tokens],
        "textposition": "outside",
        "cliponaxis": False,
        "hovertext": [
            f"id {token.id}: {token.occurrences:,} times, {token.occurrences / max(1, total):.1%}" for token in tokens
        ],
        "hoverinfo": "text",
    }
    layout = _layout(max(160, 22 * len(tokens) + 40))
    layout["yaxis"] = {
        "tickmode": "array",
        "tickvals": places,
        "ticktext": [_label(token.text) for token in tokens],
        "autorange": "reversed",
        "fixedrange": True,
        "tickfont": {"family": "monospace", "size": 13},
        "automargin": True,
    }
    layout["xaxis"] = {"visible": False, "fixedrange": True, "range": [0, 1.16 * max(bars["x"], default=1)]}
    return {"data": [bars], "layout": layout}


def rank_figure(ranks: Sequence[tuple[int, int, int]], pieces: Sequence[str]) -> Figure:
    """How often the n-th most frequent token stands in the text, on logarithmic axes."""
    points: dict[str, Any] = {
        "type": "scatter",
        "mode": "lines+markers",
        "x": [rank for rank, _, _ in ranks],
        "y": [count for _, count, _ in ranks],
        "line": {"color": TRAIN, "width": 1.5},
        "marker": {"color": TRAIN, "size": 4},
        "hovertext": [
            f"{_label(piece)} (id {id_})<br>rank {rank:,}: {count:,} times"
            for (rank, count, id_), piece in zip(ranks, pieces, strict=True)
        ],
        "hoverinfo": "text",
    }
    layout = _layout(480)
    layout["xaxis"] = {"type": "log", "title": {"text": "rank"}, "fixedrange": True, "dtick": 1}
    layout["yaxis"] = {"type": "log", "title": {"text": "times in the text"}, "fixedrange": True, "dtick": 1}
    return {"data": [points], "layout": layout}


def _layout(height: int) -> Figure:
    return {"height": height, "margin": {"l": 8, "r": 8, "t": 8, "b": 36}, "showlegend": False, "dragmode": False}


class SplitPart(NamedTuple):
    """Training or validation. ``tokens_read``: those that at least one window reads."""

    name: str
    characters: int
    tokens: int
    windows: int
    tokens_read: int


def split_html(parts: Sequence[SplitPart]) -> str:
    """Both parts as one bar, to scale: windows are cells, what no window reads is hatched. Below it the numbers.

    Holds numbers and names of ours only.
    """
    characters = max(1, sum(part.characters for part in parts))
    said = ". ".join(f"{part.name}: {part.characters / characters:.0%} of the text" for part in parts)
    bars = "".join(_bar(part, colour, characters) for part, colour in zip(parts, (TRAIN, VAL), strict=True))
    numbers = "".join(_numbers(part, colour, characters) for part, colour in zip(parts, (TRAIN, VAL), strict=True))
    return f"""<style>
.split {{ display: flex; gap: 4px; height: 46px; }}
.split > div {{ display: flex; height: 100%; border-radius: 3px; overflow: hidden; }}
.split i {{ flex: 1 1 0; min-width: 0; margin-right: 1px; }}
.split-numbers {{ display: flex; flex-wrap: wrap; gap: 0.5rem 2.5rem; margin-top: 0.7rem; line-height: 1.5;
  font-variant-numeric: tabular-nums; }}
.split-numbers b::before {{ content: ""; display: inline-block; width: 0.75em; height: 0.75em; margin-right: 0.45em;
  border-radius: 2px; background: var(--part); }}
</style>
<div class="split" role="img" aria-label="{said}">{bars}</div><div class="split-numbers">{numbers}</div>"""


def _bar(part: SplitPart, colour: str, characters: int) -> str:
    read = part.tokens_read / part.tokens if part.tokens else 0.0
    cell = f'<i style="background:{colour}"></i>'
    cells = cell * (part.windows if part.windows <= MOST_CELLS else 1)
    hatching = f"repeating-linear-gradient(135deg, {colour} 0 1.5px, transparent 1.5px 6px)"
    return (
        f'<div style="width:{100 * part.characters / characters:.3f}%">'
        f'<div style="display:flex;width:{100 * read:.3f}%">{cells}</div>'
        f'<div style="flex:1;background:{hatching}"></div></div>'
    )


def _numbers(part: SplitPart, colour: str, characters: int) -> str:
    return (
        f'<div style="--part:{colour}"><b>{part.name}</b>, {part.characters / characters:.0%}<br>{part.characters:,} '
        f"characters, {part.tokens:,} tokens, {part.windows:,} window{'' if part.windows == 1 else 's'}</div>"
    )
