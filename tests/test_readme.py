"""What the README says is true: its Python runs, its commands parse, its files and pictures are there."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from gptlab.__main__ import _parser

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)


def test_the_python_runs() -> None:
    (code,) = blocks("python")
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=dict(os.environ), capture_output=True, text=True, timeout=300
    )
    assert result.returncode == 0, result.stderr
    assert "Ended(" in result.stdout
    assert result.stdout.splitlines()[-1].startswith("The river")


@pytest.mark.parametrize("line", re.findall(r"^python -m gptlab [^#\n]*", README, flags=re.MULTILINE))
def test_every_command_is_one_that_exists(line: str) -> None:
    _parser().parse_args(shlex.split(line)[3:])


def test_the_two_commands_are_those_of_the_project() -> None:
    assert blocks("sh")[:2] == [
        "pip install -r requirements.txt && streamlit run dashboard.py\n",
        "pip install -r requirements-dev.txt && pytest\n",
    ]
    assert (ROOT / "requirements-dev.txt").read_text().startswith("-r requirements.txt\n")
    assert "\npytest\n" in (ROOT / ".ci" / "run").read_text()


@pytest.mark.parametrize("picture", re.findall(r"!\[[^\]]+\]\(([^)]+)\)", README))
def test_every_picture_is_there(picture: str) -> None:
    assert (ROOT / picture).read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


@pytest.mark.parametrize("name", re.findall(r"^  (?:.* )?(\w+\.py) ", README, flags=re.MULTILINE))
def test_every_module_of_the_tree_is_there(name: str) -> None:
    assert (ROOT / "gptlab" / name).is_file()
