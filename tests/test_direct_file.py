"""Files written past the system's cache: the same bytes, whatever the file system allows."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

import pytest
import torch

from gptlab import direct_file
from gptlab.direct_file import DirectFile

BLOCK = 4096
direct = pytest.mark.skipif(not direct_file._DIRECT, reason="this system knows no direct writing")


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(direct_file, "_ROOM", 4 * BLOCK)
    return tmp_path / "file"


def some_bytes(n: int) -> bytes:
    return bytes(torch.randint(256, (n,), dtype=torch.uint8, generator=torch.Generator().manual_seed(n)).numpy())


def put(path: Path, data: bytes, piece: int) -> None:
    with DirectFile(path) as file:
        for start in range(0, len(data), piece):
            assert file.write(data[start : start + piece]) == len(data[start : start + piece])


@pytest.mark.parametrize("size", [0, 1, BLOCK, 4 * BLOCK - 1, 4 * BLOCK, 4 * BLOCK + 1, 9 * BLOCK, 50_001])
@pytest.mark.parametrize("piece", [7_000, 1_000_000])
def test_the_bytes_are_in_the_file(path: Path, size: int, piece: int) -> None:
    path.write_bytes(b"what was there before" * 10_000)
    put(path, some_bytes(size), piece)
    assert path.read_bytes() == some_bytes(size)


@direct
def test_whole_blocks_go_past_the_cache_and_the_rest_through_it(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[object] = []
    opened, written = os.open, os.write

    def watched_open(name: Path, flags: int, mode: int) -> int:
        done.append("direct" if flags & os.O_DIRECT else "usual")
        return opened(name, flags & ~os.O_DIRECT, mode)  # where this test runs there may be no such way

    def watched_write(descriptor: int, data: memoryview) -> int:
        done.append(len(data))
        return written(descriptor, data)

    monkeypatch.setattr(os, "open", watched_open)
    monkeypatch.setattr(os, "write", watched_write)
    monkeypatch.setattr(DirectFile, "_use_the_cache", lambda file: done.append("usual"))
    put(path, some_bytes(8 * BLOCK + 10), 1_000_000)
    assert done == ["direct", 4 * BLOCK, 4 * BLOCK, "usual", 10]


@direct
@pytest.mark.parametrize("when", ["open", "write"])
@pytest.mark.parametrize("number", [errno.EINVAL, errno.EOPNOTSUPP])
def test_a_file_system_that_knows_no_direct_writing_is_written_as_usual(
    path: Path, monkeypatch: pytest.MonkeyPatch, when: str, number: int
) -> None:
    refused: list[str] = []
    opened, written, flag_of = os.open, os.write, fcntl.fcntl
    is_direct = False

    def strict_open(name: Path, flags: int, mode: int = 0o777) -> int:
        nonlocal is_direct
        is_direct = bool(flags & os.O_DIRECT)
        if when == "open" and is_direct:
            refused.append("open")
            raise OSError(number, "not here")
        return opened(name, flags & ~os.O_DIRECT, mode)

    def strict_write(descriptor: int, data: memoryview) -> int:
        if is_direct:
            refused.append("write")
            raise OSError(number, "not here")
        return written(descriptor, data)

    def watched_flags(descriptor: int, command: int, value: int = 0) -> int:
        nonlocal is_direct
        is_direct = is_direct and not (command == fcntl.F_SETFL and not value & os.O_DIRECT)
        return flag_of(descriptor, command, value)

    monkeypatch.setattr(os, "open", strict_open)
    monkeypatch.setattr(os, "write", strict_write)
    monkeypatch.setattr(fcntl, "fcntl", watched_flags)
    put(path, some_bytes(50_001), 7_000)
    assert path.read_bytes() == some_bytes(50_001)
    assert refused == [when]


def test_a_file_is_on_the_disk_before_it_is_closed(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    sync, close = os.fsync, os.close
    monkeypatch.setattr(os, "fsync", lambda descriptor: (done.append("sync"), sync(descriptor)))
    monkeypatch.setattr(os, "close", lambda descriptor: (done.append("close"), close(descriptor)))
    put(path, some_bytes(50_001), 7_000)
    assert done == ["sync", "close"]


@pytest.mark.parametrize("most", [BLOCK, 1_000])
def test_what_a_write_did_not_take_is_written_next(path: Path, monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:most]))
    put(path, some_bytes(50_001), 7_000)
    assert path.read_bytes() == some_bytes(50_001)


def _full_after(n_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    write, taken = os.write, 0

    def limited(descriptor: int, data: memoryview) -> int:
        nonlocal taken
        if taken >= n_bytes:
            raise OSError(errno.ENOSPC, "No space left on device")
        taken += len(data)
        return write(descriptor, data)

    monkeypatch.setattr(os, "write", limited)


@pytest.mark.parametrize("n_bytes", [0, 20_000, 49_000])
def test_a_full_disk_is_told_at_the_end(path: Path, monkeypatch: pytest.MonkeyPatch, n_bytes: int) -> None:
    _full_after(n_bytes, monkeypatch)
    with pytest.raises(OSError, match="No space left"):
        put(path, some_bytes(50_001), 10_000)


def test_an_archive_of_tensors_comes_back_or_its_fault_does(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tensors = {"a": torch.randn(5_000), "b": torch.arange(7), "step": 3}
    with DirectFile(path) as file:
        torch.save(tensors, file)  # type: ignore[arg-type]
    loaded = torch.load(path, weights_only=True)
    assert torch.equal(loaded["a"], tensors["a"])  # type: ignore[arg-type]
    assert loaded["step"] == 3
    _full_after(8_000, monkeypatch)
    with pytest.raises(OSError, match="No space left"), DirectFile(path) as file:
        torch.save(tensors, file)  # type: ignore[arg-type]


@pytest.mark.parametrize("number", [1, 2, 3])
def test_an_interruption_while_an_archive_is_written_is_one(
    path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    write, calls = os.write, 0

    def interrupted(descriptor: int, data: memoryview) -> int:
        nonlocal calls
        calls += 1
        if calls == number:
            raise KeyboardInterrupt
        return write(descriptor, data)

    monkeypatch.setattr(os, "write", interrupted)

    def save() -> None:
        with DirectFile(path) as file:
            torch.save({"a": torch.randn(10_000)}, file)  # type: ignore[arg-type]

    with pytest.raises(KeyboardInterrupt):
        save()


def test_a_fault_of_the_writer_is_not_hidden_by_one_of_the_disk(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _full_after(0, monkeypatch)
    closed, close = [], os.close
    monkeypatch.setattr(os, "close", lambda descriptor: (closed.append(descriptor), close(descriptor)))

    def fails() -> None:
        with DirectFile(path) as file:
            file.write(some_bytes(50_001))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fails()
    assert len(closed) == 1
