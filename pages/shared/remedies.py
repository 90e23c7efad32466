"""One-click answers to a text that is too short for its settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gptlab.config import RunConfig
from gptlab.dataset import check_lengths

CONTEXT_LENGTHS = (1024, 512, 256, 128, 64, 32, 16, 8, 4, 2)
LOWER_SHARES = (0.9, 0.85, 0.8, 0.7, 0.6, 0.5)
HIGHER_SHARES = (0.8, 0.9, 0.95)


@dataclass(frozen=True)
class Remedy:
    """A change of some fields and what its button says."""

    label: str
    changes: dict[str, dict[str, Any]]


def remedies(config: RunConfig, n_train_tokens: int, n_val_tokens: int) -> list[Remedy]:
    """The smallest single changes that leave less to complain about, at most one for each field."""
    now = _badness(config, n_train_tokens, n_val_tokens)
    found = []
    for options in _candidates(config, n_train_tokens, n_val_tokens):
        rated = [(_after(config, remedy, n_train_tokens + n_val_tokens), remedy) for remedy in options]
        if rated:
            badness, best = min(rated, key=lambda entry: entry[0])
            if badness < now:
                found.append(best)
    return found


def _candidates(config: RunConfig, n_train_tokens: int, n_val_tokens: int) -> list[list[Remedy]]:
    length, data = config.model.context_length, config.data
    report = check_lengths(n_train_tokens, n_val_tokens, config)
    shares = [share for share in LOWER_SHARES if share < data.train_ratio]
    if report.faults:
        shares = [share for share in HIGHER_SHARES if share > data.train_ratio]
    few = report.train_windows
    return [
        [Remedy(f"Use context length {n}", {"model": {"context_length": n}}) for n in CONTEXT_LENGTHS if n < length],
        [Remedy(f"Use training share {share:g}", {"data": {"train_ratio": share}}) for share in shares],
        [Remedy(f"Use batch size {few}", {"data": {"batch_size": few}})] if 0 < few < data.batch_size else [],
        [Remedy("Keep the last short batch", {"data": {"drop_last": False}})] if data.drop_last else [],
        [Remedy("Leave no gaps between windows", {"data": {"stride": None}})] if (data.stride or 0) > length else [],
    ]


def _after(config: RunConfig, remedy: Remedy, n_tokens: int) -> tuple[int, int, int]:
    changed = config.with_fields(**remedy.changes)
    n_train = int(n_tokens * changed.data.train_ratio)
    return _badness(changed, n_train, n_tokens - n_train)


def _badness(config: RunConfig, n_train_tokens: int, n_val_tokens: int) -> tuple[int, int, int]:
    report = check_lengths(n_train_tokens, n_val_tokens, config)
    return (len(report.faults), int(report.val_windows == 0), len(report.warnings))
