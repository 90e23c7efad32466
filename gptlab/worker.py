"""The process that trains one run: it wires the run's folder to ``train()`` and writes down what happens.

Started by the launcher as ``python -m gptlab.worker RUN_FOLDER``; the command line calls ``work`` in its own process.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

from gptlab.events import Ended, Event, Phase, Saved, Warned, encode
from gptlab.launcher import inherited_or_taken_lock
from gptlab.locks import sign
from gptlab.runs import Run

RESERVED_BYTES = 1 << 20  # some thousands of events


class _Recorder:
    """Appends events, and keeps those that a full disk refuses until they fit.

    A small file in the run's folder is given up when the run ends on a disk that is still full, so that the log says
    how it ended.
    """

    def __init__(self, run: Run) -> None:
        self.run = run
        self.waiting: list[Event] = []
        self.reserve = run.path / ".reserve"
        with contextlib.suppress(OSError):
            self.reserve.write_bytes(bytes(RESERVED_BYTES))

    def record(self, event: Event) -> None:
        self.waiting.append(event)
        if self._write() or not isinstance(event, Ended):
            return
        self.give_up_reserve()
        if sum(len(encode(kept).encode()) + 1 for kept in self.waiting) > RESERVED_BYTES // 2:
            self.waiting = [event]  # the rows of steps that cannot be kept are lost, but not the reason
        self._write()

    def give_up_reserve(self) -> None:
        with contextlib.suppress(OSError):
            self.reserve.unlink(missing_ok=True)

    def _write(self) -> bool:
        """Append what waits, in its order. False: the disk refuses."""
        while self.waiting:
            try:
                self.run.append(self.waiting[0])
            except OSError as error:
                _print(f"events.jsonl cannot be written: {error}")
                return False
            self.waiting.pop(0)
        return True


def facts(run: Run, requests: Callable[[], str | None]) -> Iterator[Event]:
    """What happens while ``run`` is trained from where it stands, each fact as it happens.

    Faults end the run as ``failed`` with a sentence; the traceback goes to stderr, which is ``worker.log``.
    """
    step = run.log().steps_completed
    last = max(step - 1, 0)
    try:
        yield Phase(phase="loading", step=last)
        from gptlab.corpus import open_corpus
        from gptlab.environment import keep_environment
        from gptlab.training import train

        with contextlib.suppress(OSError):  # a full disk must not end the training
            keep_environment(run.path)
        config = run.config
        parts = open_corpus(config.data.corpus).split_ids(config.data.train_ratio)
        resumable = [kept for kept in run.checkpoints() if kept.resumable]
        again = run.log().started is not None
        for event in train(
            config,
            parts,
            run=run.id,
            checkpoints=run.path / "checkpoints",
            resume_from=resumable[-1].path if resumable else None,
            restarted=again,
            initial=run.initial_weights,
            requests=requests,
        ):
            if not isinstance(event, Saved):  # which, written beside the training, tells of an earlier step
                last = event.step
            yield event
    except ValueError as error:
        _print(traceback.format_exc())
        yield Ended(reason="failed", message=str(error), step=last)
    except Exception as error:
        _print(traceback.format_exc())
        yield Ended(reason="failed", message=f"{type(error).__name__}: {error}. worker.log tells more.", step=last)


def work(run: Run, lock: int) -> Iterator[Event]:
    """Train ``run``, holding ``lock``, and yield each event once it is written down. SIGTERM stops and keeps."""
    os.register_at_fork(after_in_child=lambda: _close_quietly(lock))  # a loader process must not outlive us as holder
    sign(lock, os.getpid())
    terminated = False

    def on_terminate(_signal: int, _frame: FrameType | None) -> None:
        nonlocal terminated
        terminated = True

    def requests() -> str | None:
        return "stop" if terminated else run.take_request()

    before = signal.signal(signal.SIGTERM, on_terminate)
    recorder = _Recorder(run)
    try:
        for event in facts(run, requests):
            recorder.record(event)
            yield event
        if recorder.waiting:
            recorder.record(Warned(message="The disk was full: some events were written late.", step=0))
    finally:
        recorder.give_up_reserve()
        signal.signal(signal.SIGTERM, before)


def _print(text: str) -> None:
    """Say it in worker.log, or not at all: that file is on the same disk, and a full one must not end the training."""
    with contextlib.suppress(OSError):
        print(text, file=sys.stderr, flush=True)


def _close_quietly(descriptor: int) -> None:
    with contextlib.suppress(OSError):
        os.close(descriptor)


def main() -> int:
    """Train the run whose folder is the only argument, to its end. The exit code is 1 where it failed."""
    run = Run(Path(sys.argv[1]))
    lock = inherited_or_taken_lock(run)
    failed = False
    for event in work(run, lock):
        failed = isinstance(event, Ended) and event.reason == "failed"
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
