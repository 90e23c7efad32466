"""What every test shares: a data folder of its own, and The Verdict where it can be had."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from gptlab.launcher import missing_waiting

os.environ.update(missing_waiting(os.environ))  # before torch is loaded
# What is compiled once serves all tests, which have a data folder each.
os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", f"{tempfile.gettempdir()}/gptlab-tests-compiled-{os.getuid()}")

VERDICT = "the-verdict.txt"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder that this test alone uses."""
    folder = tmp_path / "home"
    monkeypatch.setenv("GPTLAB_HOME", str(folder))
    return folder


@pytest.fixture(scope="session")
def verdict() -> str:
    """The text of The Verdict, from the folder that ``GPTLAB_CORPORA`` names."""
    named = os.environ.get("GPTLAB_CORPORA", "")
    path = Path(named) / VERDICT
    if not named or not path.is_file():
        pytest.skip(f"The Verdict is not here: set GPTLAB_CORPORA to a folder that holds {VERDICT}")
    return path.read_text(encoding="utf-8")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Browser tests last: whatever is broken below them then shows first."""
    items.sort(key=lambda item: item.get_closest_marker("browser") is not None)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):  # type: ignore[no-untyped-def]
    """In CI a skipped test is a failure: everything that the tests need is there."""
    outcome = yield
    report = outcome.get_result()
    if report.skipped and os.environ.get("CI") and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped in CI: {report.longrepr}"
