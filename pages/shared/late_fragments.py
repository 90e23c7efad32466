"""A timed fragment whose message comes after its page was left: it is let go, instead of emptying the new page."""

from __future__ import annotations

from functools import wraps

from streamlit.runtime.scriptrunner import RerunData
from streamlit.runtime.scriptrunner.script_runner import ScriptRunner


def let_late_fragments_go() -> None:
    """Teach Streamlit to skip a fragment's rerun that was asked for on another page than the one that shows now.

    A browser asks for a timed fragment (``run_every``) in the moment in which the script switches to another page.
    Streamlit then runs that fragment in the name of the page that was left, and the browser, told so, removes all of
    the new page, for good. There is no public place to stop it at; where Streamlit names things differently than
    1.67 does, nothing is changed.
    """
    run_script = getattr(ScriptRunner, "_run_script", None)
    if run_script is None or hasattr(run_script, "__wrapped__"):
        return

    @wraps(run_script)
    def run_unless_late(self: ScriptRunner, rerun_data: RerunData) -> None:
        pages = getattr(self, "_pages_manager", None)
        now = getattr(pages, "current_page_script_hash", "")
        if rerun_data.fragment_id_queue and now and rerun_data.page_script_hash not in ("", now):
            return
        run_script(self, rerun_data)

    ScriptRunner._run_script = run_unless_late  # type: ignore[method-assign]
