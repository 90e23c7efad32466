"""Before a run: is there enough text, disk and device for it? And the run itself, once there is.

The dashboard's Start button and the command line both come through here, so both refuse the same things in the same
words.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from gptlab.config import GPT2_VOCAB_SIZE, RunConfig
from gptlab.corpus import Corpus, open_corpus
from gptlab.dataset import LengthReport, check_lengths
from gptlab.device import multiplies_bf16, pick_device
from gptlab.estimate import Estimate, estimate
from gptlab.home import free_bytes
from gptlab.runs import Run, RunStore

SPARE_BYTES = 200 << 20  # left over for logs, caches and everybody else


@dataclass(frozen=True)
class Preflight:
    """What a configuration amounts to, and what speaks against it. ``faults`` forbid a start, ``warnings`` do not."""

    corpus: Corpus
    n_train_tokens: int
    n_val_tokens: int
    lengths: LengthReport
    estimate: Estimate
    faults: tuple[str, ...]
    warnings: tuple[str, ...]


def check(
    config: RunConfig, store: RunStore, *, download: bool = True, progress: Callable[[float], None] | None = None
) -> Preflight:
    """Everything that can be known before the first step. ValueError: the corpus cannot be opened at all."""
    corpus = open_corpus(config.data.corpus, download=download)
    train_ids, val_ids = corpus.split_ids(config.data.train_ratio, progress)
    lengths = check_lengths(len(train_ids), len(val_ids), config)
    expected = estimate(config, len(train_ids), len(val_ids))
    faults, warnings = list(lengths.faults), list(lengths.warnings)
    if config.model.vocab_size < GPT2_VOCAB_SIZE:
        faults.append(
            f"vocab_size {config.model.vocab_size:,} is below the tokenizer's {GPT2_VOCAB_SIZE:,} tokens: raise it."
        )
    try:
        device = pick_device(config.train.device)
        if config.train.precision == "bf16" and not multiplies_bf16(device):
            warnings.append(f"{device} has no instructions for bf16, so it is slower there: use precision fp32.")
    except ValueError as error:
        faults.append(str(error))
    free = free_bytes(store.root)
    if expected.disk_bytes + SPARE_BYTES > free:
        faults.append(
            f"The run needs {_gigabytes(expected.disk_bytes)} of disk, and {_gigabytes(free)} are free "
            f"in {store.root}: free some space, or keep fewer checkpoints (keep_checkpoints)."
        )
    return Preflight(corpus, len(train_ids), len(val_ids), lengths, expected, tuple(faults), tuple(warnings))


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:.2f} GB"


def prepare(store: RunStore, config: RunConfig, *, name: str = "", parent: str | None = None) -> Run:
    """A new run whose text is kept by its hash. ValueError: every fault that forbids it, one a line."""
    ready = check(config, store)
    if ready.faults:
        raise ValueError("\n".join(ready.faults))
    return store.create(config.with_fields(data={"corpus": ready.corpus.reference}), name=name, parent=parent)


def describe(config: RunConfig) -> dict[str, Any]:
    """Figures of a configuration's text: statistics, split, batch counts and shapes, advice."""
    corpus = open_corpus(config.data.corpus)
    statistics = corpus.statistics()
    train_ids, val_ids = corpus.split_ids(config.data.train_ratio)
    lengths = check_lengths(len(train_ids), len(val_ids), config)
    return {
        "name": corpus.name,
        "sha256": corpus.sha256,
        "parts": [part.name for part in corpus.parts],
        "characters": statistics.characters,
        "bytes": statistics.bytes,
        "lines": statistics.lines,
        "words": statistics.words,
        "tokens": statistics.tokens,
        "characters_per_token": round(statistics.characters_per_token, 3),
        "distinct_tokens": statistics.distinct_tokens,
        "most_frequent_tokens": [
            {"id": token_id, "text": text, "count": count} for token_id, text, count in statistics.most_frequent
        ],
        "train_tokens": len(train_ids),
        "val_tokens": len(val_ids),
        "train_batches": lengths.train_batches,
        "val_batches": lengths.val_batches,
        "batch_shape": [config.data.batch_size, config.model.context_length],
        "faults": list(lengths.faults),
        "warnings": list(lengths.warnings),
    }
