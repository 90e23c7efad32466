"""The table of a measurement, and where it is kept."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MEASUREMENTS = ROOT / "docs" / "measurements.md"


@dataclass(frozen=True)
class Row:
    """One measured task: ``value`` against the least (or most) that is wanted, and the times behind it."""

    task: str
    value: float
    wanted: float
    ours: str
    against: str
    at_most: bool = False
    unit: str = "x"

    @property
    def reached(self) -> bool:
        return self.value <= self.wanted if self.at_most else self.value >= self.wanted


def table(rows: Sequence[Row], *, note: str = "", kind: str = "") -> str:
    """Markdown: date, environment and one line a task."""
    lines = [f"### {datetime.now():%Y-%m-%d %H:%M}{kind}", "", environment(), ""]
    if note:
        lines += [note, ""]
    lines += ["| task | measured | wanted | reached | ours, median (range) | against |", "|---|---|---|---|---|---|"]
    for row in rows:
        sign = "at most" if row.at_most else "at least"
        lines.append(
            f"| {row.task} | {row.value:.2f} {row.unit} | {sign} {row.wanted:g} | {'yes' if row.reached else 'no'} "
            f"| {row.ours} | {row.against} |"
        )
    return "\n".join(lines) + "\n"


def environment() -> str:
    """Machine, versions and commit in a sentence."""
    import torch

    from gptlab.device import describe_machine

    told = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True)
    commit = told.stdout.strip() or "unknown"
    packages = ", ".join(f"{name} {_version(name)}" for name in ("torch", "transformers"))
    gpu = f"; {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return f"{describe_machine()}{gpu}; {torch.get_num_threads()} threads; {packages}; commit {commit}."


def _version(package: str) -> str:
    try:
        return version(package)
    except Exception:
        return "not installed"


def write(text: str, path: Path = MEASUREMENTS) -> None:
    """Add ``text`` below the heading ``## Tables``, newest first."""
    heading = "## Tables\n"
    before = path.read_text(encoding="utf-8") if path.exists() else f"# Measurements\n\n{heading}"
    if heading not in before:
        before += f"\n{heading}"
    start, rest = before.split(heading, 1)
    path.write_text(f"{start}{heading}\n{text}{rest}", encoding="utf-8")
