"""Starting and ending the detached process that trains a run. Imports no torch.

The launcher takes the run's lock, hands its descriptor to the worker and closes its own copy: the run counts as
running from the click on, two clicks start one worker, and the worker outlives the dashboard.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path

from gptlab.locks import hold, sign
from gptlab.runs import Run

LOCK_VARIABLE = "GPTLAB_LOCK_FD"
PATIENCE_FOR_LOCK = 1.0  # seconds: a reader that asks for the status holds the lock for a moment

# What a training process must find in its environment, because it is read only once, at the start. glibc gives freed
# memory back to the kernel and faults it in again at every step: the first three keep it (bytes).
SETTINGS = {
    "MALLOC_MMAP_THRESHOLD_": str(4 << 30),
    "MALLOC_TRIM_THRESHOLD_": str(16 << 30),
    "MALLOC_TOP_PAD_": str(64 << 20),
}
# OpenMP's threads wait for each other by spinning. Where something else, the browser say, wants a core too, they then
# hold up the one they wait for; where nothing does, a thread that sleeps is woken too late for a product of a few
# microseconds. So GNU's, which PyTorch brings for Linux, spin for some of those (turns), and sleep then; LLVM's and
# Intel's, which measure in milliseconds, sleep at once.
WAITING = {"GOMP_SPINCOUNT": "1000", "KMP_BLOCKTIME": "0"}
USERS_WAITING = "OMP_WAIT_POLICY"  # who sets this has said how threads wait


class AlreadyRunning(ValueError):
    """Another worker holds this run."""


def take_lock(run: Run, patience: float = PATIENCE_FOR_LOCK) -> int:
    """The descriptor of the run's lock, held. AlreadyRunning: a worker has it."""
    descriptor = hold(run.path / "worker.lock", patience)
    if descriptor is None:
        raise AlreadyRunning(f"Run {run.name} is training already: watch it, or stop it first.")
    return descriptor


def inherited_or_taken_lock(run: Run) -> int:
    """In a worker: the lock that the launcher handed on, else one taken now."""
    handed = inherited_lock()
    return take_lock(run) if handed is None else handed


def inherited_lock() -> int | None:
    """The lock that ``detach`` handed to this process, from now on not inherited by its own children."""
    handed = os.environ.pop(LOCK_VARIABLE, "")
    if not handed:
        return None
    os.set_inheritable(int(handed), False)
    return int(handed)


def worker_environment(base: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment that a training process gets: the settings above, unless the user set their own."""
    given = os.environ if base is None else base
    environment = {**given, **missing_settings(given)}
    package_parent = str(Path(__file__).resolve().parent.parent)
    paths = environment.get("PYTHONPATH", "").split(os.pathsep)
    environment["PYTHONPATH"] = os.pathsep.join([package_parent, *(p for p in paths if p and p != package_parent)])
    return environment


def missing_settings(environment: Mapping[str, str]) -> dict[str, str]:
    """Those of the settings that ``environment`` says nothing of."""
    return {k: v for k, v in {**SETTINGS, **missing_waiting(environment)}.items() if k not in environment}


def missing_waiting(environment: Mapping[str, str]) -> dict[str, str]:
    """How threads shall wait, where ``environment`` says nothing of it: to be set before torch is loaded."""
    return {} if USERS_WAITING in environment else {k: v for k, v in WAITING.items() if k not in environment}


def needs_settings(environment: Mapping[str, str]) -> bool:
    """Whether a process with this environment would train without those settings."""
    return sys.platform == "linux" and bool(missing_settings(environment))


def check_resumable(run: Run) -> None:
    """ValueError with the remedy where there is nothing to go on with."""
    _ = run.config
    ended = run.log().ended
    reason = ended.reason if ended else None
    if reason == "finished":
        raise ValueError(
            f"Run {run.name} is finished: start a new run with the same configuration and more epochs, "
            "or play with what it learnt."
        )
    if reason == "discarded":
        raise ValueError(f"The checkpoints of run {run.name} were discarded: start a new run with its configuration.")


def start(run: Run) -> None:
    """Train a run that has not been trained yet, in a process of its own. AlreadyRunning: one does."""
    _launch(run)


def resume(run: Run) -> None:
    """Go on with a stopped, failed or interrupted run. ValueError: it is finished, discarded, or training."""
    if run.is_locked():
        raise AlreadyRunning(f"Run {run.name} is training already: watch it, or stop it first.")
    check_resumable(run)
    _launch(run)


def _launch(run: Run) -> None:
    lock = take_lock(run)
    try:
        run.take_request()  # a wish left for an earlier worker is void
        detach(["-m", "gptlab.worker", str(run.path.absolute())], lock, run.path / "worker.log", name=run.id)
    finally:
        os.close(lock)


def detach(arguments: list[str], lock: int, log: Path, *, name: str) -> None:
    """Start Python with ``arguments`` in a process that outlives this one, holds ``lock`` and prints into ``log``."""
    with open(log, "ab") as file:
        process = subprocess.Popen(
            [sys.executable, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            env={**worker_environment(), LOCK_VARIABLE: str(lock)},
            pass_fds=[lock],
            start_new_session=True,
        )
    sign(lock, process.pid)
    threading.Thread(target=process.wait, name=f"reap-{name}", daemon=True).start()


KILLED_BY = 10.0  # seconds: nothing survives SIGKILL, but a busy machine takes a while to clear a large process away


def force_stop(run: Run, grace: float = 3.0) -> bool:
    """End a worker that does not answer: SIGTERM, then SIGKILL after ``grace`` seconds. True: it is gone."""
    pid = run.worker_pid()
    if pid is None:
        return not run.is_locked()
    for signal_, patience in ((signal.SIGTERM, grace), (signal.SIGKILL, KILLED_BY)):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal_)
        give_up = time.monotonic() + patience
        while time.monotonic() < give_up:
            if not run.is_locked():
                return True
            time.sleep(0.05)
    return not run.is_locked()


def log_tail(run: Run, lines: int = 20) -> str:
    """The last lines that the worker printed: what there is to read where it died without a word."""
    try:
        raw = (run.path / "worker.log").read_bytes()[-20_000:]
    except OSError:
        return ""
    return "\n".join(raw.decode("utf-8", errors="replace").splitlines()[-lines:])
