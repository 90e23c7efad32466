"""Where what is compiled is kept, and for which vectors it is compiled."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch._inductor import config, cpp_builder, cpu_vec_isa
from torch._inductor.runtime.cache_dir_utils import cache_dir, default_cache_dir

from gptlab.fast.compiling import CACHE_VARIABLE, compiler


def compile_something(times: float) -> None:
    x = torch.arange(5000.0)
    assert torch.equal(torch.compile(lambda x: x * times + 1, fullgraph=True)(x), x * times + 1)


def programs(folder: Path) -> list[Path]:
    return list(folder.rglob("*.main.so"))


def test_what_is_compiled_is_kept_in_the_data_folder(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(CACHE_VARIABLE)
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    chosen = cache_dir()  # as importing an optimiser does: from now on the variable has PyTorch's own choice
    assert os.environ[CACHE_VARIABLE] == chosen == default_cache_dir()
    with compiler(2):
        compile_something(3)
    assert programs(home / "cache" / "compiled")
    assert not programs(Path(chosen))
    assert os.environ[CACHE_VARIABLE] == chosen


def test_a_folder_that_a_person_named_stays(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "named"))
    with compiler():
        compile_something(5)
    assert programs(tmp_path / "named")
    assert not (home / "cache").exists()


@pytest.fixture
def vectors_found_anew() -> Iterator[None]:
    cpu_vec_isa.valid_vec_isa_list.cache_clear()
    yield
    cpu_vec_isa.valid_vec_isa_list.cache_clear()


@pytest.mark.usefixtures("vectors_found_anew")
def test_vectors_are_those_that_pytorch_finds_by_trying() -> None:
    with compiler():
        ours = cpu_vec_isa.pick_vec_isa()
    cpu_vec_isa.valid_vec_isa_list.cache_clear()
    assert str(ours) == str(cpu_vec_isa.pick_vec_isa())


@pytest.mark.usefixtures("vectors_found_anew")
def test_vectors_that_the_compiler_does_not_know_are_left_to_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpp_builder, "get_cpp_compiler", lambda: "false")
    with compiler():
        assert config.cpp.vec_isa_ok is None
        assert cpu_vec_isa.valid_vec_isa_list.cache_info().currsize == 0
