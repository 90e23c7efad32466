"""A large file, written to the disk itself instead of into the system's cache of files.

What goes through the cache is copied into memory that the system has to find first, which keeps a core busy for as long
as the disk is, and pushes out what other programs read. A checkpoint is read at most once, and two cores are few. Where
the file system does not know direct writing, it is written as usual.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
from pathlib import Path
from types import TracebackType
from typing import Any

_ROOM = 8 << 20  # bytes written at a time
_BLOCK = 4096  # direct writes are of whole blocks, from memory that begins at one
_DIRECT = getattr(os, "O_DIRECT", 0)  # not on every system


class DirectFile:
    """The file ``path``, written anew from its beginning, for ``with``.

    OSError at its end where it could not be written: ``write`` itself never fails, because who writes an archive might
    try to end it properly first, and fail again, out of Python's reach.
    """

    def __init__(self, path: Path) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        try:
            self._descriptor = os.open(path, flags | _DIRECT, 0o644)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            self._descriptor = os.open(path, flags, 0o644)
        self._room = mmap.mmap(-1, _ROOM)  # begins at a page, so at a block
        self._filled = 0
        self._error: OSError | None = None

    def write(self, data: Any) -> int:
        """Take in the bytes of ``data``, any contiguous buffer; returns how many."""
        rest = memoryview(data).cast("B")
        n_bytes = len(rest)
        while rest:
            part = rest[: _ROOM - self._filled]
            self._room[self._filled : self._filled + len(part)] = part
            self._filled += len(part)
            rest = rest[len(part) :]
            if self._filled == _ROOM:
                self._put()
        return n_bytes

    def flush(self) -> None:
        """Nothing: what is written is whole at the end."""

    def __enter__(self) -> DirectFile:
        return self

    def __exit__(self, fault: type[BaseException] | None, value: object, trace: TracebackType | None) -> None:
        try:
            if fault is None:
                self._put()
                if self._error is not None:
                    raise self._error
                os.fsync(self._descriptor)
        finally:
            os.close(self._descriptor)

    def _put(self) -> None:
        """Write what is in the room."""
        try:
            with memoryview(self._room)[: self._filled] as whole:
                done = 0
                while self._error is None and done < len(whole):
                    with whole[done:] as rest:
                        done += self._written(rest)
        except OSError as error:
            self._error = error
        self._filled = 0

    def _written(self, rest: memoryview) -> int:
        if len(rest) % _BLOCK:
            self._use_the_cache()
        try:
            return os.write(self._descriptor, rest)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            self._use_the_cache()  # there are file systems that say so only now
            return os.write(self._descriptor, rest)

    def _use_the_cache(self) -> None:
        flags = fcntl.fcntl(self._descriptor, fcntl.F_GETFL)
        fcntl.fcntl(self._descriptor, fcntl.F_SETFL, flags & ~_DIRECT)
