"""The process that works off the queue of one device: one run after another, until none waits.

Started by ``Queue.start_runners`` as ``python -m gptlab.runner QUEUE_FOLDER DEVICE [RUNS_FOLDER]``; ``python -m gptlab
queue run`` does the same in its own process. Each run trains in a worker of its own: a runner that dies takes none
with it, and the next one goes on where it was.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from gptlab import launcher
from gptlab.locks import hold, sign
from gptlab.queue import Entry, Queue
from gptlab.runs import Run, RunStore, live_runs

LOOK = 0.5  # seconds between two looks at the run under way
MOST_STARTS = 3  # of one entry: a run that takes the machine down with it is not tried for ever
REFUSED = "refused"


def work(queue: Queue, store: RunStore, device: str, lock: int, look: float = LOOK) -> Iterator[Entry]:
    """See to every entry of ``device``, holding ``lock``; yield each when it begins and when it is over.

    Ends, and lets go of the lock, when nothing waits or the queue is paused.
    """
    while (entry := queue.take(device, lock)) is not None:
        if entry.waits:
            if not _wait_until_free(queue, store, entry, look):
                continue
            begun = _begin(queue, store, entry)
        else:
            begun = _go_on(queue, store, entry)
        yield begun
        if not begun.is_over:
            yield _watch(queue, store, begun, look)


def _wait_until_free(queue: Queue, store: RunStore, entry: Entry, look: float) -> bool:
    """True: nothing else trains on the device. Else wait for what does, or for a change of the queue: look again."""
    others = [run for run in live_runs(store) if run.log().device in (entry.device, None)]
    while any(run.is_locked() for run in others):
        time.sleep(look)
        state = queue.read()
        if state.paused or state.open_on(entry.device)[:1] != [entry]:
            break
    return not others


def _begin(queue: Queue, store: RunStore, entry: Entry) -> Entry:
    from gptlab.preflight import prepare

    try:
        run = prepare(store, entry.parsed(), name=entry.name)
        run.update_about(tags=entry.tags)
        begun = queue.update(entry.id, run=run.id, starts=1)
        if begun is None:  # taken out a moment ago
            store.delete(run.id)
            return replace(entry, outcome="removed")
        launcher.start(run)
    except (ValueError, OSError) as error:
        return _over(queue, entry, REFUSED, str(error))
    return begun


def _go_on(queue: Queue, store: RunStore, entry: Entry) -> Entry:
    """An entry that an earlier runner began: watch its run, resume it, or say why it is over."""
    run = Run(store.root / entry.run)
    if run.is_locked():
        return entry
    status = run.status() if run.path.is_dir() else "deleted"
    if status != "interrupted":
        return _ended(queue, entry, run, status)
    if entry.starts >= MOST_STARTS:
        return _over(queue, entry, "interrupted", f"Its process ended {entry.starts} times without a word.")
    entry = queue.update(entry.id, starts=entry.starts + 1) or entry
    try:
        launcher.resume(run)
    except (ValueError, OSError) as error:
        return _over(queue, entry, REFUSED, str(error))
    return entry


def _watch(queue: Queue, store: RunStore, entry: Entry, look: float) -> Entry:
    run = Run(store.root / entry.run)
    while run.is_locked():
        time.sleep(look)
    return _ended(queue, entry, run, run.status() if run.path.is_dir() else "deleted")


def _ended(queue: Queue, entry: Entry, run: Run, status: str) -> Entry:
    """Write down how the run ended, in its own words where it left any."""
    ended = run.log().ended
    said = {
        "interrupted": "Its process ended without a word: worker.log of the run may tell why.",
        "deleted": "Its run was deleted.",
    }
    return _over(queue, entry, status, said.get(status) or (ended.message if ended else ""))


def _over(queue: Queue, entry: Entry, outcome: str, message: str) -> Entry:
    over = queue.update(entry.id, outcome=outcome, message=message)
    return over or replace(entry, outcome=outcome, message=message)


def run_in_this_process(queue: Queue, store: RunStore, device: str, told: Callable[[Entry], None]) -> None:
    """Work off the queue of ``device`` here, telling each entry. ValueError: another runner does."""
    handed = launcher.inherited_lock()
    lock = hold(queue.runner_lock(device)) if handed is None else handed
    if lock is None:
        raise ValueError(f"The queue of {device} has a runner already.")
    sign(lock, os.getpid())
    for entry in work(queue, store, device, lock):
        told(entry)


def tell(entry: Entry) -> None:
    """One line for a log or a terminal."""
    state = entry.outcome or "training"
    words = " ".join(entry.message.split())
    print(f"{time.strftime('%H:%M:%S')}  {state:<11}  {entry.name or entry.run}  {words}".rstrip(), flush=True)


def main() -> int:
    """Work off one device's queue."""
    folder, device, *runs = sys.argv[1:]
    run_in_this_process(Queue(folder), RunStore(Path(runs[0]) if runs else None), device, tell)
    return 0


if __name__ == "__main__":
    sys.exit(main())
