"""What a run was trained with: versions, machine, and the commit of a checkout. Kept in the run's folder."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from dataclasses import asdict, dataclass, fields
from importlib import metadata
from pathlib import Path

from gptlab.device import describe_machine
from gptlab.home import write_atomically

FILE = "environment.json"
_PROJECT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Environment:
    """Texts for people; empty: not known. ``commit`` ends in ``+`` where files differed from it."""

    gptlab: str = ""
    torch: str = ""
    python: str = ""
    machine: str = ""
    commit: str = ""


def describe_environment() -> Environment:
    """This process's own."""
    from gptlab import __version__

    try:
        torch = str(sys.modules["torch"].__version__) if "torch" in sys.modules else metadata.version("torch")
    except metadata.PackageNotFoundError:
        torch = ""
    return Environment(__version__, torch, platform.python_version(), describe_machine(), project_commit())


def project_commit(folder: Path = _PROJECT) -> str:
    """The commit of the checkout that ``folder`` is the root of; empty where it is none, or git is not here."""
    if not (folder / ".git").exists():
        return ""
    commit = _git(folder, "rev-parse", "HEAD")
    return commit + "+" if commit and _git(folder, "status", "--porcelain", "--untracked-files=no") else commit


def _git(folder: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def keep_environment(folder: Path) -> None:
    """Write this process's environment into a run's folder."""
    write_atomically(folder / FILE, json.dumps(asdict(describe_environment()), indent=2) + "\n")


def read_environment(folder: Path) -> Environment:
    """The environment that a run's last worker left; empty where none did, or the file is damaged."""
    try:
        raw = json.loads((folder / FILE).read_text(encoding="utf-8"))
        known = {item.name for item in fields(Environment)}
        return Environment(**{name: str(value) for name, value in raw.items() if name in known})
    except (OSError, ValueError, AttributeError, TypeError):
        return Environment()
