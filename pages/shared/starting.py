"""Start, once. Two presses, two tabs or two dashboards on one data folder never start two workers for one wish."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from gptlab import launcher
from gptlab.config import RunConfig
from gptlab.fork import fork
from gptlab.preflight import prepare
from gptlab.runs import Run, RunStore, live_runs


@dataclass(frozen=True)
class Started:
    """``run`` trains now; ``fresh`` False: it did already, because somebody was faster."""

    run: Run
    fresh: bool


def start_once(
    store: RunStore, config: RunConfig, *, name: str, seen: tuple[str, ...], fork_of: tuple[str, str] | None = None
) -> Started:
    """Create a run and start its worker, unless a run that was not in ``seen`` began meanwhile: then that one.

    ``fork_of``: (run id, checkpoint) whose weights it begins with.
    ValueError: everything that forbids the start, one sentence a line.
    """
    with _one_at_a_time(store):
        news = [run for run in live_runs(store) if run.id not in seen]
        if news:
            return Started(news[0], fresh=False)
        if fork_of is None:
            run = prepare(store, config, name=name)
        else:
            run = fork(store, store.get(fork_of[0]), fork_of[1], config, name=name)
        launcher.start(run)
        return Started(run, fresh=True)


@contextmanager
def _one_at_a_time(store: RunStore) -> Iterator[None]:
    store.root.mkdir(parents=True, exist_ok=True)
    with open(store.root / ".start.lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
