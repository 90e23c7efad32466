"""Locks that outlive whoever took them: the kernel frees one when the last process that holds it is gone.

A lock is a file. Holding its descriptor is holding the lock; the descriptor can be handed to another process.
"""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path


def is_held(path: Path) -> bool:
    """Whether some process holds the lock at ``path`` now."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


def hold(path: Path, patience: float = 1.0) -> int | None:
    """The descriptor of the lock at ``path``, held; None where somebody keeps it for ``patience`` seconds.

    A moment of patience is needed even for a free lock: who asks ``is_held`` holds it for an instant.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    give_up = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return descriptor
        except OSError:
            if time.monotonic() >= give_up:
                os.close(descriptor)
                return None
            time.sleep(0.02)


def sign(descriptor: int, pid: int) -> None:
    """Write into a held lock's file which process holds it, for people and for who wants to end it."""
    os.truncate(descriptor, 0)
    os.pwrite(descriptor, str(pid).encode(), 0)
