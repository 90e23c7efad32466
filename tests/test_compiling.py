"""Where what is compiled is kept, and for which vectors it is compiled."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch._inductor import config, cpp_builder
from torch._inductor.runtime.cache_dir_utils import cache_dir, default_cache_dir

from gptlab.fast.compiling import CACHE_VARIABLE, compiler

ROOT = Path(__file__).parent.parent


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


def test_kernels_for_another_processor_lie_elsewhere(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(CACHE_VARIABLE)
    folders = []
    for capability in ("avx2", "default", "avx2"):
        monkeypatch.setenv("ATEN_CPU_CAPABILITY", capability)
        with compiler():
            folders.append(os.environ[CACHE_VARIABLE])
    assert folders[0] == folders[2] != folders[1]
    assert all(Path(folder).parent == home / "cache" / "compiled" for folder in folders)


def picked(around: str) -> str:
    """The vectors that a process of its own would compile for."""
    code = f"{around}\n    from torch._inductor import cpu_vec_isa\n    print(cpu_vec_isa.pick_vec_isa())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    return done.stdout


def test_vectors_are_those_that_pytorch_finds_by_trying() -> None:
    ours = picked("from gptlab.fast.compiling import compiler\nwith compiler(2):")
    assert ours.strip()
    assert ours == picked("if True:")


def test_vectors_that_the_compiler_does_not_know_are_left_to_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpp_builder, "get_cpp_compiler", lambda: "false")
    with compiler(2):
        assert config.cpp.vec_isa_ok is None


def test_a_gpu_needs_no_cpp_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> str:
        raise RuntimeError("there is none")

    monkeypatch.setattr(cpp_builder, "get_cpp_compiler", none)
    with compiler():
        assert config.compile_threads == 1


@pytest.mark.parametrize(("cores", "free", "expected"), [(2, 10**10, 2), (64, 10**11, 8), (4, 9 * 10**8, 2), (4, 0, 1)])
def test_compilers_work_side_by_side_as_far_as_cores_and_memory_go(
    monkeypatch: pytest.MonkeyPatch, cores: int, free: int, expected: int
) -> None:
    monkeypatch.setattr("gptlab.device.free_memory", lambda: free)
    with compiler(cores):
        assert config.compile_threads == expected
