"""What models were asked, and their answers, kept: the same question about the same weights is computed once.

Answers are shared by all sessions. A weights file that was replaced is another file: its time and size are part of
the question. Errors are ValueErrors that say what to do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import streamlit as st

from gptlab.runs import Run
from pages.shared.model_cache import open_model, read_model

if TYPE_CHECKING:
    from torch import Tensor

Floats = npt.NDArray[np.floating]
MOST_EPOCHS = 12  # that one question is put to: evenly spread, the first and the last among them


def weights_of(run: Run, name: str) -> Path:
    """The weights file of a checkpoint. ValueError: it is not there."""
    return run.checkpoint(name).weights


def saved_steps(run: Run) -> list[str]:
    """The names of a run's saved steps, fewest steps first; ``best`` only where there is nothing else."""
    names = [item.name for item in run.checkpoints()]
    return [name for name in names if name != "best"] or names


def some_steps(run: Run) -> list[str]:
    """At most ``MOST_EPOCHS`` of the saved steps."""
    names = saved_steps(run)
    if len(names) <= MOST_EPOCHS:
        return names
    return [names[round(i * (len(names) - 1) / (MOST_EPOCHS - 1))] for i in range(MOST_EPOCHS)]


def epoch_label(run: Run, name: str) -> str:
    """``epoch 3`` where the log knows it, else ``after 57 steps``, or the name itself."""
    try:
        found = run.checkpoint(name)
    except (OSError, ValueError):
        return name
    said = [saved.epoch for saved in run.log().saved if saved.checkpoint == found.name and saved.epoch]
    steps = f"after {found.step:,} steps"
    if not said:
        return steps
    return f"epoch {said[-1]}" + (", the best" if found.name == "best" else "")


def next_logits(weights: Path, ids: Sequence[int], device: str = "cpu") -> Tensor:
    """Logits [V] of the token after ``ids``, of which the last ``context_length`` are read."""
    import torch

    return torch.from_numpy(_next_logits(*_file(weights), tuple(ids), device))


def token_surprise(weights: Path, ids: Sequence[int], device: str = "cpu") -> Floats:
    """The surprise at each token of ``ids`` but the first, in nats."""
    return _token_surprise(*_file(weights), tuple(ids), device)


def attention(weights: Path, ids: Sequence[int], device: str = "cpu") -> Floats:
    """Attention [L, H, T, T] of ``ids``, T at most ``context_length``; half precision, for it is large."""
    return _attention(*_file(weights), tuple(ids), device)


def lens(
    weights: Path, ids: Sequence[int], places: range, device: str = "cpu"
) -> list[tuple[str, list[int], list[float]]]:
    """For the embedding and each layer: its name, and at each of the ``places`` in ``ids`` what it would say and how
    surely. Every place costs a look through the whole vocabulary for each layer."""
    return _lens(*_file(weights), tuple(ids), places.start, places.stop, device)


@dataclass(frozen=True, eq=False)
class Scored:
    """The surprise at each token of a text but the first (nats), their mean, and what follows from it."""

    losses: Floats
    loss: float
    perplexity: float
    bits_per_character: float


def scored(weights: Path, ids: Sequence[int], device: str = "cpu") -> Scored:
    """How surprised a model is by a text of any length, of two tokens or more, read window by window."""
    return _scored(*_file(weights), tuple(ids), device)


@dataclass(frozen=True)
class Guesses:
    """What a model says comes next: the likeliest tokens, and how likely, and of what rank, the true one is."""

    likeliest: tuple[tuple[int, float], ...]
    chance: float
    rank: int


def guesses(weights: Path, ids: Sequence[int], truth: int, device: str = "cpu") -> Guesses:
    """What the model thought came after ``ids``, where ``truth`` did. The model is not kept: many are asked in turn."""
    return _guesses(*_file(weights), tuple(ids), truth, device)


def neighbours(weights: Path, token: int) -> tuple[tuple[int, float], ...]:
    """The tokens nearest to one by the cosine of their embeddings, nearest first."""
    return _neighbours(*_file(weights), token)


def _file(weights: Path) -> tuple[str, int, int]:
    try:
        stat = weights.stat()
    except OSError as error:
        raise ValueError(
            f"The weights {weights.parent.name} are no longer there: choose another checkpoint."
        ) from error
    return str(weights), stat.st_mtime_ns, stat.st_size


@st.cache_data(max_entries=64, show_spinner="Asking the model …")
def _next_logits(path: str, mtime_ns: int, n_bytes: int, ids: tuple[int, ...], device: str) -> Floats:
    from gptlab.inspection import next_token_distribution

    model = open_model(Path(path), device)
    return next_token_distribution(model, ids[-model.config.context_length :]).logits.numpy()


@st.cache_data(max_entries=64, show_spinner="Asking the model …")
def _token_surprise(path: str, mtime_ns: int, n_bytes: int, ids: tuple[int, ...], device: str) -> Floats:
    from gptlab.inspection import read_passage

    return read_passage(open_model(Path(path), device), ids).surprise.numpy()


@st.cache_data(max_entries=4, show_spinner=False)
def _attention(path: str, mtime_ns: int, n_bytes: int, ids: tuple[int, ...], device: str) -> Floats:
    from gptlab.inspection import Trace

    trace = Trace(open_model(Path(path), device), ids)
    layers = range(len(trace.streams) - 1)
    return np.stack([trace.attention(layer).numpy().astype(np.float16) for layer in layers])


@st.cache_data(max_entries=16, show_spinner=False)
def _lens(
    path: str, mtime_ns: int, n_bytes: int, ids: tuple[int, ...], first: int, end: int, device: str
) -> list[tuple[str, list[int], list[float]]]:
    from gptlab.inspection import logit_lens

    found = logit_lens(open_model(Path(path), device), ids, top=1, positions=range(first, end))
    names = ["embedding", *(f"layer {number + 1}" for number in range(len(found.top_ids) - 1))]
    return list(zip(names, found.top_ids[..., 0].tolist(), found.top_probabilities[..., 0].tolist(), strict=True))


@st.cache_data(max_entries=32, show_spinner="Scoring …")
def _scored(path: str, mtime_ns: int, n_bytes: int, ids: tuple[int, ...], device: str) -> Scored:
    from gptlab.perplexity import score_ids

    found = score_ids(open_model(Path(path), device), ids)
    return Scored(found.losses.numpy(), found.loss, found.perplexity, found.bits_per_character)


@st.cache_data(max_entries=256, show_spinner=False)
def _guesses(path: str, mtime_ns: int, n_bytes: int, ids: tuple[int, ...], truth: int, device: str) -> Guesses:
    from gptlab.inspection import next_token_distribution

    model = read_model(Path(path), device)
    found = next_token_distribution(model, ids[-model.config.context_length :])
    chances = found.logits.softmax(-1)
    own = float(chances[truth])
    return Guesses(tuple((guess.id, guess.probability) for guess in found.top[:5]), own, 1 + int((chances > own).sum()))


@st.cache_data(max_entries=64, show_spinner=False)
def _neighbours(path: str, mtime_ns: int, n_bytes: int, token: int) -> tuple[tuple[int, float], ...]:
    from gptlab.explain import nearest_tokens

    return tuple((near.id, near.cosine) for near in nearest_tokens(read_model(Path(path)), token))
