"""A large file, written to the disk itself instead of into the system's cache of files.

What goes through the cache is copied into memory that the system has to find first, which keeps a core busy for as long
as the disk is, and pushes out what other programs read. Most checkpoints are never read, and two cores are few. Where
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
_UNKNOWN = (errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP)  # what a file system says that does not know it


class DirectFile:
    """The file ``path``, written anew from its beginning, for ``with``.

    At its end it raises what kept it from being written: OSError, or an interruption. ``write`` itself never fails,
    because who writes an archive might try to end it properly first, and fail again, with an error of its own.
    """

    def __init__(self, path: Path) -> None:
        self._room = mmap.mmap(-1, _ROOM)  # begins at a page, so at a block
        self._filled = 0
        self._fault: BaseException | None = None
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        try:
            self._descriptor = os.open(path, flags | _DIRECT, 0o666)
        except OSError as error:
            if error.errno not in _UNKNOWN:
                raise
            self._descriptor = os.open(path, flags, 0o666)

    def write(self, data: Any) -> int:
        """Take in the bytes of ``data``, any contiguous buffer; returns how many."""
        whole = memoryview(data).cast("B")
        try:
            self._take(whole)
        except BaseException as fault:  # an interruption too: see above
            self._fault = self._fault or fault
        return len(whole)

    def flush(self) -> None:
        """Nothing: what is written is whole at the end."""

    def __enter__(self) -> DirectFile:
        return self

    def __exit__(self, fault: type[BaseException] | None, value: object, trace: TracebackType | None) -> None:
        try:
            if fault is None and self._fault is None:
                self._put()
                os.fsync(self._descriptor)
        finally:
            os.close(self._descriptor)
        if self._fault is not None and (fault is None or not isinstance(self._fault, OSError)):
            raise self._fault

    def _take(self, rest: memoryview) -> None:
        while rest and self._fault is None:
            part = rest[: _ROOM - self._filled]
            self._room[self._filled : self._filled + len(part)] = part
            self._filled += len(part)
            rest = rest[len(part) :]
            if self._filled == _ROOM:
                self._put()

    def _put(self) -> None:
        """Write what is in the room."""
        with memoryview(self._room)[: self._filled] as whole:
            done = 0
            while done < len(whole):
                with whole[done:] as rest:
                    done += self._written(rest)
        self._filled = 0

    def _written(self, rest: memoryview) -> int:
        if len(rest) % _BLOCK:
            self._use_the_cache()
        try:
            return os.write(self._descriptor, rest)
        except OSError as error:
            if error.errno not in _UNKNOWN:
                raise
            self._use_the_cache()  # there are file systems that say so only now
            return os.write(self._descriptor, rest)

    def _use_the_cache(self) -> None:
        flags = fcntl.fcntl(self._descriptor, fcntl.F_GETFL)
        fcntl.fcntl(self._descriptor, fcntl.F_SETFL, flags & ~_DIRECT)
