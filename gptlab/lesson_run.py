"""The run that lessons speak of: ``tiny`` on the built-in story, trained once, at the first request."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator

from gptlab import launcher
from gptlab.config import PRESETS
from gptlab.corpus import BUILTIN, open_corpus
from gptlab.preflight import prepare
from gptlab.runs import LIVE, Run, RunStore

LESSON_RUN_NAME = "Lessons: the built-in story"
LESSON_TAG = "lesson"


def find_lesson_run(store: RunStore) -> Run | None:
    """The newest run with the lessons' tag and configuration that is trained, trains, or can go on; else None.

    A finished one comes before any other. People may rename it; what its tag and its configuration say is what counts.
    """
    usable = [run for run in store.list() if LESSON_TAG in run.about.tags and _is_lesson(run)]
    for wanted in (("finished",), LIVE, ("stopped", "interrupted")):
        for run in usable:
            if run.status() in wanted:
                return run
    return None


def lesson_run(store: RunStore) -> Run:
    """The lessons' run; trained from now on, in a process of its own, where none was or it had stopped.

    Two calls at once make one run. ValueError: it cannot be trained here, with what speaks against it.
    """
    with _one_at_a_time(store):
        run = find_lesson_run(store)
        if run is None:
            run = prepare(store, PRESETS["tiny"], name=LESSON_RUN_NAME)
            run.update_about(tags=(LESSON_TAG,))
            launcher.start(run)
        elif run.status() in ("stopped", "interrupted"):
            with contextlib.suppress(launcher.AlreadyRunning):
                launcher.resume(run)
    return run


def _is_lesson(run: Run) -> bool:
    """Whether a run was made from ``tiny`` and still has checkpoints, or may yet get some."""
    try:
        config = run.config
    except ValueError:
        return False
    wanted = PRESETS["tiny"].with_fields(data={"corpus": open_corpus(BUILTIN).reference})
    return config == wanted and (run.status() != "finished" or bool(run.checkpoints()))


@contextlib.contextmanager
def _one_at_a_time(store: RunStore) -> Iterator[None]:
    store.root.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(store.root / ".lesson.lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
