"""The compiler behind the fast step: is it here, where its results are kept, does compiling pay."""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from gptlab.config import RunConfig
from gptlab.home import cache_folder

CACHE_VARIABLE = "TORCHINDUCTOR_CACHE_DIR"
COMPILE_SECONDS = 30.0  # what compiling must at least save: with nothing in the cache it takes 10 to 28 s
# Core-seconds that compiling saves in a forward pass on a CPU in bf16, measured (docs/measurements.md): for each logit,
# and for each multiplication and addition in products
SAVED_PER_LOGIT = 4e-9
SAVED_PER_OPERATION = 0.8e-12
# Seconds that compiling saves in a recorded step on a GPU (an H200, bf16): for each layer, which has fewer kernels then
# (0.37 to 0.54 ms were measured), and for each attention score, which is not written to memory
SAVED_PER_LAYER = 4e-4
SAVED_PER_SCORE = 5e-11
MOST_AT_ONCE, MEMORY_OF_COMPILER = 8, 400_000_000  # C++ compilers side by side, and what each needs (bytes; about half)
_LIMIT = 64  # compiled variants of one function that this process may hold; PyTorch's own limit is 8


def missing() -> str | None:
    """Why nothing can be compiled here, as a sentence; None where it can."""
    named = os.environ.get("CXX", "")
    if any(shutil.which(name) for name in (named, "g++", "clang++", "c++") if name):
        return None
    return "No C++ compiler was found (g++ or clang++): install one, or set compile to off."


def automatic(config: RunConfig, total_steps: int, precision: str, device_type: str, cores: int) -> bool:
    """What ``compile: auto`` comes to: with bf16, on a CPU or an NVIDIA GPU, where the run is long enough to win."""
    if precision != "bf16":
        return False
    if device_type == "cpu":
        return pays(config, total_steps, cores)
    return device_type == "cuda" and pays_on_gpu(config, total_steps)


def pays(config: RunConfig, total_steps: int, cores: int) -> bool:
    """Whether a run of so many steps on a CPU saves more time by a compiled step than compiling takes.

    Decided by the sizes alone, never by a timing or by what is in the cache: the same run must take the same way twice,
    because the last digits of its losses depend on it.
    """
    model, train = config.model, config.train
    multiplied = 12 * model.n_layers * model.emb_dim**2 + model.vocab_size * model.emb_dim  # weights in products
    tokens = config.data.batch_size * model.context_length
    passes = 3 * config.optim.grad_accumulation + 2 * train.eval_iter / train.eval_freq  # forward passes a step, about
    each = tokens * (model.vocab_size * SAVED_PER_LOGIT + 2 * multiplied * SAVED_PER_OPERATION)
    return each * passes * total_steps / max(cores, 1) > COMPILE_SECONDS


def pays_on_gpu(config: RunConfig, total_steps: int) -> bool:
    """The same of a GPU, whatever its kind."""
    model, data = config.model, config.data
    scores = model.n_layers * model.n_heads * data.batch_size * model.context_length**2
    each = model.n_layers * SAVED_PER_LAYER + scores * SAVED_PER_SCORE
    return each * config.optim.grad_accumulation * total_steps > COMPILE_SECONDS


@contextmanager
def compiler(cores: int | None = None) -> Iterator[None]:
    """Settings for the first calls of compiled functions: results are kept in the data folder for the next run.

    ``cores``: of the CPU that is compiled for; its kernels are then built several at once.
    """
    import torch._dynamo.config as dynamo
    import torch._inductor.config as inductor

    with _cache_in_data_folder():
        dynamo.recompile_limit = max(dynamo.recompile_limit, _LIMIT)  # for later batches of another kind, too
        settings = {} if cores is None else _known_vectors()
        with inductor.patch({"compile_threads": 1 if cores is None else _at_once(cores), **settings}):
            yield


def _at_once(cores: int) -> int:
    """How many C++ compilers may work side by side."""
    from gptlab.device import free_memory

    return max(1, min(cores, MOST_AT_ONCE, free_memory() // MEMORY_OF_COMPILER))


@contextmanager
def _cache_in_data_folder() -> Iterator[None]:
    """Have PyTorch keep what it compiles in the data folder, unless a person has named another.

    It names one itself as soon as an optimiser is made: that of the machine's temporary files.
    """
    from torch._inductor.runtime.cache_dir_utils import default_cache_dir

    before = os.environ.get(CACHE_VARIABLE)
    if before not in (None, os.path.abspath(default_cache_dir())):
        yield
        return
    folder = cache_folder() / "compiled" / _processor()
    folder.mkdir(parents=True, exist_ok=True)
    os.environ[CACHE_VARIABLE] = str(folder)
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(CACHE_VARIABLE, None)
        else:
            os.environ[CACHE_VARIABLE] = before


def _processor() -> str:
    """A name for the kind of processor: kernels are built for its instructions, and PyTorch does not note which.

    A data folder may be that of several machines, or of one that wakes up on another processor.
    """
    facts = [platform.machine(), platform.processor(), os.environ.get("ATEN_CPU_CAPABILITY", "")]
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
        facts += sorted({line for line in lines if line.startswith(("model", "flags", "Features", "CPU part"))})
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()[:16]


def _known_vectors() -> dict[str, bool]:
    """A setting that has PyTorch believe which vectors the processor names, where the compiler knows the longest.

    By itself it first builds and loads a program for each length, with all its headers, which takes seconds.
    """
    from torch._inductor import config, cpp_builder, cpu_vec_isa

    if platform.machine() not in ("x86_64", "AMD64") or config.cpp.vec_isa_ok is not None:
        return {}
    named = cpu_vec_isa.x86_isa_checker()
    kinds = [isa for isa in cpu_vec_isa.supported_vec_isa_list if all(part in named for part in str(isa).split())]
    if not kinds:
        return {}
    flags = kinds[0].build_arch_flags().split()
    asked = [cpp_builder.get_cpp_compiler(), *flags, "-x", "c++", "-fsyntax-only", os.devnull]
    return {"cpp.vec_isa_ok": True} if subprocess.run(asked, capture_output=True).returncode == 0 else {}
