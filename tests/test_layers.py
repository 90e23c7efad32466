"""The shape of the house: arrows point down only, and the light rooms stay light."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FLOORS = (
    {"home", "events", "config", "published", "locks"},
    {"step_rows"},
    {
        "parsing",
        "log",
        "schedule",
        "tokenizer",
        "device",
        "textfile",
        "export",
        "sample_words",
        "readback",
        "random_streams",
    }
    | {"out_of_memory", "direct_file"},
    {
        "text_statistics",
        "runs",
        "dataset",
        "model",
        "metrics",
        "distribution",
        "prompt",
        "cloze",
        "probing",
        "environment",
    },
    {"corpus", "launcher", "loss", "sampling", "checkpoint", "interop", "panels", "summary", "token_history"}
    | {"grid", "script"},
    {"figures", "published_order", "coach", "verdict", "beams", "inspection", "perplexity", "copying", "queue"}
    | {"estimate"},
    {"loaders"},
    {"state"},
    {"epoch_look", "acceleration", "saving"},
    {"training", "step_timing", "explain", "report"},
    {"prediction"},
    {"preflight", "worker"},
    {"fork", "lesson_run", "runner", "asking"},
    {"queue_commands"},
    {"__main__"},
)
FORBIDDEN = {
    "state": {"runs", "log", "launcher", "corpus"},
    "training": {"runs", "log", "launcher", "corpus", "figures", "preflight", "metrics"},
    "figures": {"model", "training", "runs"},
    "coach": {"model", "training", "runs"},
    "verdict": {"model", "training", "runs"},
    "launcher": {"corpus", "model"},
    "runs": {"corpus", "model", "dataset", "tokenizer"},
}
MODULES = sorted(path.stem for path in (ROOT / "gptlab").glob("*.py") if path.stem != "__init__")
LIGHT = ("gptlab", "gptlab.runs", "gptlab.launcher", "gptlab.events", "gptlab.config", "gptlab.parsing", "gptlab.log")
LIGHT += ("gptlab.queue", "gptlab.runner")


def imported(path: Path) -> set[str]:
    """Every module that a file imports anywhere, as ``gptlab.x`` or ``streamlit``, in type-checking blocks too."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name} uses a relative import"
            module = node.module or ""
            names.add(module)
            if module in ("gptlab", "pages", "pages.shared"):
                names |= {f"{module}.{alias.name}" for alias in node.names}
    return names


def floor(module: str) -> int:
    return next(number for number, floor in enumerate(FLOORS) if module in floor)


def test_every_module_has_a_floor() -> None:
    assert set(MODULES) == set().union(*FLOORS)


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_only_from_floors_below(module: str) -> None:
    inner = {
        name.split(".")[1]
        for name in imported(ROOT / "gptlab" / f"{module}.py")
        if name.startswith("gptlab.") and name.split(".")[1] in MODULES
    }
    assert {name for name in inner if floor(name) >= floor(module)} == set()
    assert inner & FORBIDDEN.get(module, set()) == set()


@pytest.mark.parametrize("module", [*MODULES, "__init__"])
def test_the_core_never_imports_streamlit(module: str) -> None:
    assert not {name for name in imported(ROOT / "gptlab" / f"{module}.py") if name.split(".")[0] == "streamlit"}


@pytest.mark.parametrize("page", [*sorted((ROOT / "pages").rglob("*.py")), ROOT / "dashboard.py"], ids=lambda p: p.name)
def test_pages_never_import_the_training_loop_or_the_worker(page: Path) -> None:
    assert imported(page) & {"gptlab.training", "gptlab.worker", "gptlab.train", "gptlab.__main__"} == set()


@pytest.mark.parametrize("page", sorted((ROOT / "pages" / "shared").glob("*.py")), ids=lambda p: p.name)
def test_shared_pieces_never_import_a_page(page: Path) -> None:
    assert {
        name for name in imported(page) if name.startswith("pages.") and not name.startswith("pages.shared")
    } == set()


@pytest.mark.parametrize("module", LIGHT)
def test_a_light_module_does_not_load_torch(module: str) -> None:
    code = f"import {module}, sys; print([n for n in ('torch', 'numpy', 'streamlit', 'tiktoken') if n in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_every_public_name_can_be_had() -> None:
    import gptlab

    assert {name for name in gptlab.__all__ if getattr(gptlab, name, None) is None} == set()
    assert set(gptlab.__all__) == set(gptlab._HOMES)
