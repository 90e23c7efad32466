"""The data folder: where it is, and how a file is put into it whole or not at all.

``$GPTLAB_HOME`` names it; without that variable it is ``~/.gptlab``. It holds ``runs/``, ``corpora/``, ``cache/``
and ``draft.json``. The dashboard, the command line, the worker and the tests all ask here.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path


def data_home() -> Path:
    """The data folder (absolute; not created here)."""
    named = os.environ.get("GPTLAB_HOME", "").strip()
    return Path(named).expanduser().absolute() if named else Path.home() / ".gptlab"


def runs_folder() -> Path:
    return data_home() / "runs"


def corpora_folder() -> Path:
    return data_home() / "corpora"


def cache_folder() -> Path:
    return data_home() / "cache"


def write_atomically(path: Path, data: bytes | str) -> None:
    """Put ``data`` (text as UTF-8) at ``path``: a reader, or a crash, sees the old file or the new one, never half."""
    raw = data.encode("utf-8") if isinstance(data, str) else data
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name[:40]}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(raw)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def free_bytes(path: Path) -> int:
    """Free bytes on the file system that ``path``, or its nearest existing parent, is on."""
    path = path.absolute()
    while not path.exists() and path != path.parent:
        path = path.parent
    return shutil.disk_usage(path).free
