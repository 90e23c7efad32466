"""The compiler behind the fast step: is it here, where its results are kept, does compiling pay."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from gptlab.config import RunConfig
from gptlab.home import cache_folder

CACHE_VARIABLE = "TORCHINDUCTOR_CACHE_DIR"
COMPILE_SECONDS = 30.0  # what compiling must at least save: with nothing in the cache it takes 10 to 25 s
# Core-seconds that compiling saves in a forward pass on a CPU, measured (docs/measurements.md): for each logit, and for
# each multiplication and addition in products
SAVED_PER_LOGIT = 4e-9
SAVED_PER_OPERATION = {"bf16": 0.8e-12, "fp32": 7e-12}
_LIMIT = 64  # compiled variants of one function that this process may hold; PyTorch's own limit is 8


def missing() -> str | None:
    """Why nothing can be compiled here, as a sentence; None where it can."""
    named = os.environ.get("CXX", "")
    if any(shutil.which(name) for name in (named, "g++", "clang++", "c++") if name):
        return None
    return "No C++ compiler was found (g++ or clang++): install one, or set compile to off."


def pays(config: RunConfig, total_steps: int, precision: str, cores: int) -> bool:
    """Whether a run of so many steps on a CPU saves more time by a compiled step than compiling takes.

    Decided by the sizes alone, never by a timing or by what is in the cache: the same run must take the same way twice,
    because the last digits of its losses depend on it.
    """
    model, train = config.model, config.train
    multiplied = 12 * model.n_layers * model.emb_dim**2 + model.vocab_size * model.emb_dim  # weights in products
    tokens = config.data.batch_size * model.context_length
    passes = 3 * config.optim.grad_accumulation + 2 * train.eval_iter / train.eval_freq  # forward passes a step, about
    each = tokens * (model.vocab_size * SAVED_PER_LOGIT + 2 * multiplied * SAVED_PER_OPERATION[precision])
    return each * passes * total_steps / max(cores, 1) > COMPILE_SECONDS


@contextmanager
def compiler() -> Iterator[None]:
    """Settings for the first calls of compiled functions: results are kept in the data folder for the next run."""
    import torch._dynamo.config as dynamo
    import torch._inductor.config as inductor

    folder = cache_folder() / "compiled"
    folder.mkdir(parents=True, exist_ok=True)
    before = os.environ.get(CACHE_VARIABLE)
    os.environ.setdefault(CACHE_VARIABLE, str(folder))
    try:
        dynamo.recompile_limit = max(dynamo.recompile_limit, _LIMIT)  # for later batches of another kind, too
        with inductor.patch(compile_threads=1):
            yield
    finally:
        if before is None:
            os.environ.pop(CACHE_VARIABLE, None)
