"""The texts that models read: the built-in story, The Verdict, files and uploads.

Every text lives by its SHA-256 in ``corpora/<sha256>/``: ``text.txt`` (UTF-8, without a byte-order mark, otherwise
exactly as given, line ends included), ``meta.json`` (its names), and beside them what was computed from it once:
``ids-<start>-<end>.npy`` (token ids of those characters) and ``stats.json``. The text never changes once it is
there; what was computed is recomputed when it is missing or damaged.
"""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import io
import json
import os
import shutil
import tempfile
import time
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from http.client import HTTPException
from importlib import resources
from pathlib import Path
from typing import NamedTuple

import numpy as np

from gptlab.home import corpora_folder, write_atomically
from gptlab.text_statistics import CorpusStatistics, FrequentToken, count_text
from gptlab.textfile import CorpusError, decode_text, display_name
from gptlab.tokenizer import END_OF_TEXT, Ids, encode_text

BUILTIN = "builtin"
THE_VERDICT = "the-verdict"
THE_VERDICT_SHA256 = "b41e41a68f0398a3154ae69e2e4c0e2694e17fe0d66730536837f1b01935b31f"
THE_VERDICT_URL = (
    "https://raw.githubusercontent.com/rasbt/LLMs-from-scratch/main/ch02/01_main-chapter-code/the-verdict.txt"
)
BY_HASH = "sha256:"
_KEPT_IDS = 8  # cached pieces of token ids per text: a slider over the split must not fill the disk
_SECONDS = 20.0  # the download's time limit for each answer

Progress = Callable[[float], None]


class CorpusPart(NamedTuple):
    """One of the texts that a corpus was joined from."""

    name: str
    characters: int


@dataclass(frozen=True)
class Corpus:
    """A text in the store. ``name`` and the parts' names are for people: they are never paths."""

    sha256: str
    name: str
    parts: tuple[CorpusPart, ...]
    folder: Path

    @property
    def reference(self) -> str:
        """How a run's configuration names this text."""
        return BY_HASH + self.sha256

    @property
    def characters(self) -> int:
        return sum(part.characters for part in self.parts) + len(END_OF_TEXT) * (len(self.parts) - 1)

    @cached_property
    def text(self) -> str:
        """The whole text, checked against its hash. Raises CorpusError when the store is damaged."""
        return _verified(self.folder).decode("utf-8")

    def token_ids(self, start: int = 0, end: int | None = None, progress: Progress | None = None) -> Ids:
        """Token ids of the characters ``start`` to ``end`` (as a slice), int32 ``[n]``, tokenised on their own."""
        start, end, _ = slice(start, end).indices(self.characters)
        path = self.folder / f"ids-{start}-{end}.npy"
        ids = _load_ids(path)
        if ids is None:
            ids = encode_text(self.text[start:end], progress)
            _cache(path, _npy(ids))
            _forget_oldest(self.folder)
        elif progress:
            progress(1.0)
        return ids

    def split_ids(self, train_ratio: float, progress: Progress | None = None) -> tuple[Ids, Ids]:
        """Token ids of the training part and of the validation part; the split is by characters."""
        cut = int(train_ratio * self.characters)
        train = self.token_ids(0, cut, progress and (lambda share: progress(share * train_ratio)))
        val = self.token_ids(cut, None, progress and (lambda share: progress(train_ratio + share * (1 - train_ratio))))
        return train, val

    def statistics(self, progress: Progress | None = None) -> CorpusStatistics:
        path = self.folder / "stats.json"
        try:
            raw = json.loads(path.read_text(encoding="utf-8"))
            frequent = tuple(FrequentToken(*entry) for entry in raw.pop("most_frequent"))
            statistics = CorpusStatistics(**raw, most_frequent=frequent)
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            ids = self.token_ids(progress=progress and (lambda share: progress(share * 0.9)))
            statistics = count_text(self.text, ids)
            _cache(path, json.dumps(asdict(statistics)))
        if progress:
            progress(1.0)
        return statistics


def open_corpus(source: str | Sequence[str], *, download: bool = True) -> Corpus:
    """The corpus that ``source`` names, kept in the store from now on.

    A source is ``builtin``, ``the-verdict``, ``sha256:<hex>`` or the path of a UTF-8 text file; several of them are
    joined, in that order, by ``<|endoftext|>``. Raises CorpusError, one sentence for each source that cannot be used.
    """
    sources = [source] if isinstance(source, str) else list(source)
    if not sources:
        raise CorpusError("No corpus is named: use builtin, the-verdict or the path of a text file.")
    opened, faults = [], []
    for name in sources:
        try:
            opened.append(_open_one(name, download))
        except CorpusError as fault:
            faults.append(str(fault))
    if faults:
        raise CorpusError("\n".join(faults))
    if len(opened) == 1:
        return opened[0]
    parts = tuple(part for corpus in opened for part in corpus.parts)
    return _store(END_OF_TEXT.join(corpus.text for corpus in opened).encode("utf-8"), parts)


def add_corpus(name: str, data: bytes | str) -> Corpus:
    """Keep an upload: ``data`` is checked and stored by its hash; ``name`` is only ever shown."""
    name = display_name(name)
    text = decode_text(data if isinstance(data, bytes) else data.encode("utf-8", "surrogatepass"), name)
    return _store(text.encode("utf-8"), (CorpusPart(name, len(text)),))


def known_corpora() -> list[Corpus]:
    """The built-in story, then every readable text in the store, The Verdict first and then the newest."""
    builtin = open_corpus(BUILTIN)
    found = []
    for folder in corpora_folder().iterdir():
        if _is_sha256(folder.name) and folder.name != builtin.sha256 and (folder / "text.txt").is_file():
            try:
                found.append((_added(folder), _read(folder)))
            except CorpusError:
                continue
    found.sort(key=lambda entry: (entry[1].sha256 == THE_VERDICT_SHA256, entry[0]), reverse=True)
    return [builtin, *(corpus for _, corpus in found)]


# --- the sources ---


def _open_one(source: str, download: bool) -> Corpus:
    if source == BUILTIN:
        raw = (resources.files("gptlab") / "story.txt").read_bytes()
        title = raw.partition(b"\n")[0].decode("utf-8")
        return _store(raw, (CorpusPart(f"Built-in story: {title}", len(raw.decode("utf-8"))),), rename=True)
    if source == THE_VERDICT:
        raw = _the_verdict(download)
        return _store(raw, (CorpusPart("The Verdict", len(raw.decode("utf-8"))),), rename=True)
    if source.startswith(BY_HASH):
        sha256 = source.removeprefix(BY_HASH).lower()
        folder = corpora_folder() / sha256
        if not _is_sha256(sha256) or not (folder / "text.txt").is_file():
            raise CorpusError(
                f"No text with {BY_HASH}{display_name(sha256)} is kept in {corpora_folder()}: "
                "add the original file again, or choose another corpus."
            )
        return _read(folder)
    return _open_file(source)


def _open_file(source: str) -> Corpus:
    shown = display_name(source)
    try:
        path = Path(source).expanduser()
        if path.is_dir():
            raise CorpusError(f"{shown} is a folder: give the path of a text file in it.")
        if not path.exists():
            near = difflib.get_close_matches(source.lower(), [BUILTIN, THE_VERDICT], n=1, cutoff=0.5)
            meant = f"did you mean {near[0]}? Otherwise use" if near else "use"
            raise CorpusError(
                f"There is no corpus and no file {shown}: {meant} {BUILTIN}, {THE_VERDICT} or the path of a text file."
            )
        if not path.is_file():
            raise CorpusError(f"{shown} is not an ordinary file: give the path of a text file.")
        raw = path.read_bytes()
    except CorpusError:
        raise
    except (OSError, ValueError, RuntimeError) as error:  # unreadable, a NUL in the path, no such home folder
        reason = (isinstance(error, OSError) and error.strerror) or str(error)
        raise CorpusError(f"{shown} cannot be read ({reason}): check its name and permissions.") from error
    return add_corpus(path.name, raw)


def _the_verdict(download: bool) -> bytes:
    kept = corpora_folder() / THE_VERDICT_SHA256
    if (kept / "text.txt").is_file():
        try:
            return _verified(kept)
        except CorpusError:
            pass  # damaged: fetch it again, storing it repairs it
    instead = f"the built-in story ({BUILTIN}) works with no network"
    given = os.environ.get("GPTLAB_CORPORA", "").strip()
    if given and (path := Path(given).expanduser() / f"{THE_VERDICT}.txt").is_file():
        raw, origin = path.read_bytes(), str(path)
    elif not download:
        raise CorpusError(f"The Verdict is not on this machine yet: choose it again to download it; {instead}.")
    else:
        origin = "what was downloaded"
        try:
            with urllib.request.urlopen(THE_VERDICT_URL, timeout=_SECONDS) as answer:
                raw = answer.read(1 << 20)
        except (OSError, HTTPException, ValueError) as error:
            reason = display_name(str(getattr(error, "reason", None) or error or type(error).__name__))
            raise CorpusError(
                f"The Verdict could not be downloaded ({reason}): try again with a network, or put {THE_VERDICT}.txt "
                f"into a folder named by GPTLAB_CORPORA; {instead}."
            ) from error
    if hashlib.sha256(raw).hexdigest() != THE_VERDICT_SHA256:
        raise CorpusError(
            f"The Verdict: {origin} is not the published text (its SHA-256 differs): "
            f"nothing was kept; get the original again; {instead}."
        )
    return raw


# --- the store ---


def _store(raw: bytes, parts: tuple[CorpusPart, ...], rename: bool = False) -> Corpus:
    """Put a text into the store; if it is there already it keeps its names, unless ``rename``."""
    folder = corpora_folder() / hashlib.sha256(raw).hexdigest()
    meta = json.dumps({"parts": parts, "added": time.time()})
    try:
        if not folder.is_dir():
            _place(folder, raw, meta)
        try:
            _verified(folder)
        except CorpusError:
            write_atomically(folder / "text.txt", raw)
            for computed in (*folder.glob("ids-*.npy"), folder / "stats.json"):
                computed.unlink(missing_ok=True)
        corpus = _read(folder)
        if rename and corpus.parts != parts:
            write_atomically(folder / "meta.json", meta)
            corpus = _read(folder)
    except OSError as error:
        raise CorpusError(
            f"The text ({len(raw):,} bytes) cannot be kept in {corpora_folder()} ({error.strerror}): "
            "free some disk space there, or name another data folder with GPTLAB_HOME."
        ) from error
    return corpus


def _place(folder: Path, raw: bytes, meta: str) -> None:
    """Make ``folder`` appear with both files in it, unless somebody else is faster with the same text."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=".adding-", dir=folder.parent))
    try:
        write_atomically(temporary / "meta.json", meta)
        write_atomically(temporary / "text.txt", raw)
        temporary.rename(folder)
    except OSError:
        if not folder.is_dir():
            raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _read(folder: Path) -> Corpus:
    """The stored text in ``folder``; names that cannot be read are replaced by its hash."""
    try:
        raw = json.loads((folder / "meta.json").read_text(encoding="utf-8"))["parts"]
        parts = tuple(CorpusPart(str(name), int(characters)) for name, characters in raw)
        if not parts:
            raise ValueError
    except (OSError, ValueError, TypeError, KeyError):
        parts = (CorpusPart(f"text {folder.name[:12]}", len(_verified(folder).decode("utf-8"))),)
    return Corpus(folder.name, display_name(" + ".join(part.name for part in parts)), parts, folder)


def _added(folder: Path) -> float:
    try:
        return float(json.loads((folder / "meta.json").read_text(encoding="utf-8"))["added"])
    except (OSError, ValueError, TypeError, KeyError):
        return 0.0


def _verified(folder: Path) -> bytes:
    try:
        raw = (folder / "text.txt").read_bytes()
    except OSError as error:
        raise CorpusError(
            f"The stored text {folder} cannot be read ({error.strerror}): add the original file again."
        ) from error
    if hashlib.sha256(raw).hexdigest() != folder.name:
        raise CorpusError(f"The stored text {folder} is damaged: add the original file again to repair it.")
    return raw


def _is_sha256(name: str) -> bool:
    return len(name) == 64 and set(name) <= set("0123456789abcdef")


def _npy(ids: Ids) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, ids, allow_pickle=False)
    return buffer.getvalue()


def _load_ids(path: Path) -> Ids | None:
    """Cached token ids, or None when they are missing, torn or not token ids at all."""
    try:
        ids = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    whole = isinstance(ids, np.ndarray) and ids.dtype == np.int32 and ids.ndim == 1
    if not whole or (len(ids) and not (ids.min() >= 0 and ids.max() <= 50256)):
        return None
    with contextlib.suppress(OSError):
        os.utime(path)  # the least recently used are forgotten first
    return ids


def _cache(path: Path, data: bytes | str) -> None:
    with contextlib.suppress(OSError):  # a full or read-only disk: it is computed again next time
        write_atomically(path, data)


def _forget_oldest(folder: Path) -> None:
    with contextlib.suppress(OSError):  # another process may be doing the same
        cached = sorted(folder.glob("ids-*.npy"), key=lambda path: path.stat().st_mtime, reverse=True)
        for path in cached[_KEPT_IDS:]:
            path.unlink(missing_ok=True)
